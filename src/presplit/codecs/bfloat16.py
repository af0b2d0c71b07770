"""bfloat16: the upper half of a float32, two bytes a value, for values beyond float16's range.

It is native, because engines of some age take no input of this type. Source: the format of Google's
TPUs, rounded to the nearest, ties to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.codecs.native import alone, nbytes, raw, same
from presplit.core.encoding import Brief, Encoding, Seen
from presplit.core.errors import InputError
from presplit.core.types import Floats

LARGEST = 0x7F7F
"""The upper half of the largest finite number: values beyond it saturate."""


class BFloat16:
    """Half the bytes of float32 over its whole range, relative error at most 2**-8.

    >>> bfloat16 = BFloat16()
    >>> encoding = bfloat16.calibrate(None, (2,))
    >>> codes = bfloat16.encode(np.array([[1.0, 1e30]], np.float32), encoding)
    >>> bfloat16.decode(codes, encoding, (2,)).tolist()
    [[1.0, 1.0002555517425873e+30]]
    """

    name = "bfloat16"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Brief:
        """No range matters."""
        return Brief()

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The nearest upper halves."""
        bits = np.ascontiguousarray(alone(values)).view(np.uint32)
        halves = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        sign = halves & 0x8000
        finite = np.minimum(halves & 0x7FFF, LARGEST) | sign
        return finite.astype("<u2").reshape(1, -1).view(np.uint8)

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """A shift, exact; numbers that are not finite are refused."""
        payload = raw(codes)
        same("bytes of bfloat16", nbytes("uint16", shape), len(payload))
        halves = np.frombuffer(payload, "<u2").astype(np.uint32)
        values = (halves << 16).view(np.float32).reshape(1, *shape)
        if not np.isfinite(values).all():
            raise InputError("bfloat16: expected finite values, got NaN or infinity")
        return values

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> None:
        """It is native."""

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a unit in the last place: relative 2**-8, absolute 2**-134 among the subnormals."""
        return np.maximum(np.abs(values) * np.float32(2.0**-8), np.float32(2.0**-134))
