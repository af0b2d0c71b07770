"""What the benchmarks of sparse layers share: rows, checks, whole nets, one run in ONNX Runtime."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._timing import Work
from presplit.patterns import grouped
from presplit.patterns.score import reach
from presplit.runtime.engines.onnxruntime import Engine
from presplit.train import sparsify, to_onnx
from presplit.train.layers.sparse import SparseLayer
from presplit.train.zoo import resnet8

DENSITIES = (1 / 4, 1 / 8)
NARROW = 16
"""A convolution whose groups would have fewer channels stays dense: it would not be faster."""


def row(
    op: str,
    shape: str,
    density: float,
    batch: int,
    form: str,
    ratio: float,
    error: float,
    *,
    dtype: str = "float32",
    threads: int = 1,
) -> dict[str, Any]:
    """One row; ``ratio`` is the time of the best dense form over that of this form."""
    return {
        "op": op,
        "shape": shape,
        "density": density,
        "batch": batch,
        "form": form,
        "dtype": dtype,
        "threads": threads,
        "ratio_vs_best_dense": ratio,
        "fraction_of_ideal": ratio * density,
        "max_rel_err": error,
    }


def check(name: str, value: float, goal: float, *, at_most: bool = False) -> dict[str, Any]:
    """A figure against its goal, at least unless ``at_most``."""
    ok = value <= goal if at_most else value >= goal
    return {
        "name": name,
        "value": value,
        "target": f"{'<=' if at_most else '>='} {goal:g}",
        "ok": bool(ok),
    }


def best_dense(times: dict[str, float]) -> float:
    """The shortest time of a form whose name begins with "dense"."""
    return min(time for name, time in times.items() if name.startswith("dense"))


def sessions(model: nn.Module, x: Tensor, copies: int = 1) -> list[Work]:
    """Runs of ``model`` in ONNX Runtime on one thread, each with weights of its own.

    Each gives the output.
    """
    raw, feed = to_onnx(model.eval(), x).SerializeToString(), {"input": x.numpy()}
    return [functools.partial(_output, Engine(raw, threads=1), feed) for _ in range(copies)]


def _output(engine: Engine, feed: dict[str, Any]) -> object:
    return next(iter(engine.run(feed).values()))


def plain(weight: Tensor) -> nn.Linear:
    """A dense layer without bias, of this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).eval()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def residual(width: int, density: float | None) -> nn.Module:
    """ResNet-8, dense or with the 3x3 convolutions in its blocks sparse that stay wide enough."""
    torch.manual_seed(0)
    dense = resnet8(width=width)
    if density is None:
        return dense
    inside = {
        name: density
        for name, layer in dense.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and layer.in_channels * density >= NARROW
    }
    return sparsify(dense, layers=inside)


def as_dense(net: nn.Module) -> nn.Module:
    """``net`` with dense layers that compute the same as its sparse ones."""
    dense = copy.deepcopy(net)
    for name, layer in list(dense.named_modules()):
        if isinstance(layer, SparseLayer):
            dense.set_submodule(name, layer.to_dense())
    return dense


def reached(net: nn.Module) -> float:
    """The share of the stem's channels that reach each output of the last block.

    Only the 3x3 convolutions count.
    """
    inside = [
        layer
        for name, layer in net.named_modules()
        if name.startswith("block")
        and isinstance(layer, nn.Conv2d | SparseLayer)
        and "shortcut" not in name
    ]
    return reach(
        [
            layer.pattern
            if isinstance(layer, SparseLayer)
            else grouped(layer.in_channels, layer.out_channels, density=1)
            for layer in inside
        ]
    )


def has_flag(flag: str) -> bool:
    """True if this machine's CPU says that it has ``flag``."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and flag in info.read_text(encoding="utf-8").split()


def picker(rows: list[dict[str, Any]]) -> Callable[..., list[dict[str, Any]]]:
    """A function that gives the rows with the given cells."""
    return lambda **where: [
        each for each in rows if all(each[key] == value for key, value in where.items())
    ]
