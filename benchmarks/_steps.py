"""Whole training steps: forward, loss, backward, optimiser.

They are those of a perceptron and a ResNet-8, against dense and masking.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._rows import DENSITIES, as_dense, best_dense, residual, row
from benchmarks._timing import Work, medians, relative_error
from presplit.train import sparsify
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.zoo import mlp

PERCEPTRON = (784, 1024, 1024, 1024, 10)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CLOSE = 1e-3
"""What the logits of masked and sparse may differ by after three steps.

Adam makes large steps of small gradients.
"""


def perceptron(seconds: float, batch: int = 256) -> list[dict[str, Any]]:
    """784-1024-1024-1024-10 with Adam, the last layer dense.

    It is trained dense, sparse, and masked as the paper's code does it. Sparse and masked begin
    with the same weights, and must still agree after three steps.
    """
    torch.manual_seed(0)
    x, y = torch.randn(batch, PERCEPTRON[0]), torch.randint(0, PERCEPTRON[-1], (batch,))
    nets = {density: sparsify(mlp(PERCEPTRON), density=density) for density in DENSITIES}
    works: dict[Any, Work] = {}
    errors: dict[Any, float] = {}
    for density, net in nets.items():
        masks, masked = _masks(net), as_dense(net)
        errors["grouped", density] = errors["masked dense", density] = _difference(net, masked, x)
        works["grouped", density] = step(net, x, y, torch.optim.Adam(net.parameters()))
        works["masked dense", density] = _masking(masked, masks, x, y)
        for _ in range(3):
            works["grouped", density]()
            works["masked dense", density]()
        apart = _difference(net, masked, x)
        assert apart < CLOSE, f"masked and sparse part in training, by {apart:.2g}"
    turned = x.t().contiguous().t()
    for name, net, inputs in (
        ("dense", mlp(PERCEPTRON), x),
        ("dense feature-major", _all_feature_major(mlp(PERCEPTRON)), turned),
    ):
        works[name] = step(net, inputs, y, torch.optim.Adam(net.parameters()))
    times = medians(works, seconds=seconds)
    best = min(times["dense"], times["dense feature-major"])
    name = "-".join(map(str, PERCEPTRON))
    return [
        row("epoch", name, d, batch, form, best / times[form, d], errors[form, d])
        for form, d in errors
    ]


def residuals(width: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    """ResNet-8 of 32 x 32 images with SGD, channels last, in float32 and bfloat16 autocast.

    The best dense form is the faster of both. Nothing is compiled, neither dense nor sparse.
    """
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,))
    nets: dict[Any, nn.Module] = {density: residual(width, density) for density in DENSITIES}
    nets["dense"] = residual(width, None)
    works: dict[str, Work] = {}
    errors: dict[str, float] = {}
    for key, net in nets.items():
        for dtype in DTYPES:
            own = copy.deepcopy(net).to(memory_format=torch.channels_last)
            if key != "dense":
                errors[f"{key} {dtype}"] = _difference(own, as_dense(net), x, dtype=dtype)
            optimiser = torch.optim.SGD(own.parameters(), lr=0.01, momentum=0.9)
            works[f"{key} {dtype}"] = step(own, x, y, optimiser, dtype=dtype)
    times = medians(
        works, seconds=seconds, least=5, hot=False
    )  # larger than all caches, hot or not
    best = best_dense(times)
    return [
        row(
            "epoch",
            f"ResNet-8 w={width}",
            density,
            batch,
            "grouped",
            best / times[f"{density} {dtype}"],
            errors[f"{density} {dtype}"],
            dtype=dtype,
        )
        for density in DENSITIES
        for dtype in DTYPES
    ]


def step(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    optimiser: torch.optim.Optimizer,
    *,
    dtype: str = "float32",
    after: Callable[[], None] | None = None,
) -> Work:
    """One step on the batch ``x``, ``y``; ``after`` it what the masked way does."""
    net.train()

    def work() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if after is not None:
            after()

    return work


def _masking(net: nn.Module, masks: Sequence[np.ndarray[Any, Any]], x: Tensor, y: Tensor) -> Work:
    """The paper's way: read all weights after a batch, multiply by float64 masks, write back.

    Its masks are made for transposed weights and transposed back without a copy, so they lie the
    other way in memory.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    turned = [np.ascontiguousarray(mask.T).T for mask in masks]

    def after() -> None:
        read_out = [parameter.detach().numpy().copy() for parameter in parameters]
        for weights, mask in zip(read_out[::2], turned, strict=True):
            weights *= mask
        with torch.no_grad():
            for parameter, values in zip(parameters, read_out, strict=True):
                parameter.copy_(torch.from_numpy(values))

    return step(net, x, y, torch.optim.Adam(net.parameters()), after=after)


def _masks(net: nn.Module) -> list[np.ndarray[Any, Any]]:
    """float64, one for each linear layer, sparse or not."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | SparseLayer)]
    return [
        layer.pattern.mask().astype(np.float64)
        if isinstance(layer, SparseLayer)
        else np.ones(layer.weight.shape)
        for layer in layers
    ]


def _all_feature_major(net: nn.Module) -> nn.Module:
    """``net`` with dense linear layers that keep features as rows of memory; sometimes faster."""
    for name, layer in list(net.named_modules()):
        if type(layer) is nn.Linear:
            net.set_submodule(name, FeatureMajorLinear(layer.in_features, layer.out_features))
    return net


@torch.no_grad()
def _difference(net: nn.Module, dense: nn.Module, x: Tensor, *, dtype: str = "float32") -> float:
    """How far the logits of ``net``, computed in ``dtype``, are from those of ``dense``.

    Those of ``dense`` are computed in float32.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        logits = net(x)
    return relative_error(logits.float(), dense(x))
