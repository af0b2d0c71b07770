"""Arrays as they travel.

They are raw little-endian bytes with a name, a datatype and a shape, checked before they are used.

Source: Open Inference Protocol, "Tensor Data" and ``raw_input_contents``: flattened, row-major, no
padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError

DATATYPES = {
    "FP32": "<f4",
    "FP16": "<f2",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
}
"""The protocol's datatypes that travel, with numpy's name for their bytes; no other is accepted."""


@dataclass(frozen=True)
class Sent:
    """A tensor as it travels: nothing in it has been checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class Form:
    """What a tensor must be: ``shape`` without the batch, which may be 1..``max_batch``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    max_batch: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of one sample.

        >>> Form("boundary", "INT8", (3, 2)).nbytes
        6
        """
        return math.prod(self.shape) * np.dtype(DATATYPES[self.datatype]).itemsize

    def read(self, tensor: Sent) -> npt.NDArray[Any]:
        """The array in ``tensor``, ``(batch, *shape)`` and read-only.

        Raises `InputError` if it is not of this form.

        >>> form = Form("boundary", "FP32", (2,), max_batch=8)
        >>> form.read(send("boundary", np.ones((1, 2), np.float32)))
        array([[1., 1.]], dtype=float32)
        >>> form.read(Sent("boundary", "FP32", (1, 2), b"1234567"))
        Traceback (most recent call last):
            ...
        presplit.core.errors.InputError: 'boundary' of shape (1, 2) and datatype FP32 \
has 8 bytes, got 7
        """
        if tensor.name != self.name:
            raise InputError(f"expected a tensor named {self.name!r}, got {tensor.name[:64]!r}")
        if tensor.datatype != self.datatype:
            raise InputError(f"{self.name!r} must be {self.datatype}, got {tensor.datatype[:16]!r}")
        shape = tensor.shape
        if (
            len(shape) != len(self.shape) + 1
            or shape[1:] != self.shape
            or not 1 <= shape[0] <= self.max_batch
        ):
            batch = "1" if self.max_batch == 1 else f"1..{self.max_batch}"
            expected = ", ".join([batch, *map(str, self.shape)])
            raise InputError(f"{self.name!r} must have shape ({expected}), got {_short(shape)}")
        size = shape[0] * self.nbytes
        if len(tensor.raw) != size:
            got = len(tensor.raw)
            raise InputError(
                f"{self.name!r} of shape {shape} and datatype {self.datatype} has {size} bytes, "
                f"got {got}"
            )
        array = np.frombuffer(tensor.raw, dtype=DATATYPES[self.datatype]).reshape(shape)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{self.name!r} must be finite, got NaN or infinity")
        return array


def send(name: str, array: npt.NDArray[Any]) -> Sent:
    r"""``array`` as a tensor called ``name``; raises `InputError` for a dtype that does not travel.

    >>> send("boundary", np.zeros((1, 2), np.int8))
    Sent(name='boundary', datatype='INT8', shape=(1, 2), raw=b'\x00\x00')
    """
    datatype = datatype_of(array.dtype)
    raw = np.ascontiguousarray(array, dtype=DATATYPES[datatype]).tobytes()
    return Sent(name, datatype, array.shape, raw)


def datatype_of(dtype: npt.DTypeLike) -> str:
    """The protocol's name of ``dtype``; raises `InputError` if it does not travel.

    >>> datatype_of("float16")
    'FP16'
    """
    wanted = np.dtype(dtype)
    for name, code in DATATYPES.items():
        if wanted == np.dtype(code):
            return name
    raise InputError(f"dtype must be float32, float16 or a signed integer, got {wanted}")


def _short(shape: Sequence[int]) -> str:
    """``shape`` for a message, cut where a hostile one would go on."""
    shown = ", ".join(map(str, shape[:8]))
    return f"({shown}, and {len(shape) - 8} more)" if len(shape) > 8 else f"({shown})"
