"""Entropy: how little the softmax leaves open.

Source: BranchyNet (arXiv 1709.01686), turned so that high is sure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats


def entropy(logits: Floats) -> npt.NDArray[np.float32]:
    """1 less the entropy of the softmax of ``logits``, as a share of the largest.

    The result is float32 ``(batch,)`` in ``0..1``.

    >>> entropy(np.array([[0.0, 0.0], [99.0, -99.0]], np.float32))
    array([0., 1.], dtype=float32)
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    open_ = -(np.exp(logs) * logs).sum(axis=-1) / np.log(logits.shape[-1])
    return np.clip(1 - open_, 0, 1).astype(np.float32)
