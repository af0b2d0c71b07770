"""Margin: how far the most likely class is ahead of the second.

Source: best versus second best, Joshi, Porikli, Papanikolopoulos, "Multi-class active learning for
image classification", CVPR 2009.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats


def margin(logits: Floats) -> npt.NDArray[np.float32]:
    """The two largest softmax probabilities of ``logits``, one less the other.

    The result is float32 ``(batch,)`` in ``0..1``.

    >>> margin(np.array([[0.0, 0.0, -99.0], [9.0, -9.0, -9.0]], np.float32))
    array([0., 1.], dtype=float32)
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    largest = np.partition(shifted, -2, axis=-1)[..., -2:] / shifted.sum(axis=-1, keepdims=True)
    return (largest[..., 1] - largest[..., 0]).astype(np.float32)
