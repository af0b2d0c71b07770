"""The golden input: one that everybody can make again, whatever the net and the machine.

What a net says of it is in the bundle (``golden.npy``), and a server is ready once it says the
same.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.types import Floats

GOLDEN = "golden.npy"
"""The file of a bundle with the logits for it: float32 ``(forms, classes)``, float32 first."""
STEP = (math.sqrt(5) - 1) / 2
"""Multiples of it, without their whole part, are spread evenly over 0..1."""


def golden_input(shape: tuple[int, ...], *, whole: bool) -> Floats:
    """One sample of ``shape``: 0..1, or 0 and 1 for a net whose input is ``whole`` numbers.

    >>> [f"{value:.2f}" for value in golden_input((3,), whole=False)]
    ['0.62', '0.24', '0.85']
    >>> golden_input((3,), whole=True).tolist()
    [1.0, 0.0, 1.0]
    """
    spread = np.arange(1, math.prod(shape) + 1, dtype=np.float64) * STEP % 1.0
    if whole:
        spread = np.rint(spread)
    return spread.astype(np.float32).reshape(shape)
