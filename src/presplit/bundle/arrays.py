"""Arrays in a bundle's files: exactly those that are expected, and nothing that runs."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import BundleError

MOST_HEADER = 10_000
"""Characters of the header of a ``.npy`` file."""


def array_in(raw: bytes, dtype: str, shape: tuple[int, ...], where: Path) -> npt.NDArray[Any]:
    """The array in ``raw``, the bytes of a ``.npy`` file, of this dtype and shape.

    What it says of itself is compared before room is made for it. Raises `BundleError`.
    """
    file = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format")
        told, fortran, kind = np.lib.format.read_array_header_1_0(file, MOST_HEADER)
    except (ValueError, EOFError, OSError, RecursionError, MemoryError) as error:
        raise BundleError(f"{where}: cannot be read ({error})") from error
    if kind != np.dtype(dtype) or tuple(told) != shape or fortran:
        raise BundleError(f"{where}: expected {dtype} {shape}, got {kind} {tuple(told)}")
    values = raw[file.tell() :]
    if len(values) != math.prod(shape) * kind.itemsize:
        raise BundleError(f"{where}: cannot be read (it ends within its values, or goes on)")
    return np.frombuffer(values, kind).reshape(shape)
