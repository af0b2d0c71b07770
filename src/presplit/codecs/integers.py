"""integers: whole numbers, such as token ids, travel as integers without loss.

The tail graph casts them back to float32. The smallest integer type is taken that holds twice the
range seen; a number that is beyond it, or is not whole, is not carried, and its sample goes as
float32. Source: none needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Cast, Dtype, Encoding, Seen, Step
from presplit.core.types import Floats

KINDS: tuple[Dtype, ...] = ("int8", "int16")
"""From the smallest on; int32 would need as many bytes as float32, which is exact for ids too."""


class Integers:
    """One or two bytes a value, no error.

    >>> integers = Integers()
    >>> encoding = integers.calibrate(Seen(0.0, 8191.0, whole=True), (2,))
    >>> integers.encode(np.array([7.0, 8190.0], np.float32), encoding)
    array([   7, 8190], dtype=int16)
    >>> integers.encode(np.array([0.5], np.float32), encoding) is None
    True
    """

    name = "integers"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Cast | None:
        """The smallest type for twice the range; None where values are not whole, or too large."""
        if seen is None or not seen.whole:
            return None
        for kind in KINDS:
            limits = np.iinfo(kind)
            if limits.min <= 2 * seen.low and 2 * seen.high <= limits.max:
                return Cast(kind)
        return None

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any] | None:
        """The same numbers; None if one of them is not whole or out of the type's range."""
        limits = np.iinfo(encoding.dtype)
        fits = (values >= limits.min) & (values <= limits.max) & (values == np.rint(values))
        return values.astype(encoding.dtype) if fits.all() else None

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """The same numbers."""
        return codes.astype(np.float32)

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[Step, ...]:
        """One Cast."""
        return (Step("Cast", to="float32"),)

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Zero."""
        return np.zeros_like(values)
