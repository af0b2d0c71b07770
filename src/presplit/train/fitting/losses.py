"""The loss of a net with exits: hard labels, a teacher's answers and the last exit's, weighed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def joint_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float],
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    teacher: Tensor | None = None,
    distil: float = 0.0,
    self_distil: float = 0.0,
    temperature: float = 4.0,
) -> Tensor:
    """Scalar: the exits' losses weighted by ``weights``, divided by their sum.

    This is joint training, arXiv 2103.04505.

    ``logits``: float ``(batch, classes)`` of each exit, the net's own last; ``labels``: int64
    ``(batch,)``, or how much of each class is in a sample, float ``(batch, classes)``;
    ``class_weights``: what each class counts, float ``(classes,)``; ``teacher``: logits of the net
    to learn from. The loss of one exit is the cross-entropy with the labels; a share ``distil`` of
    it is replaced by that with the teacher, and for early exits a share ``self_distil`` by that
    with the last exit (arXiv 1905.08094). An exit of weight 0 is not computed.

    >>> out = torch.tensor([[2.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> bool(joint_loss([out, out], labels, [1, 1]) == F.cross_entropy(out, labels))
    True
    """
    parts: list[Tensor] = []
    for number, (out, weight) in enumerate(zip(logits, weights, strict=True)):
        if not weight:
            continue
        from_last = self_distil if number < len(logits) - 1 else 0.0
        from_teacher = distil if teacher is not None else 0.0
        loss = (1 - from_teacher - from_last) * _hard_loss(
            out, labels, label_smoothing, class_weights
        )
        if teacher is not None and from_teacher:
            loss = loss + from_teacher * soft_loss(out, teacher, temperature)
        if from_last:
            loss = loss + from_last * soft_loss(out, logits[-1].detach(), temperature)
        parts.append(weight * loss)
    return torch.stack(parts).sum() / sum(weights)


def _hard_loss(
    out: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """Scalar: cross-entropy with the labels, the mean over the batch.

    With weights torch divides by the number of samples only where labels are shares of classes, and
    else by the weights that a batch happens to hold. Here it is their number always, so that parts
    of a batch add up to it.
    """
    if class_weights is None:
        return F.cross_entropy(out, labels, label_smoothing=label_smoothing)
    total = F.cross_entropy(
        out, labels, class_weights, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / len(out)


def soft_loss(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Scalar: divergence from the softened answers of ``target``, arXiv 1503.02531.

    It is at the scale of a cross-entropy.
    """
    ours, theirs = (F.log_softmax(each / temperature, dim=1) for each in (logits, target))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
