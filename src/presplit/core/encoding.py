"""How a boundary's values travel, as data: each codec owns one kind of encoding and its decoder.

An `Encoding` is what a codec has fixed for one boundary, stored in the bundle. A decoder is a row
of standard ONNX operators, said as data, so that any server of the Open Inference Protocol can host
a tail that begins with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from presplit.core.types import Boundary
from presplit.core.value import Positive, Value

Dtype = Literal["float32", "float16", "int8", "int16", "int32"]


class Cast(Value, frozen=True, tag="cast"):
    """Codes are the values in another dtype."""

    dtype: Dtype

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return boundary.size * np.dtype(self.dtype).itemsize


class Affine(Value, frozen=True, tag="affine"):
    """``code = round(value / scale) + zero_point``, one scale for the whole boundary."""

    scale: Positive
    zero_point: Annotated[int, Meta(ge=-128, le=127)] = 0
    dtype: Literal["int8"] = "int8"

    def nbytes(self, boundary: Boundary) -> int:
        """Bytes of one encoded sample."""
        return boundary.size * np.dtype(self.dtype).itemsize


Encoding = Cast | Affine
"""What codecs fix for a boundary; a codec that needs more adds a kind of its own here."""


@dataclass(frozen=True)
class Step:
    """One ONNX operator of a decoder.

    Its inputs are what the step before gives (the codes, for the first) and ``constants``, scalars
    of NumPy; ``to`` is the dtype that a Cast gives.
    """

    op: str
    constants: tuple[np.generic, ...] = ()
    to: Dtype | None = None


@dataclass(frozen=True)
class Seen:
    """What was seen of a boundary's values on held-out samples, from which codecs are calibrated.

    ``whole``: every value was a whole number, as token ids are.

    >>> Seen.of(np.array([3.0, 1.0])), Seen.of(np.array([0.5]))
    (Seen(low=1.0, high=3.0, whole=True), Seen(low=0.5, high=0.5, whole=False))
    """

    low: float
    high: float
    whole: bool = False

    @classmethod
    def of(cls, values: np.ndarray) -> Seen:
        """What ``values``, of any shape, at least one and all finite, show."""
        whole = bool((values == np.rint(values)).all())
        return cls(float(values.min()), float(values.max()), whole)

    def __or__(self, other: Seen) -> Seen:
        """What both show together."""
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Seen(low, high, self.whole and other.whole)


NOTHING = Seen(math.inf, -math.inf, whole=True)
"""Before any value was seen; joining it to what is seen changes nothing."""
