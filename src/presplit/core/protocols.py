"""The seams: what a pattern family, a codec and a policy must look like.

What looks like this can stand on the shelf of its kind.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from presplit.core.types import Encoding, Floats, Pattern


class Family(Protocol):
    """A pattern family: draws the connections of one layer before training."""

    def __call__(self, n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
        """A pattern of exactly this density, the same for the same seed.

        Raises `PatternError` if there is none.
        """
        ...


class Codec(Protocol):
    """How the values at a boundary travel.

    Decoding also exists as ONNX operators in the tail graph.
    """

    @property
    def name(self) -> str:
        """The codec's name on the shelf."""
        ...

    def calibrate(self, low: float, high: float) -> Encoding:
        """The encoding for values in ``low..high``, as seen on held-out training data."""
        ...

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any]:
        """Values to codes of ``encoding.dtype``, the same shape."""
        ...

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding) -> Floats:
        """Codes back to float32."""
        ...

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """The largest error that a round trip may make at each value in the calibrated range."""
        ...


class ExitPolicy(Protocol):
    """A rule that scores logits; an exit answers when the score reaches its threshold."""

    def __call__(self, logits: Floats) -> npt.NDArray[np.float32]:
        """float32 ``(batch,)`` scores of ``logits`` ``(batch, classes)``; higher is surer."""
        ...
