"""Small convolutional classifiers with a narrow place to cut, and a residual one.

The narrow place follows the split-computing survey (arXiv 2103.04505, injected bottleneck) and
BottleFit (arXiv 2201.02693): before the cut, a 1x1 convolution leaves few channels, so that a
boundary can be smaller than the image. Both nets take images from 8x8 up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _conv(n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)


def _block(
    n_in: int, n_out: int, *, kernel: int = 3, stride: int = 1, pool: int = 1
) -> nn.Sequential:
    """Convolution, normalisation, ReLU and, if asked for, max pooling."""
    parts = OrderedDict[str, nn.Module](
        conv=_conv(n_in, n_out, kernel=kernel, stride=stride),
        norm=nn.BatchNorm2d(n_out),
        relu=nn.ReLU(),
    )
    if pool > 1:
        parts["pool"] = nn.MaxPool2d(pool)
    return nn.Sequential(parts)


def small_cnn(
    *,
    width: int = 32,
    bottleneck: int = 8,
    tail: int | None = None,
    channels: int = 1,
    size: int = 28,
    classes: int = 10,
) -> nn.Sequential:
    """A stem, two convolutions, a bottleneck of ``bottleneck`` channels, two more, a classifier.

    ``channels`` x ``size`` x ``size`` images. The boundary after ``bottleneck`` has ``bottleneck``
    maps of about ``size / 8`` (``size / 4`` below 16 pixels) a side; behind it there are ``tail``
    channels, four times ``width`` if None.

    >>> net = small_cnn(width=16, size=8)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    behind = 4 * width if tail is None else tail
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=_block(channels, width, stride=2 if size >= 16 else 1),
            block1=_block(width, 2 * width, pool=2),
            block2=_block(2 * width, 2 * width, pool=2),
            bottleneck=_block(2 * width, bottleneck, kernel=1),
            block3=_block(bottleneck, behind),
            block4=_block(behind, behind),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(behind, classes),
        )
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (arXiv 1512.03385).

    The shortcut is a 1x1 convolution where sizes change.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(n_in, n_out, stride=stride), nn.BatchNorm2d(n_out)
        self.conv2, self.norm2 = _conv(n_out, n_out), nn.BatchNorm2d(n_out)
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else _conv(n_in, n_out, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, n_in, height, width)``."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet8(*, width: int = 32, channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Stem and three residual blocks of widths w, 2w, 4w, the later two halving the image.

    >>> resnet8(width=8)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    return resnet(widths=(width, 2 * width, 4 * width), channels=channels, classes=classes)


def resnet(
    *,
    widths: Sequence[int] = (32, 64, 128),
    depths: Sequence[int] = (1, 1, 1),
    stride: int = 1,
    channels: int = 3,
    classes: int = 10,
) -> nn.Sequential:
    """A stem of ``widths[0]`` channels, then stages of residual blocks ``block<i>``.

    Each stage has its width and so many blocks as ``depths`` says; every stage but the first halves
    the image. The stem makes photos smaller by ``stride``, with a kernel of 7 x 7 then (arXiv
    1512.03385), 3 x 3 otherwise. With ``depths[0] = 0`` the stem alone sees the whole image: an
    exit after the first block then comes early, because most of the time goes into what is
    computed at full size.

    >>> list(resnet(widths=(8, 16, 32), depths=(0, 1, 2))._modules)
    ['stem', 'block1', 'block2', 'block3', 'pool', 'flatten', 'classifier']
    """
    blocks, n_in = OrderedDict[str, nn.Module](), widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for number in range(depth):
            halving = 2 if stage > 0 and number == 0 else 1
            blocks[f"block{len(blocks) + 1}"] = Residual(n_in, width, stride=halving)
            n_in = width
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            stem=_block(channels, widths[0], kernel=7 if stride > 1 else 3, stride=stride),
            **blocks,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(n_in, classes),
        )
    )
