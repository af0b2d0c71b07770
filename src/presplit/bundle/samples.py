"""Samples as users have them, brought to what a net takes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.core.types import Floats


def as_input(samples: npt.NDArray[Any], *, whole: bool) -> Floats:
    """``samples`` ``(n, *shape)`` of any number type as float32.

    Bytes are scaled to 0..1, as training does, unless the net's input is ``whole``: numbers such as
    ids, or bytes that the net scales itself, which stay as they are. Other whole numbers are taken
    by such a net alone. Raises `InputError` for what is none of these.

    >>> as_input(np.array([[0, 255]], np.uint8), whole=False).tolist()
    [[0.0, 1.0]]
    >>> as_input(np.array([[0, 255]]), whole=True).tolist()
    [[0.0, 255.0]]
    """
    kind = samples.dtype.kind
    if kind == "f" or (kind in "iu" and whole):
        return samples.astype(np.float32)
    if samples.dtype == np.uint8:
        return samples.astype(np.float32) / np.float32(255)
    raise InputError(
        f"samples: expected float32, or uint8 which is scaled to 0..1, got {samples.dtype}"
    )


def read_array(path: Path, what: str) -> Any:
    """The array in a ``.npy`` file of ``what``, or an archive of several.

    Raises `InputError` that names the file if it is neither. Nothing in it is executed.
    """
    try:
        with path.open("rb") as file:
            return checked_array(file, what)
    except OSError as error:
        raise InputError(f"{path}: not a readable .npy file of {what} ({error})") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def checked_array(file: IO[bytes], what: str) -> Any:
    """As `read_array`, from what is open."""
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        # Where it finds no numbers, NumPy advises to run what the file holds.
        problem = "it holds no array of numbers" if "pickle" in str(error) else error
        raise InputError(f"not a readable .npy file of {what} ({problem})") from error


def read_samples(path: Path, *, axes: int = 2) -> npt.NDArray[Any]:
    """The samples in a ``.npy`` file, numbers of any type, of at least so many ``axes``.

    `as_input` scales them. Raises `InputError` for anything else.
    """
    array = read_array(path, "samples")
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    if kind not in ("f", "i", "u") or array.ndim < axes:
        got = f"{array.dtype} of shape {array.shape}" if kind else "an archive of several"
        raise InputError(f"{path}: an array (n, *shape) of numbers is expected, got {got}")
    return array
