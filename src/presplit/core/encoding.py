"""How a boundary's values travel, as data: each codec owns one kind of encoding and its decoder.

An `Encoding` is what a codec has fixed for one boundary, stored in the bundle. The decoder of a
portable codec is a row of standard ONNX operators, said as data, so that any server of the Open
Inference Protocol can host a tail that begins with it. What a native codec sends is one row of
bytes, which our own server decodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from presplit.core.types import Boundary, Floats
from presplit.core.value import PartialShare, Positive, Value

Dtype = Literal["float32", "float16", "uint8", "int8", "int16", "int32"]
Bits = Literal[2, 4, 8]
ZeroPoint = Annotated[int, Meta(ge=-128, le=127)]
Finite = float
MOST_CHANNELS = 4096
"""Channels of a boundary that are told apart, at most: each is a line of the manifest."""
ROOM_BYTES = 1024
"""What a native payload may need besides its values: headers and tables."""


class Cast(Value, frozen=True, tag="cast"):
    """Codes are the values in another dtype."""

    dtype: Dtype

    def shape(self, boundary: Boundary) -> tuple[int, ...]:
        """The shape of one sample's codes."""
        return boundary.shape

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return boundary.size * np.dtype(self.dtype).itemsize


class Affine(Value, frozen=True, tag="affine"):
    """``code = round(value / scale) + zero_point``, one scale for the whole boundary.

    Codes of 8 bits run from -128 to 127; those of fewer from 0 on, several in a byte.
    """

    scale: Positive
    zero_point: ZeroPoint = 0
    bits: Bits = 8

    @property
    def dtype(self) -> Dtype:
        """int8, or bytes that hold several codes."""
        return "int8" if self.bits == 8 else "uint8"

    def shape(self, boundary: Boundary) -> tuple[int, ...]:
        """The boundary's own, or one row of bytes."""
        return _codes_shape(self.bits, boundary)

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return math.prod(self.shape(boundary))


class AffineChannels(Value, frozen=True, tag="affine_channels"):
    """As `Affine`, with a scale of its own for each index of the boundary's first axis."""

    scales: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=MOST_CHANNELS)]
    zero_points: tuple[ZeroPoint, ...]
    bits: Bits = 8

    @property
    def dtype(self) -> Dtype:
        """int8, or bytes that hold several codes."""
        return "int8" if self.bits == 8 else "uint8"

    def shape(self, boundary: Boundary) -> tuple[int, ...]:
        """The boundary's own, or one row of bytes."""
        return _codes_shape(self.bits, boundary)

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return math.prod(self.shape(boundary))


class Brief(Value, frozen=True, tag="bfloat16"):
    """The upper half of each float32, in bytes: native, of a fixed size."""

    dtype: Literal["uint8"] = "uint8"

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return 2 * boundary.size


class Largest(Value, frozen=True, tag="largest"):
    """The values that are farthest from 0, a ``share`` of all at most: native, of a varying size.

    Those are said by a bit for each value, and sent as ``values`` says.
    """

    share: PartialShare
    values: Affine
    dtype: Literal["uint8"] = "uint8"

    def nbytes(self, boundary: Boundary) -> None:
        """It varies: values that are 0 are not sent."""


class Compressed(Value, frozen=True, tag="compressed"):
    """The codes of another encoding, compressed without loss: native, of a varying size."""

    codes: Cast | Affine | AffineChannels
    by: Literal["zstd", "lz4"]
    dtype: Literal["uint8"] = "uint8"

    def nbytes(self, boundary: Boundary) -> None:
        """It varies with the sample."""


class Picture(Value, frozen=True, tag="picture"):
    """An image file: native, of a varying size.

    A byte of it, 0..255, stands for ``low..high`` of its channel. ``quality`` is that of a JPEG; a
    PNG has none.
    """

    low: tuple[Finite, ...]
    high: tuple[Finite, ...]
    quality: Annotated[int, Meta(ge=1, le=95)] | None = None
    dtype: Literal["uint8"] = "uint8"

    def nbytes(self, boundary: Boundary) -> None:
        """It varies with the sample."""


Portable = Cast | Affine | AffineChannels
"""Standard operators decode these, at the head of the tail's graph."""
Native = Brief | Largest | Compressed | Picture
"""These are decoded in front of the engine, by a server of ours."""
Encoding = Portable | Native
"""What codecs fix for a boundary; a codec that needs more adds a kind of its own here."""


def most_bytes(boundary: Boundary) -> int:
    """The longest native payload of one sample that is sent or taken.

    >>> most_bytes(Boundary("hidden", (10,)))
    1104
    """
    return 2 * boundary.nbytes + ROOM_BYTES


def _codes_shape(bits: int, boundary: Boundary) -> tuple[int, ...]:
    """The shape of one sample's codes of so many ``bits``."""
    if bits == 8:
        return boundary.shape
    return (math.ceil(boundary.size * bits / 8),)


@dataclass(frozen=True)
class Step:
    """One ONNX operator of a decoder.

    Its inputs are what the step before gives (the codes, for the first) and ``constants``, scalars
    and small arrays of NumPy; the first of all of these is a constant if ``looked_up``, as the
    table of a Gather is. ``to`` is the dtype that a Cast gives, ``axis`` where a Gather looks.
    """

    op: str
    constants: tuple[np.generic | npt.NDArray[Any], ...] = ()
    to: Dtype | None = None
    looked_up: bool = False
    axis: int = 0


FEW = 4
"""Samples of a batch of which some values are kept."""
KEPT, MOST_KEPT = 2**11, 2**16
"""Values of a boundary that are kept of one batch, and of all, about."""


def _none() -> Floats:
    """No values of any channel."""
    return np.empty((1, 0), np.float32)


@dataclass(frozen=True)
class Seen:
    """What was seen of a boundary's values on held-out samples, from which codecs are calibrated.

    ``whole``: every value was a whole number, as token ids are. ``channels``: the lowest and the
    highest value at each index of the boundary's first axis, if it has several axes and not too
    many indices. ``some``: float32 ``(channels or 1, n)``, values that were seen, evenly taken.

    >>> Seen.of(np.array([3.0, 1.0])), Seen.of(np.array([0.5])).whole
    (Seen(low=1.0, high=3.0, whole=True, channels=()), False)
    >>> Seen.of(np.array([[[1.0, 2.0], [0.0, 5.0]]])).channels
    ((1.0, 2.0), (0.0, 5.0))
    """

    low: float
    high: float
    whole: bool = False
    channels: tuple[tuple[float, float], ...] = ()
    some: Floats = field(default_factory=_none, compare=False, repr=False)

    @classmethod
    def of(cls, values: np.ndarray) -> Seen:
        """What ``values`` ``(batch, *boundary)``, at least one and all finite, show."""
        whole = bool((values == np.rint(values)).all())
        if values.ndim < 3 or values.shape[1] > MOST_CHANNELS:
            low, high = float(values.min()), float(values.max())
            return cls(low, high, whole, some=_thinned(values[:FEW].reshape(1, -1), KEPT))
        others = (0, *range(2, values.ndim))
        lows, highs = values.min(others), values.max(others)
        few = values[:FEW].swapaxes(0, 1).reshape(values.shape[1], -1)
        return cls(
            float(lows.min()),
            float(highs.max()),
            whole,
            tuple(zip(lows.tolist(), highs.tolist(), strict=True)),
            _thinned(few, KEPT),
        )

    def __or__(self, other: Seen) -> Seen:
        """What both show together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        channels = self.channels or other.channels
        if self.channels and other.channels:
            pairs = zip(self.channels, other.channels, strict=True)
            channels = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in pairs)
        some = self.some if other.some.size == 0 else other.some
        if self.some.size and other.some.size:
            some = _thinned(np.concatenate([self.some, other.some], axis=1), MOST_KEPT)
        return Seen(low, high, self.whole and other.whole, channels, some)


def _thinned(values: Floats, most: int) -> Floats:
    """About ``most`` of ``values`` ``(channels, n)``, evenly taken; one a channel at least."""
    step = math.ceil(values.size / most)
    return values[:, :: min(step, values.shape[1])].astype(np.float32)


NOTHING = Seen(math.inf, -math.inf, whole=True)
"""Before any value was seen; joining it to what is seen changes nothing."""
