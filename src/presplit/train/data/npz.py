"""A user's own data in one ``.npz`` file: ``x_train y_train x_test y_test`` and, optionally, ``labels``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from presplit.core.errors import DataError, context
from presplit.train.data.samples import Dataset, Samples

_NEEDED = ("x_train", "y_train", "x_test", "y_test")


def npz(path: str | Path) -> Dataset:
    """Read ``path``; uint8 images are scaled to 0..1, everything else is taken as float32.

    Raises `DataError` if the file is missing, an array is missing, or shapes disagree. Nothing in it is executed.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in _NEEDED if name not in file]
            if missing:
                raise DataError(f"{path}: arrays {', '.join(_NEEDED)} are expected, {', '.join(missing)} missing")
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    with context(str(path)):
        train, test = (_samples(arrays, part) for part in ("train", "test"))
        if train.x.shape[1:] != test.x.shape[1:]:
            raise DataError(f"training samples are {train.x.shape[1:]}, test samples {test.x.shape[1:]}")
        classes = int(max(train.y.max(), test.y.max())) + 1
        labels = tuple(str(label) for label in arrays.get("labels", np.arange(classes)))
        if min(train.y.min(), test.y.min()) < 0 or len(labels) < classes:
            raise DataError(f"labels must be in 0..{len(labels) - 1}, got up to {classes - 1}")
    return Dataset(path.stem, train, test, labels)


def _samples(arrays: dict[str, np.ndarray], part: str) -> Samples:
    x = arrays[f"x_{part}"]
    if x.dtype.kind not in "fiu" or arrays[f"y_{part}"].dtype.kind not in "iu":
        raise DataError(f"x_{part} must hold numbers and y_{part} integers")
    scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    if not np.isfinite(scaled).all():
        raise DataError(f"x_{part} holds values that are not finite")
    return Samples(scaled, arrays[f"y_{part}"].astype(np.int64))
