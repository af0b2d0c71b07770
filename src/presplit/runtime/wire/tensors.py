"""Arrays as they travel: raw little-endian bytes with a name, a datatype and a shape.

They are checked before they are used. Source: Open Inference Protocol, "Tensor Data" and
``raw_input_contents``: flattened, row-major, no padding.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.runtime.hosted import Form

DATATYPES = {
    "FP32": "float32",
    "FP16": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
}
"""The protocol's datatypes that travel, with NumPy's name; no other is accepted."""


LITTLE = sys.byteorder == "little"


@dataclass(frozen=True)
class Sent:
    """A tensor as it travels: nothing in it has been checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


def read(tensor: Sent, form: Form) -> npt.NDArray[Any]:
    """The array in ``tensor``, ``(batch, *form.shape)`` and read-only.

    Raises `InputError` if it is not of ``form``; its values are not looked at.

    >>> form = Form("boundary", "float32", (2,), max_batch=8)
    >>> read(send("boundary", np.ones((1, 2), np.float32)), form)
    array([[1., 1.]], dtype=float32)
    >>> read(Sent("boundary", "FP32", (1, 2), b"1234567"), form)
    Traceback (most recent call last):
        ...
    presplit.core.errors.InputError: 'boundary' of shape (1, 2) and datatype FP32 has 8 bytes, got 7
    """
    if tensor.name != form.name:
        raise InputError(f"expected a tensor named {form.name!r}, got {tensor.name[:64]!r}")
    datatype = datatype_of(form.dtype)
    if tensor.datatype != datatype:
        raise InputError(f"{form.name!r} must be {datatype}, got {tensor.datatype[:16]!r}")
    shape = tensor.shape
    form.check_shape(form.dtype, shape)
    size = math.prod(shape) * np.dtype(form.dtype).itemsize
    if len(tensor.raw) != size:
        raise InputError(
            f"{form.name!r} of shape {shape} and datatype {datatype} has {size} bytes, "
            f"got {len(tensor.raw)}"
        )
    return np.frombuffer(tensor.raw, dtype=_travelling(np.dtype(form.dtype))).reshape(shape)


def send(name: str, array: npt.NDArray[Any]) -> Sent:
    r"""``array`` as a tensor called ``name``; raises `InputError` for a dtype that does not travel.

    >>> send("boundary", np.zeros((1, 2), np.int8))
    Sent(name='boundary', datatype='INT8', shape=(1, 2), raw=b'\x00\x00')
    """
    return Sent(name, datatype_of(array.dtype), array.shape, little_endian(array).tobytes())


def little_endian(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of ``array`` as they travel; nothing is copied if they lie so."""
    if not (LITTLE and array.dtype.isnative and array.flags.c_contiguous):
        array = np.ascontiguousarray(array, dtype=_travelling(array.dtype))
    return array.data.cast("B")


def datatype_of(dtype: npt.DTypeLike) -> str:
    """The protocol's name of ``dtype``; raises `InputError` if it does not travel.

    >>> datatype_of("float16")
    'FP16'
    """
    return _datatype(np.dtype(dtype))


# Both are asked several times for every request, and the answers are few.
@functools.lru_cache(64)
def _datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of ``dtype``."""
    wanted = dtype.newbyteorder("=")
    for name, known in DATATYPES.items():
        if wanted == np.dtype(known):
            return name
    raise InputError(f"dtype must be one of {', '.join(DATATYPES.values())}, got {wanted}")


@functools.lru_cache(64)
def _travelling(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` as its bytes travel: little-endian."""
    return dtype.newbyteorder("<")
