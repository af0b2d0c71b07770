"""The log-mel spectrogram as a layer: a bundle takes the sound itself.

A short-time Fourier transform by one convolution with fixed filters (a Hann window times cosines
and sines), its power, triangular filters on the mel scale, a logarithm. So it is exported to plain
ONNX operators (Conv, Mul, Add, MatMul, Log), exact on every runtime, and no edge needs a sound
library. Source: S. B. Davis, P. Mermelstein, "Comparison of parametric representations for
monosyllabic word recognition", 1980; the mel scale of HTK, 2595 log10(1 + f / 700), and triangles
of height 1. Ours: the logarithm is of 1 + power / `FLOOR`, so that silence is 0, which is also what
convolutions pad with, and no value is negative.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presplit.core.errors import GraphError
from presplit.core.types import Floats

WINDOW_S = 0.032
"""Length of the window: 256 samples at 8 kHz, 512 at 16 kHz."""
FLOOR = 1e-4
"""The power that counts as one above silence: a sine of full scale has about a quarter."""
LOWEST_HZ = 20.0
"""Where the lowest band begins; the highest ends at half the rate."""


class LogMel(nn.Module):
    """Sounds float ``(batch, 1, samples)`` in -1..1 to ``(batch, 1, frames, bands)`` from 0 on.

    ``rate`` in Hz; a frame every ``hop_s`` seconds, the first and the last around the ends of the
    sound: ``frames = 1 + samples // hop``. Nothing in it is trained or saved: the same arguments
    give the same values. Raises `GraphError` for bands so many that one would be empty.

    >>> LogMel(8000)(torch.zeros(2, 1, 8000)).shape
    torch.Size([2, 1, 63, 40])
    """

    filters: Tensor
    mel: Tensor

    def __init__(self, rate: int, *, bands: int = 40, hop_s: float = WINDOW_S / 2) -> None:
        super().__init__()
        self.rate, self.bands = rate, bands
        half = max(1, round(rate * WINDOW_S / 2))
        self.window, self.hop = 2 * half, max(1, round(rate * hop_s))
        self.register_buffer("filters", torch.from_numpy(fourier(self.window)), persistent=False)
        triangles = mel_bands(rate, self.window, bands)
        self.register_buffer("mel", torch.from_numpy(triangles), persistent=False)

    def forward(self, sounds: Tensor) -> Tensor:
        """``sounds``: float ``(batch, 1, samples)``."""
        parts = F.conv1d(sounds, self.filters, stride=self.hop, padding=self.window // 2)
        cosines, sines = parts.chunk(2, 1)
        power = cosines * cosines + sines * sines
        energy = torch.matmul(power.transpose(1, 2), self.mel)
        return torch.log(energy / FLOOR + 1).unsqueeze(1)

    def extra_repr(self) -> str:
        """What is shown of the layer."""
        return f"rate={self.rate}, bands={self.bands}, window={self.window}, hop={self.hop}"


def fourier(window: int) -> Floats:
    """Float32 ``(2 * bins, 1, window)``: Hann window times cosines, then times sines.

    ``bins = window // 2 + 1``; a sine of full scale has a power of about 1/4, a constant 1 of 1.
    """
    n = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    # The product is taken modulo the window, so that no large angle loses precision.
    angles = 2 * np.pi / window * (np.outer(np.arange(window // 2 + 1), n) % window)
    both = np.concatenate([np.cos(angles), np.sin(angles)]) * (hann / hann.sum())
    return both[:, None].astype(np.float32)


def mel_bands(rate: int, window: int, bands: int) -> Floats:
    """Float32 ``(bins, bands)``: how much each band takes of each frequency, triangles in Hz.

    Raises `GraphError` if a band would take of none.
    """
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (LOWEST_HZ, rate / 2))
    edges = 700 * (10 ** (np.linspace(lowest, highest, bands + 2) / 2595) - 1)
    hz = np.arange(window // 2 + 1)[:, None] * rate / window
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    taken = np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)).clip(0)
    empty = np.flatnonzero(taken.sum(0) == 0)
    if empty.size:
        raise GraphError(
            f"LogMel: {bands} bands are too many for a window of {window} samples at {rate} Hz, "
            f"band {empty[0]} would be empty; fewer bands, or a higher rate, fit"
        )
    return taken.astype(np.float32)
