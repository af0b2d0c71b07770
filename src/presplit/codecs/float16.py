"""float16: IEEE half precision, two bytes a value; the tail graph casts back.

Source: IEEE 754-2008, binary16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Cast, Encoding, Seen, Step
from presplit.core.types import Floats

LARGEST = 65504.0
"""The largest finite half: values beyond it saturate instead of becoming infinite."""


class Float16:
    """Half the bytes of float32, relative error at most 2**-11.

    >>> float16 = Float16()
    >>> codes = float16.encode(np.array([0.1, 1e9], np.float32), float16.calibrate(None, (2,)))
    >>> codes.dtype.name, float(codes[1])
    ('float16', 65504.0)
    """

    name = "float16"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Cast:
        """No range matters below 65504."""
        return Cast("float16")

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The nearest halves."""
        return np.clip(values, -LARGEST, LARGEST).astype(np.float16)

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """A widening cast, exact."""
        return codes.astype(np.float32)

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[Step, ...]:
        """One Cast."""
        return (Step("Cast", to="float32"),)

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a unit in the last place: relative 2**-11, absolute 2**-25 among the subnormals."""
        return np.maximum(np.abs(values) * np.float32(2.0**-11), np.float32(2.0**-25))
