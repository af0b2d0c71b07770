"""Inference with predefined sparsity: one layer and whole nets, against dense and against what else one would pick.

Rows: ``op`` is linear_infer, mlp_onnx (five layers), conv_infer or conv_onnx. ``form`` is "grouped" for ours and the
peer's name otherwise; ``ratio_vs_best_dense`` is the time of the fastest dense form in the same run divided by the
form's own. Dense forms of a linear layer: ``F.linear``, a matmul with the transposed weight, the feature-major matmul,
ONNX Runtime. Batch 1 runs with cold weights: copies of a layer, more than 24 MB in all, take turns.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import Work, cycled, medians, relative_error
from presplit.core.errors import MissingLibrary, library
from presplit.patterns import grouped
from presplit.runtime.engine import Engine
from presplit.train import SparseConv2d, SparseLinear, sparsify
from presplit.train.export import to_onnx
from presplit.train.zoo import mlp

DENSITIES = (1 / 4, 1 / 8)
COLD_BYTES = 32 * 2**20


def run(quick: bool) -> dict[str, Any]:
    """All rows; ``quick`` takes fewer rounds, and leaves out 2048 x 2048."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    seconds = 0.4 if quick else 3.0
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for n in (512, 1024) if quick else (512, 1024, 2048):
            for batch in (1, 64):
                rows += linear_infer(n, batch, seconds)
        for batch in (1, 64):
            rows += mlp_onnx(1024, batch, seconds)
        for channels, side in ((64, 32), (128, 16), (256, 8)):
            rows += convolution(channels, side, seconds)
    return {"rows": rows, "checks": _checks(rows)}


def linear_infer(n: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """One linear layer n -> n without gradients, ours and its peers, at each density."""
    found: list[dict[str, Any]] = []
    x = torch.randn(batch, n)
    features = x.t().contiguous()
    for density in DENSITIES:
        copies = 1 if batch > 1 else max(1, round(COLD_BYTES / (4 * density * n * n)))
        layers = [SparseLinear(grouped(n, n, density=density)) for _ in range(copies)]
        dense_copies = 1 if batch > 1 else max(1, round(COLD_BYTES / (4 * n * n)))
        weights = [layer.dense_weight().clone() for layer in layers[:dense_copies]]
        bias = torch.zeros(n)
        expected = F.linear(x, weights[0], bias)
        works = {name: cycled(runs) for name, runs in _dense_forms(x, features, weights, bias).items()}
        works["dense onnxruntime"] = cycled([_onnx(_dense(weight), x) for weight in weights])
        error = relative_error(layers[0](features.t()), expected)
        works["grouped"] = cycled([_ours(layer, features) for layer in layers])
        peers = _peers(x, weights[0], expected) if batch > 1 else {}
        times = medians({**works, **peers}, seconds=seconds)
        best = min(time for name, time in times.items() if name.startswith("dense"))
        for name in ("grouped", *peers):
            row = _row("linear_infer", f"{n}x{n}", density, batch, name, best / times[name])
            found.append({**row, "max_rel_err": error if name == "grouped" else 0.0})
    return found


def mlp_onnx(width: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """A five-layer perceptron of one width in ONNX Runtime, all layers sparse, against the same one dense."""
    dense = mlp([width] * 6).eval()
    x = torch.randn(batch, width)
    nets = {density: sparsify(dense, layers={"fc*": density}) for density in DENSITIES}
    works = {"dense": _onnx(dense, x), **{f"grouped {d}": _onnx(net, x) for d, net in nets.items()}}
    errors = {d: relative_error(works[f"grouped {d}"](), net(x)) for d, net in nets.items()}
    times = medians(works, seconds=seconds)
    return [
        {
            **_row("mlp_onnx", f"5x{width}", d, batch, "grouped", times["dense"] / times[f"grouped {d}"]),
            "max_rel_err": e,
        }
        for d, e in errors.items()
    ]


def convolution(channels: int, side: int, seconds: float) -> list[dict[str, Any]]:
    """One 3x3 convolution at batch 1: torch channels last and ONNX Runtime, against the fastest dense of both."""
    dense = nn.Conv2d(channels, channels, 3, padding=1).eval()
    x = torch.randn(1, channels, side, side)
    moved = x.contiguous(memory_format=torch.channels_last)
    patterns = {d: grouped(channels, channels, density=d) for d in DENSITIES}
    sparse = {d: SparseConv2d(p, kernel_size=(3, 3), padding=(1, 1)).eval() for d, p in patterns.items()}
    in_torch = {d: SparseConv2d.from_dense(layer.to_dense(), patterns[d]) for d, layer in sparse.items()}
    for layer in in_torch.values():
        layer.to(memory_format=torch.channels_last)
    dense_moved = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
    works: dict[str, Work] = {
        "dense torch": lambda: dense(x),
        "dense torch nhwc": lambda: dense_moved(moved),
        "dense onnx": _onnx(dense, x),
        **{f"conv_infer {d}": functools.partial(layer, moved) for d, layer in in_torch.items()},
        **{f"conv_onnx {d}": _onnx(layer, x) for d, layer in sparse.items()},
    }
    times = medians(works, seconds=seconds)
    best = min(time for name, time in times.items() if name.startswith("dense"))
    return [
        {
            **_row(op, f"3x3 C{channels} {side}^2", d, 1, "grouped", best / times[f"{op} {d}"]),
            "max_rel_err": relative_error(works[f"{op} {d}"](), sparse[d](x)),
        }
        for op in ("conv_infer", "conv_onnx")
        for d in DENSITIES
    ]


def _dense_forms(x: Tensor, features: Tensor, weights: list[Tensor], bias: Tensor) -> dict[str, list[Work]]:
    """The ways in which torch multiplies a dense layer, one run for each of ``weights``."""
    turned = [weight.t().contiguous() for weight in weights]
    column = bias[:, None]
    return {
        "dense linear": [functools.partial(F.linear, x, weight, bias) for weight in weights],
        "dense transposed": [functools.partial(torch.addmm, bias, x, weight) for weight in turned],
        "dense feature-major": [functools.partial(torch.addmm, column, weight, features) for weight in weights],
    }


def _ours(layer: SparseLinear, features: Tensor) -> Work:
    return lambda: layer(features.t())


def _dense(weight: Tensor) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0]).eval()
    layer.weight.copy_(weight)
    assert layer.bias is not None
    layer.bias.zero_()
    return layer


def _onnx(model: nn.Module, x: Tensor) -> Work:
    """One run of ``model`` in ONNX Runtime on one thread; gives the output."""
    engine = Engine(to_onnx(model, x).SerializeToString(), threads=1)
    feed = {"input": x.numpy()}
    return lambda: next(iter(engine.run(feed).values()))


def _peers(x: Tensor, weight: Tensor, expected: Tensor) -> dict[str, Work]:
    """What a user would pick instead for a weight with zeros, each checked; OpenVINO only where it is installed."""
    features = x.t().contiguous()
    csr, bsr = weight.to_sparse_csr(), weight.to_sparse_bsr((16, 16))
    scipy = library("scipy.sparse", need="the scipy peer", extra="bench").csr_matrix(weight.numpy())
    columns = features.numpy()
    peers: dict[str, Work] = {
        "masked dense": lambda: F.linear(x, weight),
        "torch CSR": lambda: csr @ features,
        "torch BSR 16x16": lambda: bsr @ features,
        "scipy CSR": lambda: scipy @ columns,
        "onnxruntime with zeros": _onnx(_dense(weight), x),
    }
    try:
        openvino = library("openvino", need="the OpenVINO peer", extra="bench")
    except MissingLibrary as missing:
        print(f"left out: {missing}")
    else:
        model = to_onnx(_dense(weight), x).SerializeToString()
        core = openvino.Core()
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(core.read_model(model, b""), "CPU", options)
        peers["openvino with zeros"] = lambda: compiled(x.numpy())[0]
    for name, work in peers.items():
        found = np.asarray(work())
        found = found if found.shape == tuple(expected.shape) else found.T
        assert relative_error(found, expected) < 1e-4, name
    return peers


def _row(op: str, shape: str, density: float, batch: int, form: str, ratio: float) -> dict[str, Any]:
    return {
        "op": op,
        "shape": shape,
        "density": density,
        "batch": batch,
        "form": form,
        "dtype": "float32",
        "threads": 1,
        "ratio_vs_best_dense": ratio,
        "fraction_of_ideal": ratio * density,
    }


def _checks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that inference must show."""

    def picked(op: str, form: str = "grouped", **where: object) -> list[dict[str, Any]]:
        wanted = {"op": op, "form": form, **where}
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]

    def least(found: list[dict[str, Any]], key: str = "ratio_vs_best_dense") -> float:
        return min(row[key] for row in found)

    convolutions = [row for row in picked("conv_onnx", density=0.25) if "C64" not in row["shape"]]
    linear = [row["fraction_of_ideal"] for row in picked("linear_infer", batch=64)]
    ahead = min(
        ours["ratio_vs_best_dense"] / peer["ratio_vs_best_dense"]
        for peer in rows
        if peer["op"] == "linear_infer" and peer["form"] != "grouped"
        for ours in picked("linear_infer", shape=peer["shape"], density=peer["density"], batch=peer["batch"])
    )
    figures = [
        ("linear, batch 64, median fraction of ideal", float(np.median(linear)), 0.75),
        (
            "linear, batch 1 cold, least fraction of ideal",
            least(picked("linear_infer", batch=1), "fraction_of_ideal"),
            1.0,
        ),
        ("five layers in ONNX Runtime, batch 64, at 1/4", least(picked("mlp_onnx", batch=64, density=0.25)), 3.0),
        ("five layers in ONNX Runtime, batch 64, at 1/8", least(picked("mlp_onnx", batch=64, density=0.125)), 5.5),
        ("convolutions in ONNX Runtime, batch 1, at 1/4", least(convolutions), 3.2),
        ("ahead of every peer by", ahead, 1.0),
    ]
    checks = [
        {"name": name, "value": value, "target": f">= {goal}", "ok": value >= goal} for name, value, goal in figures
    ]
    worst = max(row.get("max_rel_err", 0.0) for row in rows)
    return [*checks, {"name": "largest relative error", "value": worst, "target": "<= 1e-5", "ok": worst <= 1e-5}]
