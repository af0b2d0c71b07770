"""Training with predefined sparsity: steps of one layer and of a whole net, against dense and against masking.

Rows: ``op`` is linear_train (forward and all gradients through the real layer), conv_train or epoch (a whole step of a
net with loss and Adam). ``ratio_vs_best_dense`` is the time of the fastest dense form in the same run divided by the
form's own; ``fraction_of_ideal`` is that ratio times the density. Dense forms of a linear layer: row-major ``F.linear``
and feature-major ``W @ X``; of a convolution: NCHW and channels last. The masked form does what the paper's code does:
train the dense net and, after every batch, read all weights out, multiply them by float64 masks and write them back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import medians, relative_error
from presplit.patterns import grouped
from presplit.train import SparseConv2d, SparseLinear, sparsify
from presplit.train.zoo import mlp

DENSITIES = (1 / 4, 1 / 8)


def run(quick: bool) -> dict[str, Any]:
    """All rows; ``quick`` takes fewer rounds of each."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = 0.4 if quick else 4.0
        linear = [row for n in (512, 1024, 2048) for batch in (64, 256) for row in linear_train(n, batch, seconds)]
        conv = [row for shape in ((64, 32), (128, 16), (256, 8)) for row in conv_train(*shape, seconds)]
        whole = epoch(2 * seconds)
    finally:
        torch.set_num_threads(threads)
    rows = [*linear, *conv, *whole]
    return {"rows": rows, "checks": _checks(linear, conv, whole)}


def linear_train(n: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """One linear layer n -> n: output and the gradients of input, weights and bias."""
    rows_in, features = torch.randn(batch, n, requires_grad=True), torch.randn(n, batch, requires_grad=True)
    outer = torch.randn(batch, n)
    dense = nn.Linear(n, n)
    sparse = {density: SparseLinear(grouped(n, n, density=density)) for density in DENSITIES}
    outer_fm = outer.t().contiguous().t()

    def feature_major() -> tuple[Tensor, ...]:
        assert dense.bias is not None
        y = torch.addmm(dense.bias[:, None], dense.weight, features)
        return torch.autograd.grad(y, [features, dense.weight, dense.bias], outer_fm.t())

    def step(layer: SparseLinear) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(layer(features.t()), [features, *layer.parameters()], outer_fm)

    candidates: dict[str, Callable[[], object]] = {
        "dense row": lambda: torch.autograd.grad(dense(rows_in), [rows_in, *dense.parameters()], outer),
        "dense fm": feature_major,
        **{f"grouped {density}": step(layer) for density, layer in sparse.items()},
    }
    times = medians(candidates, seconds=seconds)
    best = min(times["dense row"], times["dense fm"])
    found: list[dict[str, Any]] = []
    for density, layer in sparse.items():
        error = relative_error(layer(features.t()).detach(), layer.to_dense()(features.t()).detach())
        found.append(_row("linear_train", f"{n}x{n}", density, batch, best / times[f"grouped {density}"], error))
    return found


def conv_train(channels: int, side: int, seconds: float, batch: int = 16) -> list[dict[str, Any]]:
    """One 3x3 convolution: output and all gradients, channels last, against the faster dense layout."""
    x = torch.randn(batch, channels, side, side)
    inputs = {
        "nchw": x.clone().requires_grad_(),
        "nhwc": x.contiguous(memory_format=torch.channels_last).requires_grad_(),
    }
    outer = {name: torch.randn_like(value) for name, value in inputs.items()}
    dense = {
        "nchw": nn.Conv2d(channels, channels, 3, padding=1),
        "nhwc": nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last),
    }
    sparse = {
        density: SparseConv2d(grouped(channels, channels, density=density), kernel_size=(3, 3), padding=(1, 1)).to(
            memory_format=torch.channels_last
        )
        for density in DENSITIES
    }

    def step(layer: nn.Module, layout: str) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(inputs[layout]), [inputs[layout], *layer.parameters()], outer[layout])

    candidates = {f"dense {layout}": step(layer, layout) for layout, layer in dense.items()}
    candidates |= {f"grouped {density}": step(layer, "nhwc") for density, layer in sparse.items()}
    times = medians(candidates, seconds=seconds)
    best = min(times[f"dense {layout}"] for layout in dense)
    found: list[dict[str, Any]] = []
    for density, layer in sparse.items():
        error = relative_error(layer(x).detach(), layer.to_dense()(x).detach())
        shape = f"3x3 C{channels} {side}^2"
        found.append(_row("conv_train", shape, density, batch, best / times[f"grouped {density}"], error))
    return found


def epoch(seconds: float, batch: int = 256) -> list[dict[str, Any]]:
    """A whole step of 784-1024-1024-1024-10, the last layer dense: forward, loss, backward, Adam."""
    sizes = (784, 1024, 1024, 1024, 10)
    dense = mlp(sizes)
    nets = {f"grouped {density}": sparsify(dense, density=density) for density in DENSITIES}
    nets |= {f"masked {density}": mlp(sizes) for density in DENSITIES}
    x, y = torch.randn(batch, sizes[0]), torch.randint(0, 10, (batch,))

    def step(model: nn.Module, after: Callable[[], None]) -> Callable[[], object]:
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

        def work() -> None:
            loss = F.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            after()

        return work

    candidates = {"dense": step(dense, lambda: None)}
    for name, model in nets.items():
        density = float(name.split()[1])
        candidates[name] = step(model, _masking(model, density) if name.startswith("masked") else lambda: None)
    times = medians(candidates, seconds=seconds)
    found: list[dict[str, Any]] = []
    for name in nets:
        form, density = name.split()
        ratio = times["dense"] / times[name]
        found.append({**_row("epoch", "-".join(map(str, sizes)), float(density), batch, ratio, 0.0), "form": form})
    return found


def _masking(model: nn.Module, density: float) -> Callable[[], None]:
    """The paper's way: after a batch, all weights are read out, multiplied by float64 masks, and written back."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    generator = np.random.default_rng(0)
    masks = [(generator.random(layer.weight.shape) < density).astype(np.float64) for layer in layers[:-1]]
    masks.append(np.ones(layers[-1].weight.shape))

    def after() -> None:
        read_out = [layer.weight.detach().numpy().copy() for layer in layers]
        for weights, mask in zip(read_out, masks, strict=True):
            weights *= mask
        with torch.no_grad():
            for layer, weights in zip(layers, read_out, strict=True):
                layer.weight.copy_(torch.from_numpy(weights))

    return after


def _row(op: str, shape: str, density: float, batch: int, ratio: float, error: float) -> dict[str, Any]:
    return {
        "op": op,
        "shape": shape,
        "density": density,
        "batch": batch,
        "form": "grouped",
        "dtype": "float32",
        "threads": 1,
        "ratio_vs_best_dense": ratio,
        "fraction_of_ideal": ratio * density,
        "max_rel_err": error,
    }


def _checks(
    linear: list[dict[str, Any]], conv: list[dict[str, Any]], whole: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The figures that training must show."""
    ideal = float(np.median([row["fraction_of_ideal"] for row in linear]))
    by_form = {(row["form"], row["density"]): row["ratio_vs_best_dense"] for row in whole}
    quarter = [row["ratio_vs_best_dense"] for row in conv if row["density"] == 1 / 4]
    figures = [
        ("linear training, median fraction of ideal", ideal, 0.80),
        ("convolution training at 1/4, least", min(quarter), 2.5),
        ("whole net at 1/4 against dense", by_form["grouped", 0.25], 2.8),
        ("whole net at 1/8 against dense", by_form["grouped", 0.125], 4.5),
        ("whole net at 1/4 against masking", by_form["grouped", 0.25] / by_form["masked", 0.25], 4.0),
        ("whole net at 1/8 against masking", by_form["grouped", 0.125] / by_form["masked", 0.125], 7.0),
    ]
    worst = max(row["max_rel_err"] for row in (*linear, *conv))
    checks = [
        {"name": name, "value": value, "target": f">= {least}", "ok": value >= least} for name, value, least in figures
    ]
    return [*checks, {"name": "largest relative error", "value": worst, "target": "<= 1e-5", "ok": worst <= 1e-5}]
