"""Keyword spotting: small CNNs over spectrograms, and one over the waveform.

Sources: "Hello Edge" (arXiv 1711.07128), depthwise-separable convolutions over 49 x 10 features; M5
of arXiv 1610.00087, one-dimensional convolutions over raw samples.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from presplit.train.layers.log_mel import LogMel
from presplit.train.zoo.cnn import small_cnn


def spectrogram_cnn(*, width: int = 64, depth: int = 3, classes: int = 12) -> nn.Sequential:
    """A stem and ``depth`` depthwise-separable blocks over ``(batch, 1, times, bands)``.

    Blocks are ``block<i>``.

    >>> import torch

    >>> spectrogram_cnn(width=8)(torch.zeros(1, 1, 49, 10)).shape
    torch.Size([1, 12])
    """
    stem = nn.Sequential(
        nn.Conv2d(1, width, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )
    parts = OrderedDict[str, nn.Module](stem=stem)
    for number in range(1, depth + 1):
        parts[f"block{number}"] = nn.Sequential(
            *(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ),
            *(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        )
    parts |= {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(width, classes),
    }
    return nn.Sequential(parts)


def log_mel_cnn(
    *,
    rate: int,
    width: int = 32,
    bottleneck: int = 8,
    tail: int | None = None,
    bands: int = 40,
    classes: int = 10,
) -> nn.Sequential:
    """`small_cnn` behind the log-mel spectrogram: it takes sounds ``(batch, 1, samples)`` itself.

    ``rate`` of the sounds in Hz; the spectrogram is the module ``log_mel``, of ``bands`` bands.

    >>> import torch

    >>> log_mel_cnn(rate=8000, width=8)(torch.zeros(1, 1, 8000)).shape
    torch.Size([1, 10])
    """
    net = small_cnn(width=width, bottleneck=bottleneck, tail=tail, size=bands, classes=classes)
    first = OrderedDict[str, nn.Module](log_mel=LogMel(rate, bands=bands))
    return nn.Sequential(first | dict(net.named_children()))


def waveform_cnn(*, width: int = 32, depth: int = 3, classes: int = 12) -> nn.Sequential:
    """A strided stem and ``depth`` one-dimensional convolutions over ``(batch, 1, samples)``.

    Blocks are ``block<i>``.

    >>> import torch

    >>> waveform_cnn(width=8)(torch.zeros(1, 1, 2000)).shape
    torch.Size([1, 12])
    """
    stem = nn.Sequential(
        nn.Conv1d(1, width, 80, 4, 38, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.MaxPool1d(4),
    )
    parts = OrderedDict[str, nn.Module](stem=stem)
    for number in range(1, depth + 1):
        convolution = nn.Conv1d(width, width, 3, padding=1, bias=False)
        parts[f"block{number}"] = nn.Sequential(
            convolution, nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(4)
        )
    parts |= {
        "pool": nn.AdaptiveAvgPool1d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(width, classes),
    }
    return nn.Sequential(parts)
