"""int8: one affine scale for a whole boundary, one byte a value.

The tail graph begins by casting, shifting and scaling, which operators of every age can. Source:
ONNX QuantizeLinear/DequantizeLinear, asymmetric and per tensor. The range is seen once, on held-out
training data, so the scale is a constant of the tail graph and any server of the Open Inference
Protocol can host it. An 8-bit image in 0..1 gets the scale 1/255 and travels without loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Affine, Encoding, Seen, Step
from presplit.core.types import Floats


class Int8:
    """A quarter of the bytes of float32, error at most half a step inside the calibrated range.

    >>> int8 = Int8()
    >>> encoding = int8.calibrate(Seen(0.0, 1.0))
    >>> int8.encode(np.array([0.0, 0.2, 1.0, 7.0], np.float32), encoding)
    array([-128,  -77,  127,  127], dtype=int8)
    """

    name = "int8"

    def calibrate(self, seen: Seen | None) -> Affine | None:
        """256 steps over the range seen, widened to hold 0, which stays exact.

        None where no range is known. No step is below 2**-100.
        """
        if seen is None:
            return None
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        scale = max((high - low) / 255, 2.0**-100) if high > low else 1.0
        return Affine(scale, round(-128 - low / scale))

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The nearest steps; what lies outside the calibrated range saturates."""
        assert isinstance(encoding, Affine), "this codec calibrates no other"
        codes = np.rint(values / np.float32(encoding.scale)) + np.float32(encoding.zero_point)
        return np.clip(codes, -128, 127).astype(np.int8)

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding) -> Floats:
        """``(code - zero_point) * scale``, as DequantizeLinear."""
        assert isinstance(encoding, Affine), "this codec calibrates no other"
        shifted = codes.astype(np.float32) - np.float32(encoding.zero_point)
        return shifted * np.float32(encoding.scale)

    def decoder(self, encoding: Encoding) -> tuple[Step, ...]:
        """A cast, less the zero point, times the scale; DequantizeLinear needs newer files."""
        assert isinstance(encoding, Affine), "this codec calibrates no other"
        shift, scale = np.float32(encoding.zero_point), np.float32(encoding.scale)
        return (Step("Cast", to="float32"), Step("Sub", (shift,)), Step("Mul", (scale,)))

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a step, and a little for the rounding of float32."""
        assert isinstance(encoding, Affine), "this codec calibrates no other"
        return np.full_like(values, 0.501 * encoding.scale)
