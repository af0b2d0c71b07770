"""What uneven classes need: weights in the loss, or an order in which rare ones come as often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """float32 ``(classes,)``: what a sample of each class counts, so that all classes count alike.

    ``labels``: int64 ``(n,)``. Over the samples the mean is 1; a class without samples counts 0.

    >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 3)
    tensor([0.6667, 2.0000, 0.0000])
    """
    count = torch.bincount(labels, minlength=classes)
    present = count > 0
    even = len(labels) / present.sum()
    return torch.where(present, even / count.clamp(min=1), 0.0).float()


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
