"""int8, int4 and int2: affine steps, with one scale for a boundary or one for each channel.

The tail graph begins by casting, shifting and scaling, which operators of every age can. Codes of
fewer than 8 bits lie several in a byte, the first in the upper bits, and are looked up in a table
of all bytes. Source: ONNX QuantizeLinear/DequantizeLinear, asymmetric. The range is seen once, on
held-out training data, so the scales are constants of the tail graph and any server of the Open
Inference Protocol can host it. With few steps a range that leaves out the rarest values loses less
than one that holds all, so below 8 bits the ends come from the least squared error on values that
were seen (as in Banner et al., arXiv 1810.05723, here by search). An 8-bit image in 0..1 gets the
scale 1/255 and travels as int8 without loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.encoding import Affine, AffineChannels, Bits, Encoding, Seen, Step
from presplit.core.types import Floats

LONGEST_ODD = 2**16
"""Values of a boundary that do not fill the last byte, at most: their decoder lists their places.

Slice would need no list, but takes its arguments in another way since operator set 10.
"""
PARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Of the range seen, what steps of fewer than 8 bits may span.

It is one part for all channels: chosen for each alone, it cuts off what is rare in a channel and
tells classes apart.
"""
_ENCODINGS = "this codec calibrates no other"


class Int:
    """So many ``bits`` a value, error at most half a step inside the calibrated range.

    >>> int8 = Int(8)
    >>> encoding = int8.calibrate(Seen(0.0, 1.0), (4,))
    >>> int8.encode(np.array([[0.0, 0.2, 1.0, 7.0]], np.float32), encoding)
    array([[-128,  -77,  127,  127]], dtype=int8)
    >>> int4 = Int(4)
    >>> encoding = int4.calibrate(Seen(0.0, 1.0), (3,))
    >>> codes = int4.encode(np.array([[0.2, 1.0, 0.0]], np.float32), encoding)
    >>> codes.tolist(), int4.decode(codes, encoding, (3,)).round(2)
    ([[63, 0]], array([[0.2, 1. , 0. ]], dtype=float32))
    """

    def __init__(self, bits: Bits, *, by_channel: bool = False) -> None:
        self.bits: Bits = bits
        self.by_channel = by_channel
        self.name = f"int{bits}-channel" if by_channel else f"int{bits}"

    def calibrate(
        self, seen: Seen | None, shape: tuple[int, ...]
    ) -> Affine | AffineChannels | None:
        """2**bits steps over the range seen, widened to hold 0, which stays exact.

        Below 8 bits they may end before that range does. None where no range is known, or none of
        each channel. No step is below 2**-100.
        """
        if seen is None or (self.by_channel and not seen.channels):
            return None
        size = math.prod(shape)
        if size * self.bits % 8 and size > LONGEST_ODD:
            return None
        ranges = seen.channels if self.by_channel else [(seen.low, seen.high)]
        part = _part(ranges, seen.some.reshape(len(ranges), -1), self.bits)
        found = [_steps(part * low, part * high, self.bits) for low, high in ranges]
        if not self.by_channel:
            return Affine(*found[0], self.bits)
        scales, zero_points = zip(*found, strict=True)
        return AffineChannels(scales, zero_points, self.bits)

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """The nearest steps; what lies outside the calibrated range saturates."""
        scale, zero_point = _constants(encoding, values.ndim - 1)
        with np.errstate(over="ignore"):  # infinity saturates as any other value does
            codes = values / scale
        np.rint(codes, out=codes)
        codes += zero_point
        low, high = _limits(self.bits)
        np.clip(codes, low, high, out=codes)
        if self.bits == 8:
            return codes.astype(np.int8)
        return _packed(codes.astype(np.uint8).reshape(len(codes), -1), self.bits)

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """``(code - zero_point) * scale``, as DequantizeLinear."""
        scale, zero_point = _constants(encoding, len(shape))
        if self.bits == 8:
            steps = codes.astype(np.float32)
        else:
            several = np.take(_table(self.bits), codes, axis=0).reshape(len(codes), -1)
            steps = several[:, : math.prod(shape)].reshape(len(codes), *shape)
        return (steps - zero_point) * scale

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> tuple[Step, ...]:
        """A cast or a table, less the zero point, times the scale.

        DequantizeLinear needs newer files.
        """
        scale, zero_point = _constants(encoding, len(shape))
        shifted = (Step("Sub", (zero_point,)), Step("Mul", (scale,)))
        if self.bits == 8:
            return (Step("Cast", to="float32"), *shifted)
        size = math.prod(shape)
        steps = [
            Step("Cast", to="int32"),
            Step("Gather", (_table(self.bits),), looked_up=True),
            Step("Reshape", (np.array([0, -1]),)),
        ]
        if size * self.bits % 8:
            steps.append(Step("Gather", (np.arange(size, dtype=np.int32),), axis=1))
        return (*steps, Step("Reshape", (np.array([-1, *shape]),)), *shifted)

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a step, a little for the rounding of float32, and what lies beyond the last step."""
        scale, zero_point = _constants(encoding, values.ndim - 1)
        low, high = _limits(self.bits)
        inside = np.clip(values, (low - zero_point) * scale, (high - zero_point) * scale)
        return np.float32(0.501) * scale + np.abs(values - inside)


def _steps(low: float, high: float, bits: int) -> tuple[float, int]:
    """The scale and the code of 0 for a range, which is widened to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    most = 2**bits - 1
    scale = max((high - low) / most, 2.0**-100) if high > low else 1.0
    return scale, round(_limits(bits)[0] - low / scale)


def _part(ranges: Sequence[tuple[float, float]], some: Floats, bits: int) -> float:
    """The part of all ``ranges`` that loses least on ``some`` values ``(ranges, n)``."""
    if bits == 8 or not some.size:
        return 1.0

    def lost(part: float) -> float:
        steps = [_steps(part * low, part * high, bits) for low, high in ranges]
        scale, zero_point = np.array(steps, np.float32).T[:, :, None]
        codes = np.clip(np.rint(some / scale) + zero_point, *_limits(bits))
        return float(np.square((codes - zero_point) * scale - some).mean())

    return min(PARTS, key=lost)


def _limits(bits: int) -> tuple[int, int]:
    """The lowest and the highest code."""
    return (-128, 127) if bits == 8 else (0, 2**bits - 1)


def _constants(encoding: Encoding, axes: int) -> tuple[Any, Any]:
    """Scale and zero point as float32, shaped for a boundary of so many ``axes``."""
    if isinstance(encoding, Affine):
        return np.float32(encoding.scale), np.float32(encoding.zero_point)
    assert isinstance(encoding, AffineChannels), _ENCODINGS
    column = (-1, *(1,) * (axes - 1))
    scales = np.array(encoding.scales, np.float32).reshape(column)
    return scales, np.array(encoding.zero_points, np.float32).reshape(column)


@functools.cache
def _table(bits: int) -> Floats:
    """The codes in each byte, the first in the upper bits: float32 ``(256, 8 / bits)``."""
    shifts = np.arange(8 - bits, -1, -bits)
    table = (np.arange(256)[:, None] >> shifts & (2**bits - 1)).astype(np.float32)
    table.setflags(write=False)
    return table


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes ``(batch, size)`` several in a byte; what is left of the last one is 0."""
    each = 8 // bits
    short = -codes.shape[1] % each
    if short:
        codes = np.pad(codes, ((0, 0), (0, short)))
    packed = np.zeros((len(codes), codes.shape[1] // each), np.uint8)
    for place in range(each):
        packed |= codes[:, place::each] << np.uint8(8 - bits * (place + 1))
    return packed
