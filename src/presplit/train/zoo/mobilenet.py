"""MobileNetV2-like nets (arXiv 1801.04381).

They are inverted residuals of 1x1, depthwise 3x3 and linear 1x1 convolutions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Widen by ``expansion``, filter each channel by itself, narrow without an activation.

    Beside it lies the identity.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        wide = n_in * expansion
        self.expand = _conv(n_in, wide, 1)
        self.depthwise = _conv(wide, wide, 3, stride=stride, groups=wide)
        self.project = nn.Sequential(nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        self.adds = n_in == n_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, n_in, height, width)``."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


def _conv(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU6())


def mobilenet_v2(
    *,
    widths: Sequence[int] = (16, 24, 32, 64),
    channels: int = 3,
    classes: int = 10,
    expansion: int = 4,
) -> nn.Sequential:
    """A stem and two blocks of each of ``widths``, all but the first row halving the image.

    Rows are ``stage<i>``.

    >>> import torch

    >>> mobilenet_v2(widths=(8, 16))(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    parts = OrderedDict[str, nn.Module](stem=_conv(channels, widths[0], 3))
    n_in = widths[0]
    for number, width in enumerate(widths, start=1):
        first = InvertedResidual(n_in, width, stride=1 if number == 1 else 2, expansion=expansion)
        parts[f"stage{number}"] = nn.Sequential(
            first, InvertedResidual(width, width, expansion=expansion)
        )
        n_in = width
    parts |= {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(n_in, classes),
    }
    return nn.Sequential(parts)
