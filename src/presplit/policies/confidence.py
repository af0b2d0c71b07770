"""Confidence: the largest softmax probability.

Source: SPINN and I-SplitEE (arXiv 2401.10541), C_i >= alpha.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats


def confidence(logits: Floats) -> npt.NDArray[np.float32]:
    """The largest softmax probability of ``logits`` ``(batch, classes)``.

    The result is float32 ``(batch,)`` in ``1/classes..1``.

    >>> confidence(np.array([[0.0, 0.0], [9.0, -9.0]], np.float32))
    array([0.5, 1. ], dtype=float32)
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (1 / shifted.sum(axis=-1)).astype(np.float32)  # the largest of ``shifted`` is 1
