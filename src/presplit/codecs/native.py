"""What native codecs share: one sample is one row of bytes, and comes from a stranger."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError
from presplit.core.types import Floats

Payload = npt.NDArray[np.uint8]


def alone(values: Floats) -> Floats:
    """``values`` ``(1, *boundary)``; raises `InputError` for another batch.

    Payloads differ in length, so a batch of them is no array.
    """
    if len(values) != 1:
        raise InputError(f"a native codec carries one sample at a time, got {len(values)}")
    return values


def payload(raw: bytes | bytearray | memoryview) -> Payload:
    """``raw`` as the codes of one sample, uint8 ``(1, n)``."""
    return np.frombuffer(raw, np.uint8)[None]


def raw(codes: npt.NDArray[np.generic]) -> bytes:
    """The bytes of one sample's codes; raises `InputError` unless it is one row of bytes."""
    if codes.dtype != np.uint8 or codes.ndim != 2 or len(codes) != 1:
        raise InputError(
            "a native codec takes one sample as uint8 of shape (1, n), got "
            f"{codes.dtype} of shape {codes.shape}"
        )
    return codes.tobytes()


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def same(what: str, expected: object, got: object) -> None:
    """Raise `InputError` unless a payload is as its boundary needs it.

    >>> same("bytes of bfloat16", 4, 3)
    Traceback (most recent call last):
        ...
    presplit.core.errors.InputError: payload: expected 4 bytes of bfloat16, got 3
    """
    if expected != got:
        raise InputError(f"payload: expected {expected} {what}, got {got}")
