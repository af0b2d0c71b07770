"""int8: one affine scale for a whole boundary, one byte a value.

The tail graph begins with DequantizeLinear.

Source: ONNX QuantizeLinear/DequantizeLinear, asymmetric and per tensor. The range is seen once, on
held-out training data, so the scale is a constant of the tail graph and any server of the Open
Inference Protocol can host it. An 8-bit image in 0..1 gets the scale 1/255 and travels without
loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.types import Encoding, Floats


class Int8:
    """A quarter of the bytes of float32, error at most half a step inside the calibrated range.

    >>> int8 = Int8()
    >>> encoding = int8.calibrate(0.0, 1.0)
    >>> int8.encode(np.array([0.0, 0.2, 1.0, 7.0], np.float32), encoding)
    array([-128,  -77,  127,  127], dtype=int8)
    """

    name = "int8"

    def calibrate(self, low: float, high: float) -> Encoding:
        """256 steps over ``low..high``, widened to hold 0, which stays exact.

        No step is below 2**-100.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 2.0**-100) if high > low else 1.0
        return Encoding(self.name, "int8", scale, round(-128 - low / scale))

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The nearest steps; what lies outside the calibrated range saturates."""
        codes = np.rint(values / np.float32(encoding.scale)) + np.float32(encoding.zero_point)
        return np.clip(codes, -128, 127).astype(np.int8)

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding) -> Floats:
        """``(code - zero_point) * scale``, as DequantizeLinear."""
        return (codes.astype(np.float32) - np.float32(encoding.zero_point)) * np.float32(
            encoding.scale
        )

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a step, and a little for the rounding of float32."""
        return np.full_like(values, 0.501 * encoding.scale)
