"""What a sparse net takes: its checkpoint, its ONNX file and Adam's state, for every family."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks._rows import row
from presplit.patterns import LEGAL, PATTERNS
from presplit.train import save, sparsify, to_onnx
from presplit.train.layers.sparse import SparseLayer
from presplit.train.zoo import mlp

SIZES = (1024, 1024, 1024, 10)


def stored(density: float = 1 / 4) -> list[dict[str, Any]]:
    """One row for each family and each of checkpoint, onnx and adam.

    Where outputs differ in fan-in, the ONNX file holds the place of each connection instead of the
    padded index.
    """
    dense = mlp(SIZES).eval()
    whole = _bytes(dense)
    rows: list[dict[str, Any]] = []
    for family in PATTERNS:
        legal = min(LEGAL[family](SIZES[0], SIZES[1]), key=lambda d: abs(d - density))
        net = sparsify(dense, layers={"fc1": legal, "fc2": legal}, family=family).eval()
        layers = [layer for layer in net.modules() if isinstance(layer, SparseLayer)]
        index = sum(4 * layer.index.numel() for layer in layers)
        places = sum(
            4 * (layer.index if layer.pattern.is_regular else layer.values).numel()
            for layer in layers
        )
        values = 4 * sum(parameter.numel() for parameter in net.parameters())
        expected = {"checkpoint": values + index, "onnx": values + places, "adam": 2 * values}
        for kind, found in _bytes(net).items():
            off = abs(found - expected[kind]) / expected[kind]
            rows.append(
                row(
                    "bytes",
                    f"{kind} {'-'.join(map(str, SIZES))}",
                    legal,
                    1,
                    family,
                    whole[kind] / found,
                    off,
                )
            )
    return rows


def _bytes(net: nn.Module) -> dict[str, int]:
    """Bytes of each kind."""
    x = torch.randn(2, SIZES[0])
    optimiser = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    optimiser.step()
    state = [
        value for of_one in optimiser.state.values() for value in of_one.values() if value.ndim
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.safetensors"
        save(file, net)
        checkpoint = file.stat().st_size
    return {
        "checkpoint": checkpoint,
        "onnx": len(to_onnx(net, x[:1]).SerializeToString()),
        "adam": sum(value.numel() * value.element_size() for value in state),
    }
