"""A user's own data in one ``.npz`` file.

It holds ``x_train y_train x_test y_test`` and, optionally, ``labels``.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from presplit.core.errors import DataError, context
from presplit.train.data.samples import Dataset, Samples

_NEEDED = ("x_train", "y_train", "x_test", "y_test")
_DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, OverflowError, MemoryError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
"""What zipfile, zlib and numpy raise for files that are no archive of arrays.

So they do for files that are damaged, encrypted or too big.
"""


def npz(path: str | Path) -> Dataset:
    """Read ``path``; uint8 images are scaled to 0..1, everything else is taken as float32.

    Raises `DataError` if the file is missing, an array is missing or not one of these, or the two
    parts differ in shape, scale or classes. Nothing in it is executed.
    """
    path = Path(path)
    arrays = _arrays(path)
    with context(str(path)):
        missing = [name for name in _NEEDED if name not in arrays]
        if missing:
            raise DataError(
                f"arrays {', '.join(_NEEDED)} are expected, {', '.join(missing)} missing"
            )
        train, test = (_samples(arrays, part) for part in ("train", "test"))
        if train.x.shape[1:] != test.x.shape[1:]:
            raise DataError(
                f"training samples are {train.x.shape[1:]}, test samples {test.x.shape[1:]}"
            )
        kinds = [arrays[f"x_{part}"].dtype for part in ("train", "test")]
        if (kinds[0] == np.uint8) != (kinds[1] == np.uint8):
            raise DataError(
                f"only uint8 is scaled to 0..1: x_train is {kinds[0]}, x_test {kinds[1]}; store "
                "both alike"
            )
        labels = _labels(arrays.get("labels"), train, test)
    return Dataset(path.stem, train, test, labels)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays in ``path``, all of which are of use here."""
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise ValueError("one array, not an archive of arrays")
            if more := sorted(set(found) - {*_NEEDED, "labels"}):
                expected = f"{', '.join(_NEEDED)} and perhaps labels"
                raise DataError(
                    f"{path}: arrays {expected} are expected, {', '.join(more)} would not be used"
                )
            arrays = dict(found)
    except _DAMAGED as error:
        if "Object arrays" in str(error):  # numpy's words for an array of Python objects
            raise DataError(
                f"{path}: an array holds Python objects, which reading could make run; store "
                "numbers, and names as text: np.array(names, str)"
            ) from error
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path}: not a readable .npz file ({name} is not an array)")
    return arrays


def _samples(arrays: dict[str, np.ndarray], part: str) -> Samples:
    x = arrays[f"x_{part}"]
    if x.dtype.kind not in "fiu" or arrays[f"y_{part}"].dtype.kind not in "iu":
        raise DataError(f"x_{part} must hold numbers and y_{part} integers")
    with np.errstate(
        over="ignore"
    ):  # a value too large for float32 becomes infinite, and is refused
        scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(scaled).all():
        raise DataError(f"x_{part} holds values that are not finite")
    return Samples(scaled, arrays[f"y_{part}"].astype(np.int64))


def _labels(given: np.ndarray | None, train: Samples, test: Samples) -> tuple[str, ...]:
    """The classes' names: ``given``, or their numbers."""
    if given is not None and given.ndim != 1:
        raise DataError(f"labels must be a list of names, got shape {given.shape}")
    lowest, highest = int(min(train.y.min(), test.y.min())), int(max(train.y.max(), test.y.max()))
    classes = len(train) + len(test) if given is None else len(given)
    if lowest < 0 or highest >= classes:
        raise DataError(f"labels must be in 0..{classes - 1}, got {lowest}..{highest}")
    if unseen := sorted({*test.y.tolist()} - {*train.y.tolist()}):
        raise DataError(f"class {unseen[0]} is in y_test and not in y_train")
    names = range(highest + 1) if given is None else given
    if len(names) < 2:
        raise DataError(f"at least two classes are needed, got {len(names)}")
    return tuple(_name(name) for name in names)


def _name(given: object) -> str:
    """A class's name as text; bytes are UTF-8, as h5py and old pickles give them.

    >>> _name(np.bytes_("Käse".encode())), _name(3)
    ('Käse', '3')
    """
    given = given.item() if isinstance(given, np.generic) else given
    if not isinstance(given, bytes | str | int):
        raise DataError(f"labels: names are text or whole numbers, got {given!r}")
    try:
        text = given.decode() if isinstance(given, bytes) else str(given)
        text.encode()
    except UnicodeError as error:
        raise DataError(f"labels: names are UTF-8 text, got {given!r}") from error
    return text
