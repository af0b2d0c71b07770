"""topk-10 and topk-25: the values farthest from 0, at most so many in a hundred; the rest is 0.

A bit for each value says whether it is there; those that are there follow as int8. Zeros are never
sent, so after a ReLU a payload is often shorter than its share. It is native. Source: the idea of
top-k sparsification of gradients (Aji and Heafield, arXiv 1704.05021), here of activations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.codecs.affine import Int
from presplit.codecs.native import alone, payload, raw, same
from presplit.core.encoding import Affine, Encoding, Largest, Seen
from presplit.core.types import Floats

_INT8 = Int(8)


class TopK:
    """The largest values by int8, the others 0.

    >>> topk = TopK(50)
    >>> encoding = topk.calibrate(Seen(-1.0, 1.0), (4,))
    >>> codes = topk.encode(np.array([[0.1, -1.0, 0.0, 1.0]], np.float32), encoding)
    >>> codes.nbytes, topk.decode(codes, encoding, (4,)).round(2).tolist()
    (3, [[0.0, -1.0, 0.0, 1.0]])
    """

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.name = f"topk-{percent}"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Largest | None:
        """The steps of int8; None where no range is known."""
        steps = _INT8.calibrate(seen, shape)
        return Largest(self.percent / 100, steps) if isinstance(steps, Affine) else None

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """A bit for each value, then the steps of those that are kept."""
        assert isinstance(encoding, Largest), "this codec calibrates no other"
        flat = alone(values).reshape(-1)
        codes = _INT8.encode(values, encoding.values).reshape(-1)
        kept = codes != encoding.values.zero_point
        most = math.ceil(encoding.share * flat.size)
        if np.count_nonzero(kept) > most:
            sizes = np.abs(flat)
            largest = np.zeros_like(kept)
            largest[np.argpartition(sizes, flat.size - most)[flat.size - most :]] = True
            kept &= largest
        return payload(np.packbits(kept).tobytes() + codes[kept].tobytes())

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """Zeros, and at the places that are said the values that follow."""
        assert isinstance(encoding, Largest), "this codec calibrates no other"
        given, size = raw(codes), math.prod(shape)
        head = math.ceil(size / 8)
        places = np.unpackbits(np.frombuffer(given[:head], np.uint8))[:size]
        same("bits of places", size, places.size)
        kept = places.astype(bool)
        same("values", np.count_nonzero(kept), len(given) - head)
        steps = np.full(size, encoding.values.zero_point, np.int8)
        steps[kept] = np.frombuffer(given, np.int8, offset=head)
        return _INT8.decode(steps.reshape(1, *shape), encoding.values, shape)

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> None:
        """It is native."""

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a step where a value is kept, and all of it where it is not."""
        assert isinstance(encoding, Largest), "this codec calibrates no other"
        return np.maximum(np.abs(values), _INT8.error(values, encoding.values))
