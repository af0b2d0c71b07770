"""float32: the boundary travels as it is. Source: none needed. Exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Cast, Encoding, Seen, Step
from presplit.core.types import Floats


class Float32:
    """Four bytes a value, no error.

    >>> float32 = Float32()
    >>> plain = float32.calibrate(None, (2,))
    >>> float32.decode(float32.encode(np.ones((1, 2), np.float32), plain), plain, (2,))
    array([[1., 1.]], dtype=float32)
    """

    name = "float32"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Cast:
        """No range matters."""
        return Cast("float32")

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The values themselves."""
        return values

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """The codes themselves."""
        return codes

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[Step, ...]:
        """Nothing is to be done."""
        return ()

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Zero."""
        return np.zeros_like(values)
