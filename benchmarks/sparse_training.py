"""Training with predefined sparsity.

Steps of one layer and of whole nets are timed against dense and against masking.

Rows: ``op`` is linear_train (forward and all gradients through the real layer), conv_train, or
epoch: a whole step of a net with loss and optimiser, perceptron or ResNet-8.
``ratio_vs_best_dense`` is the time of the fastest dense form in the same run divided by the form's
own; ``fraction_of_ideal`` is that ratio times the density. Dense forms of a linear layer and of the
perceptron: row-major and feature-major; of a convolution: NCHW and channels last; of ResNet-8:
float32 and autocast to bfloat16, both channels last. Nothing is compiled, neither dense nor sparse.
Masking one layer is a product with the mask in the forward pass; in the perceptron it is what the
paper's code does: train the dense net and, after every batch, read all weights out, multiply them
by float64 masks and write them back. Outputs and gradients are compared with those of the dense
layer of the same weights before anything is timed.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._rows import DENSITIES, best_dense, check, picker, row
from benchmarks._steps import PERCEPTRON, perceptron, residuals
from benchmarks._timing import Work, medians, relative_error
from presplit.patterns import grouped
from presplit.train import SparseConv2d, SparseLinear
from presplit.train.layers.sparse import SparseLayer

CLOSE = 1e-4
"""What outputs and gradients may differ by, relative to the largest.

Float32 sums in another order.
"""


def run(quick: bool) -> dict[str, Any]:
    """All rows; ``quick`` takes fewer rounds of each."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = 0.4 if quick else 4.0
        rows = [
            cells
            for n in (512, 1024, 2048)
            for batch in (64, 256)
            for cells in linear_train(n, batch, seconds)
        ]
        rows += [
            cells
            for shape in ((64, 32), (128, 16), (256, 8))
            for cells in conv_train(*shape, seconds)
        ]
        rows += perceptron(4 * seconds)
        rows += [
            cells
            for shape in ((32, 64), (64, 64), (128, 32))
            for cells in residuals(*shape, 5 * seconds)
        ]
    finally:
        torch.set_num_threads(threads)
    return {"rows": rows, "checks": _checks(rows)}


def linear_train(n: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """One linear layer n -> n: output and the gradients of input, weights and bias."""
    x, features = (
        torch.randn(batch, n, requires_grad=True),
        torch.randn(n, batch, requires_grad=True),
    )
    outer = torch.randn(batch, n)
    outer_features = outer.t().contiguous()
    sparse = {density: SparseLinear(grouped(n, n, density=density)) for density in DENSITIES}
    errors = {density: _disagreement(layer, x, outer) for density, layer in sparse.items()}
    dense = nn.Linear(n, n)
    assert dense.bias is not None
    weight, bias = dense.weight, dense.bias

    def feature_major() -> tuple[Tensor, ...]:
        y = torch.addmm(bias[:, None], weight, features)
        return torch.autograd.grad(y, [features, weight, bias], outer_features)

    def masked(mask: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(F.linear(x, weight * mask, bias), [x, weight, bias], outer)

    def ours(layer: SparseLinear) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            layer(features.t()), [features, *layer.parameters()], outer_features.t()
        )

    works: dict[str, Work] = {
        "dense row": lambda: torch.autograd.grad(dense(x), [x, weight, bias], outer),
        "dense feature-major": feature_major,
    }
    for density, layer in sparse.items():
        mask = torch.from_numpy(layer.pattern.mask()).float()
        works[f"grouped {density}"] = functools.partial(ours, layer)
        works[f"masked dense {density}"] = functools.partial(masked, mask)
        with torch.no_grad():
            weighted = F.linear(x, layer.dense_weight() * mask, layer.bias)
            errors[density] = max(
                errors[density], relative_error(layer(features.t()), layer.to_dense()(features.t()))
            )
            assert relative_error(weighted, layer(x)) < CLOSE, (
                "masked and sparse compute different things"
            )
    times = medians(works, seconds=seconds)
    best = best_dense(times)
    return [
        row(
            "linear_train",
            f"{n}x{n}",
            density,
            batch,
            form,
            best / times[f"{form} {density}"],
            errors[density],
        )
        for form in ("grouped", "masked dense")
        for density in DENSITIES
    ]


def conv_train(channels: int, side: int, seconds: float, batch: int = 16) -> list[dict[str, Any]]:
    """One 3x3 convolution, channels last, against the faster dense layout.

    Output and all gradients are computed.
    """
    x = torch.randn(batch, channels, side, side)
    inputs = {
        "nchw": x.clone().requires_grad_(),
        "nhwc": x.contiguous(memory_format=torch.channels_last).requires_grad_(),
    }
    outer = {name: torch.randn_like(value) for name, value in inputs.items()}
    dense = nn.Conv2d(channels, channels, 3, padding=1)
    layouts = {"nchw": dense, "nhwc": copy.deepcopy(dense).to(memory_format=torch.channels_last)}
    patterns = {density: grouped(channels, channels, density=density) for density in DENSITIES}
    sparse = {
        density: SparseConv2d(pattern, kernel_size=(3, 3), padding=(1, 1)).to(
            memory_format=torch.channels_last
        )
        for density, pattern in patterns.items()
    }
    errors = {
        density: _disagreement(layer, inputs["nhwc"], outer["nhwc"])
        for density, layer in sparse.items()
    }

    def step(layer: nn.Module, layout: str) -> Callable[[], object]:
        return lambda: torch.autograd.grad(
            layer(inputs[layout]), [inputs[layout], *layer.parameters()], outer[layout]
        )

    works = {f"dense {layout}": step(layer, layout) for layout, layer in layouts.items()}
    works |= {f"grouped {density}": step(layer, "nhwc") for density, layer in sparse.items()}
    times = medians(works, seconds=seconds)
    best, shape = best_dense(times), f"3x3 C{channels} {side}^2"
    return [
        row(
            "conv_train",
            shape,
            density,
            batch,
            "grouped",
            best / times[f"grouped {density}"],
            errors[density],
        )
        for density in DENSITIES
    ]


def _disagreement(layer: SparseLayer, x: Tensor, outer: Tensor) -> float:
    """Largest difference of output and all gradients from a dense layer of the same weights."""
    dense, gradients = layer.to_dense(), copy.deepcopy(layer)
    y, expected = layer(x), dense(x)
    found = torch.autograd.grad(y, [x, *layer.parameters()], outer)
    at_x, at_weight, at_bias = torch.autograd.grad(expected, [x, *dense.parameters()], outer)
    gradients.take_dense(at_weight, at_bias)  # what the dense gradient is where connections exist
    pairs = zip((y, *found), (expected, at_x, *gradients.parameters()), strict=True)
    error = max(relative_error(ours.detach(), theirs.detach()) for ours, theirs in pairs)
    assert error < CLOSE, f"dense and sparse compute different things: {error:.2g}"
    return error


def _checks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that training must show."""
    picked = picker(rows)
    linear = picked(op="linear_train", form="grouped")
    convolutions = [
        each for each in picked(op="conv_train", density=1 / 4) if "C64" not in each["shape"]
    ]
    step = functools.partial(picked, op="epoch", shape="-".join(map(str, PERCEPTRON)))
    checks = [
        check(
            "linear training, median fraction of ideal",
            float(np.median(_cells(linear, "fraction_of_ideal"))),
            0.80,
        ),
        check("convolution training C128 and C256 at 1/4, least", min(_cells(convolutions)), 2.5),
    ]
    for density, over_dense, over_masked in ((1 / 4, 2.8, 4.0), (1 / 8, 4.5, 7.0)):
        ours, masked = (
            _cells(step(density=density, form=form))[0] for form in ("grouped", "masked dense")
        )
        share = f"1/{1 / density:.0f}"
        checks.append(check(f"perceptron at {share} against dense", ours, over_dense))
        checks.append(check(f"perceptron at {share} against masking", ours / masked, over_masked))
    for width, density, goal in (
        (128, 1 / 4, 1.5),
        (64, 1 / 4, 1.15),
        (32, 1 / 4, 1.0),
        (32, 1 / 8, 1.0),
    ):
        faster = max(_cells(picked(op="epoch", shape=f"ResNet-8 w={width}", density=density)))
        name = (
            f"ResNet-8 w={width} at 1/{1 / density:.0f} against the best dense, float32 or bfloat16"
        )
        checks.append(check(name, faster, goal))
    worst = max(_cells(picked(dtype="float32"), "max_rel_err"))
    return [*checks, check("largest relative error", worst, 1e-5, at_most=True)]


def _cells(rows: list[dict[str, Any]], column: str = "ratio_vs_best_dense") -> list[float]:
    return [each[column] for each in rows]
