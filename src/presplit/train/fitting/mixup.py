"""Mixed samples: every sample with a share of another one of its batch, and its label likewise.

mixup (arXiv 1710.09412) adds them, CutMix (arXiv 1905.04899) puts a box of the other image in. Each
sample has a share of its own, where the papers' code draws one for the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn import functional as F

from presplit.train.fitting.augment import boxes


def mixed(
    x: Tensor, labels: Tensor, classes: int, *, mixup: float = 0.0, cutmix: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mixed samples, and how much of each class is in them, ``(batch, classes)``.

    ``x``: float ``(batch, ...)``, for ``cutmix`` images ``(batch, channels, height, width)``;
    ``labels``: int64 ``(batch,)``. ``mixup``, ``cutmix``: how much is mixed, the parameters of the
    beta distribution of shares (0: never; 0.2 and 1 are usual). If both are given, each batch takes
    one of them at random.

    >>> x, y = mixed(torch.eye(2), torch.tensor([0, 1]), 2, mixup=1.0)
    >>> bool(torch.equal(x, y)), bool(torch.allclose(y.sum(1), torch.ones(2)))
    (True, True)
    """
    boxed = bool(cutmix) and (not mixup or float(torch.rand(())) < 0.5)
    alpha = torch.tensor(cutmix if boxed else mixup, dtype=torch.float64)
    own = Beta(alpha, alpha).sample((len(x),))
    other = torch.randperm(len(x)).to(x.device, non_blocking=x.is_cuda)
    if boxed:
        x, own = _patched(x, other, own)
    own = own.to(x.device, x.dtype, non_blocking=x.is_cuda)
    if not boxed:
        x = torch.lerp(x[other], x, own.view(-1, *[1] * (x.ndim - 1)))
    whole = F.one_hot(labels, classes).to(x.dtype)
    return x, torch.lerp(whole[other], whole, own[:, None])


def _patched(x: Tensor, other: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` with a box of ``x[other]`` in it, and the share of pixels that stayed.

    The box has its middle anywhere in the image, and ends at the image's border.
    """
    height, width = x.shape[2:]
    half = (1 - own).sqrt() / 2
    middle = torch.rand(2, len(own), dtype=own.dtype)
    top, bottom = (
        ((middle[0] + side) * height).round_().clamp_(0, height) for side in (-half, half)
    )
    left, right = (((middle[1] + side) * width).round_().clamp_(0, width) for side in (-half, half))
    edges = (top, left, bottom - top, right - left)
    inside = boxes(*(edge.float().view(-1, 1, 1, 1) for edge in edges), x)
    stayed = 1 - (bottom - top) * (right - left) / (height * width)
    return torch.where(inside, x[other], x), stayed
