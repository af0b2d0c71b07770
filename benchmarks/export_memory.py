"""How much memory an export needs beside what the net itself needs for one sample.

A net of the shape of ResNet-50 (arXiv 1512.03385), with random values, takes images of 3 x 224 x
224. One process runs one image through it, another exports it with 64 held-out images; what counts
is the peak of each process, torch and all libraries included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROOM = 300e6
"""Bytes that an export may need beyond twice the net's own."""
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and stride of each stage."""


def run(quick: bool) -> dict[str, Any]:
    """The peaks of both processes; ``quick`` exports with 16 images."""
    own = _measured("own", 1)
    exported = _measured("export", 16 if quick else 64)
    most = 2 * own["peak_mb"] + ROOM / 1e6
    check = {
        "name": "peak of the export, MB",
        "value": exported["peak_mb"],
        "target": f"<= {most:.0f}",
        "ok": exported["peak_mb"] <= most,
    }
    return {"rows": [own, exported], "checks": [check]}


def _measured(what: str, images: int) -> dict[str, Any]:
    """The peak and the seconds of a process that does ``what``."""
    code = f"from benchmarks.export_memory import do; do({what!r}, {images})"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - began
    return {"what": what, "images": images, "peak_mb": float(done.stdout), "seconds": seconds}


def do(what: str, images: int) -> None:
    """One of the two things; prints the peak of this process in MB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = resnet50().eval()
    x = np.random.default_rng(0).random((images, 3, 224, 224), dtype=np.float32)
    if what == "own":
        with torch.no_grad():
            net(torch.from_numpy(x))
    else:
        from presplit.train import export

        with tempfile.TemporaryDirectory() as folder:
            export(net, x, f"{folder}/net.bundle")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(n_in, width, 1, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1, 1),
        )
        same = n_in == 4 * width and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(*_convolution(n_in, 4 * width, 1, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, channels, height, width)``."""
        return torch.relu(self.body(x) + self.shortcut(x))


def _convolution(n_in: int, n_out: int, size: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)
    return [layer, nn.BatchNorm2d(n_out)]


def resnet50(classes: int = 1000) -> nn.Module:
    """25.5 million weights, 4.1 billion multiplications."""
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    n_in = 64
    for width, blocks, stride in STAGES:
        for number in range(blocks):
            layers.append(Bottleneck(n_in, width, stride if number == 0 else 1))
            n_in = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, classes))
