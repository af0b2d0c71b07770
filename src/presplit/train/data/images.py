"""A user's own images in folders.

They are ``train/CLASS/NAME.png`` and ``test/CLASS/NAME.png``, decoded by Pillow.

Nothing of the user's is skipped: a file that is no image, a class without images and a class that
only one part has are errors. What file managers leave behind is passed over, see `LITTER`.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError, library
from presplit.train.data.samples import Dataset, Samples

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")
"""What the file managers of macOS and Windows put into folders, as they do names in ``._``."""
PARTS = ("test", "train")
MOST_BYTES = 2**33
"""No data set that is held in memory as float32 is larger."""
_ORIENTATION = 0x0112
"""The EXIF tag for how the camera was held."""
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""The modes of Pillow in which a channel has at most 8 bits."""
_LAYOUT = "expected train/CLASS/NAME and test/CLASS/NAME, the images' names ending in " + " ".join(
    ENDINGS
)
_DAMAGED = (
    *(
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
        MemoryError,
    ),
    *(struct.error, zlib.error, UserWarning, RuntimeWarning),
)
"""What Pillow raises for files that are no images, or are damaged.

It only warns of some damage, and of huge images.
"""


def images(path: str | Path, *, size: int | None = None, grey: bool = False) -> Dataset:
    """Images float32 ``(n, 3, height, width)`` in 0..1, or ``(n, 1, ..)`` if ``grey``.

    The classes' names are sorted.

    With ``size`` in pixels, each image is scaled until its shorter side fits, and its middle
    ``size`` x ``size`` is taken; without, all must have one size. Photographs are turned upright as
    their EXIF data says, where that can be read; transparency is dropped. Raises `DataError` naming
    the file or folder that is not what is expected, or the size if the images need more than 8 GiB.
    """
    path = Path(path)
    parts = _parts(path)
    labels = tuple(parts["train"])
    first = parts["train"][labels[0]][0]
    shape = (1 if grey else 3, size, size) if size else _decoded(first, size, grey).shape
    count = sum(len(files) for classes in parts.values() for files in classes.values())
    needed = count * int(np.prod(shape)) * 4
    if needed > MOST_BYTES:
        raise DataError(
            f"{path}: {count:,} images of {shape[2]} x {shape[1]} need {needed / 2**30:.1f} GiB of "
            "memory, at most "
            f"{MOST_BYTES / 2**30:.0f} are expected; a smaller data.size, or data.grey, makes them "
            "fit"
        )
    train, test = (_samples(parts[part], first, shape, size, grey) for part in ("train", "test"))
    return Dataset(path.resolve().name, train, test, labels)


def _parts(path: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of each class of each part; the classes are the same in both."""
    if not os.path.isdir(path):
        raise DataError(f"{path}: not a folder; a folder of images is {_LAYOUT}")
    found = [entry.name for entry in _entries(path)]
    if found != list(PARTS):
        raise DataError(f"{path}: {_LAYOUT}, and nothing else; got {_listed(found)}")
    parts = {part: {entry.name: _files(entry) for entry in _entries(path / part)} for part in PARTS}
    train, test = parts["train"].keys(), parts["test"].keys()
    for name in sorted(train ^ test):
        has, lacks = PARTS if name in test else reversed(PARTS)
        raise DataError(
            f"{path / has / name}: the same classes are expected in both parts, {lacks}/ has no "
            f"{name}/"
        )
    for name in train:
        try:
            name.encode()
        except UnicodeError as error:
            raise DataError(
                f"{path / 'train'}: the name of a class is not UTF-8, {os.fsencode(name)!r}; "
                "rename its folders"
            ) from error
    if len(train) < 2:
        raise DataError(
            f"{path / 'train'}: folders of at least two classes are expected, got "
            f"{_listed(list(train))}"
        )
    return parts


def _files(folder: Path) -> list[Path]:
    """The images of one class."""
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected a folder with the images of one class, got a file; move it away"
        )
    files = _entries(folder)
    for file in files:
        if file.suffix.lower() not in ENDINGS or not file.is_file():
            raise DataError(
                f"{file}: expected an image file, its name ending in {' '.join(ENDINGS)}; move it "
                "away"
            )
    if not files:
        raise DataError(f"{folder}: expected at least one image of this class, got none")
    return files


def _entries(folder: Path) -> list[Path]:
    """What the user put into ``folder``, sorted by name."""
    try:
        entries = sorted(folder.iterdir())
        return [each for each in entries if each.name not in LITTER and each.name[:2] != "._"]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _listed(names: Sequence[str]) -> str:
    """The first ``names`` in words.

    >>> _listed(["cat", "dog"]), _listed([])
    ('cat, dog', 'nothing')
    """
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]) or "nothing"


def _samples(
    classes: Mapping[str, Sequence[Path]],
    first: Path,
    shape: tuple[int, ...],
    size: int | None,
    grey: bool,
) -> Samples:
    """The images of one part, each of the ``shape`` of the ``first``."""
    counts = [len(files) for files in classes.values()]
    x = np.empty((sum(counts), *shape), np.float32)
    for place, file in enumerate(file for files in classes.values() for file in files):
        pixels = _decoded(file, size, grey)
        if pixels.shape != shape:
            raise DataError(
                f"{file}: expected {shape[2]} x {shape[1]} pixels as {first} has, got "
                f"{pixels.shape[2]} x "
                f"{pixels.shape[1]}; data.size brings all images to one size"
            )
        x[place] = pixels / np.float32(255)
    return Samples(x, np.repeat(np.arange(len(counts)), counts))


def _decoded(file: Path, size: int | None, grey: bool) -> npt.NDArray[np.uint8]:
    """uint8 ``(channels, height, width)``."""
    image = library("PIL.Image", need="reading a folder of images", extra="train")
    ops = library("PIL.ImageOps", need="reading a folder of images", extra="train")
    try:
        with warnings.catch_warnings():
            for kind in (UserWarning, RuntimeWarning):
                warnings.simplefilter("error", kind)
            # What it warns of while it reads EXIF data says nothing of the pixels.
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL.TiffImagePlugin")
            with image.open(file, formats=_FORMATS) as opened:
                if opened.mode not in _EIGHT_BITS:
                    raise DataError(
                        f"{file}: expected at most 8 bits a channel, got Pillow's mode "
                        f"{opened.mode!r}"
                    )
                opened.load()
                upright = _upright(opened, image)
            plain = upright.convert("RGBA") if upright.mode in ("P", "PA") else upright
            plain = plain.convert("L" if grey else "RGB")
            fitted = (
                plain if size is None else ops.fit(plain, (size, size), image.Resampling.BILINEAR)
            )
    except (*_DAMAGED, image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: not a readable image ({str(error) or type(error).__name__})"
        ) from error
    pixels = np.asarray(fitted, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _upright(opened: Any, image: Any) -> Any:
    """The picture turned as its EXIF data says; as it lies where that is damaged.

    Pillow's own function writes the rest of the data again, and fails where any of it is damaged.
    """
    try:
        turn = opened.getexif().get(_ORIENTATION)
    except _DAMAGED:
        turn = None
    ways = image.Transpose
    turns = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    known = turn if isinstance(turn, int) else None
    return opened.transpose(turns[known]) if known in turns else opened
