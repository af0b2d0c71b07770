"""Rows of numbers brought to mean 0 and deviation 1 by the net itself.

So whoever runs the net gives raw numbers.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from presplit.core.types import Floats


class Standardise(nn.Module):
    """Takes from each feature its ``mean`` and divides by its ``deviation``.

    Both are float32 ``(features,)`` and not trained.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, mean: Floats, deviation: Floats) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.array(mean, np.float32)))
        self.register_buffer("deviation", torch.from_numpy(np.array(deviation, np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: float32 ``(batch, features)``."""
        return (x - self.mean) / self.deviation


def standardised(model: nn.Sequential, x: Floats) -> nn.Sequential:
    """``model`` behind a first module ``standardise``, made from the training set ``x``.

    ``x`` is ``(n, features)``. A feature that is the same everywhere only loses its mean.

    >>> net = standardised(nn.Sequential(), np.array([[0, 5], [4, 5]], np.float32))
    >>> net(torch.tensor([[0.0, 5.0], [4.0, 6.0]])).tolist()
    [[-1.0, 0.0], [1.0, 1.0]]
    """
    mean, deviation = (
        np.asarray(each).astype(np.float32)
        for each in (x.mean(0, np.float64), x.std(0, np.float64))
    )
    constant = (np.ptp(x, axis=0) == 0) | (deviation == 0)
    first = Standardise(
        np.where(constant, x[0], mean), np.where(constant, np.float32(1), deviation)
    )
    return nn.Sequential(OrderedDict(standardise=first, **dict(model.named_children())))
