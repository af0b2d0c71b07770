"""What uneven classes need: weights in the loss, or an order in which rare ones come as often.

Weights that make all classes count alike train on what is rare with so large steps that the net is
worse than with their roots. Those are nearly the weights by effective numbers of arXiv 1901.05555
at the best of its settings, and have none. `docs/own_data.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def balanced_weights(labels: Tensor, classes: int, *, power: float = 1.0) -> Tensor:
    """float32 ``(classes,)``: what a sample of each class counts, so that all classes count alike.

    ``labels``: int64 ``(n,)``; ``power``: 1, or 0.5 for the roots of these weights. Over the
    samples the mean is 1; a class without samples counts 0.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    count = torch.bincount(labels, minlength=classes)
    weights = torch.where(count > 0, count.clamp(min=1).double() ** -power, 0.0)
    return (weights * len(labels) / (weights * count).sum()).float()


def balanced_order(members: Sequence[Tensor], draw: torch.Generator) -> Tensor:
    """Places of an epoch's samples, as many as there are, in which all classes come as often.

    ``members``: the places of each class's samples, one at least. A class has one sample more or
    less than another. The samples of one class come equally often, give or take one, and which ones
    come more often is drawn: so classes that are even are only shuffled.

    >>> members = [torch.tensor([0, 1, 2]), torch.tensor([3])]
    >>> sorted(balanced_order(members, torch.Generator().manual_seed(0)).tolist())[2:]
    [3, 3]
    """
    each, rest = divmod(sum(len(own) for own in members), len(members))
    lucky = torch.randperm(len(members), generator=draw) < rest
    places: list[Tensor] = []
    for own, more in zip(members, lucky.tolist(), strict=True):
        times, over = divmod(each + more, len(own))
        some = torch.randperm(len(own), generator=draw)[:over]
        places += [own] * times + [own[some]]
    found = torch.cat(places)
    return found[torch.randperm(len(found), generator=draw)]
