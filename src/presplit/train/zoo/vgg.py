"""VGG-like nets (arXiv 1409.1556): rows of 3x3 convolutions, halved by max pooling.

They have batch normalisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def vgg(
    *, widths: Sequence[int] = (32, 64, 128), depth: int = 2, channels: int = 3, classes: int = 10
) -> nn.Sequential:
    """``depth`` convolutions of each of ``widths``, each row ended by pooling.

    Stages are called ``stage<i>``.

    >>> import torch

    >>> vgg(widths=(8, 16))(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    stages, n_in = OrderedDict[str, nn.Module](), channels
    for number, width in enumerate(widths, start=1):
        row: list[nn.Module] = []
        for _ in range(depth):
            row += [
                nn.Conv2d(n_in, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            n_in = width
        stages[f"stage{number}"] = nn.Sequential(*row, nn.MaxPool2d(2))
    head = {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(n_in, classes),
    }
    return nn.Sequential(OrderedDict[str, nn.Module](**stages, **head))
