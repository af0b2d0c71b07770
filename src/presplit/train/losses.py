"""The loss of a net with exits: the weighted sum of each exit's cross-entropy (joint training, arXiv 2103.04505)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def joint_loss(logits: Sequence[Tensor], labels: Tensor, weights: Sequence[float]) -> Tensor:
    """Scalar: sum of ``weights[j] * cross_entropy(logits[j], labels)``, divided by the sum of weights.

    ``logits``: float ``(batch, classes)`` of each exit; ``labels``: int64 ``(batch,)``.
    """
    total = sum(w * F.cross_entropy(out, labels) for w, out in zip(weights, logits, strict=True))
    assert isinstance(total, Tensor)
    return total / sum(weights)
