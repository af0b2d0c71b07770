"""One budget for a net, divided among its layers.

A module goes in; the densities that `sparsify` takes come out.

The division itself is `presplit.patterns.density`; here a module becomes the sizes that it works
on, and layers are timed at the densities that they could have.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError, PatternError
from presplit.core.protocols import Family
from presplit.patterns import LEGAL, PATTERNS
from presplit.patterns.budget import LayerSize, Unit, total
from presplit.patterns.density import Profile, by_time
from presplit.patterns.density import allocate as divide
from presplit.train.layers.convolution import Convolution
from presplit.train.nets.copying import bare_copy, changeable, is_lazy
from presplit.train.nets.decide import LEAST_FEATURES, can_be_sparse
from presplit.train.nets.drawing import draw_for, size_of
from presplit.train.nets.sparsify import sparsify
from presplit.train.nets.summary import Seen, observe

Times = Mapping[str, Mapping[float, float]]
Seconds = Callable[[nn.Module, Tensor], float]
"""How long a layer takes for a batch of inputs."""

TIMED = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""The densities at which layers are timed, where they can have them."""
TURNS = 30
"""Runs of a layer of which the median is its time."""


def allocate(
    model: nn.Module,
    example: Tensor,
    *,
    budget: float,
    unit: Unit = "weights",
    profile: Profile = "erk",
    times: Times | None = None,
    family: str = "grouped",
    least_features: int = LEAST_FEATURES,
    tolerance: float | None = None,
) -> dict[str, float]:
    """The density of each layer, so that ``model`` costs ``budget`` (0..1] of its dense cost.

    ``example``: a batch of samples. ``unit``: "weights", "macs" or "bytes"; counted are linear
    layers and convolutions that are not sparse yet. ``profile``: how densities differ, as in
    `presplit.patterns.density.allocate`; with ``times``, as `layer_times` gives them, they are
    chosen so that the net is fastest: narrow layers stay dense, wide ones carry the sparsity. No
    output reads fewer than ``least_features`` (1 for small nets), unless the layer has no more. The
    budget is met within ``tolerance``, and it is an error if that cannot be; without one it is met
    within 1 % (with ``times`` 10 %, for densities are few), or as nearly as the family can, and
    then a `PresplitWarning` says how far off that is.
    The result is what `sparsify` takes as ``layers``; a density of 1 keeps a layer dense, and so do
    depthwise convolutions and what else cannot be sparse.

    Raises `PatternError` with the budgets that are possible if this one is not within the
    ``tolerance`` that was asked for.

    >>> first, second, last = nn.Linear(64, 64), nn.Linear(64, 512), nn.Linear(512, 10)
    >>> net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    >>> allocate(net, torch.zeros(1, 64), budget=0.3, profile="uniform", tolerance=0.05)
    {'0': 0.5, '2': 0.25, '4': 0.5}
    """
    if unit not in get_args(Unit):
        raise PatternError(f"unit: expected one of {', '.join(get_args(Unit))}, got {unit!r}")
    if not 0 < budget <= 1:
        raise PatternError(f"a budget is a share of the dense net's {unit}, in 0..1, got {budget}")
    model = changeable(model)
    sizes = _sizes(model, observe(model, example), family, least_features, unit)
    whole = budget * total(sizes, unit)
    if times is None:
        return divide(sizes, budget=whole, unit=unit, profile=profile, tolerance=tolerance)
    known = {
        size.name: {d: s for d, s in times.get(size.name, {}).items() if _has(size, d)}
        for size in sizes
    }
    known |= {size.name: {1.0: 0.0} for size in sizes if len(size.legal) == 1}
    return by_time(sizes, known, budget=whole, unit=unit, tolerance=tolerance, usual=0.1)


def layer_times(
    model: nn.Module,
    example: Tensor,
    *,
    densities: Sequence[float] = TIMED,
    family: str = "grouped",
    seconds: Seconds | None = None,
) -> dict[str, dict[float, float]]:
    """Seconds of each layer that can be sparse, at its possible ``densities`` and at 1.

    ``seconds`` times a layer with a batch of its inputs on the engine that will run the net; by
    default PyTorch on the device that the model is on. `presplit.runtime.seconds_of` times an ONNX
    model, as `to_onnx` makes of a layer.
    """
    clock = seconds or torch_seconds
    model = changeable(model)
    seen = observe(model, example)
    sizes = [
        size
        for size in _sizes(model, seen, family, LEAST_FEATURES)
        if len(size.legal) > 1 and size.name in seen
    ]
    nets = {1.0: bare_copy(model)}
    for density in sorted(
        set(densities) - {1.0}
    ):  # in a whole net, because a layer deals its inputs or not by its place
        having = {size.name: density for size in sizes if _has(size, density)}
        nets |= {density: sparsify(model, layers=having, family=family)} if having else {}
    return {
        size.name: {
            density: clock(net.get_submodule(size.name).eval(), seen[size.name].inputs)
            for density, net in nets.items()
            if density == 1 or _has(size, density)
        }
        for size in sizes
    }


def torch_seconds(layer: nn.Module, inputs: Tensor) -> float:
    """Median seconds of ``layer`` in PyTorch, without gradients."""
    taken: list[float] = []
    with torch.no_grad():
        for _ in range(TURNS + 2):
            began = time.perf_counter()
            layer(inputs)
            if inputs.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[2:])


def _sizes(
    model: nn.Module,
    seen: Mapping[str, Seen],
    family: str,
    least_features: int,
    unit: Unit = "weights",
) -> list[LayerSize]:
    """Every layer with weights as the division sees it, in order.

    What cannot be sparse has the one density 1.
    """
    if family not in LEGAL:
        raise PatternError(
            f"a budget needs a family whose densities are listed: {', '.join(LEGAL)}, got "
            f"{family!r}"
        )
    sizes: list[LayerSize] = []
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear | Convolution):
            continue
        if is_lazy(layer):
            raise GraphError(
                f"layer {name} has no size yet: run an example through the model first"
            )
        n_out, n_in, groups = size_of(layer)
        legal = (1.0,)
        if can_be_sparse(layer):
            every = LEGAL[family](n_in // groups, n_out // groups)
            legal = tuple(d for d in every if d == 1 or d * n_in / groups >= least_features)
        often = seen[name].positions if name in seen else 0
        kernel = tuple(layer.kernel_size) if isinstance(layer, Convolution) else ()
        if unit == "macs" and not often:
            legal = (1.0,)  # it never runs: nothing is saved in it
        places = functools.cache(functools.partial(_places, PATTERNS[family], layer))
        sizes.append(
            LayerSize(
                name, n_in // groups, n_out, legal, kernel=kernel, positions=often, places=places
            )
        )
    if not sizes:
        raise GraphError(f"{type(model).__name__} has no linear layer or convolution")
    return sizes


def _places(draw: Family, layer: nn.Module, density: float) -> int:
    """How many numbers the index of a layer's pattern has."""
    return draw_for(draw, layer, density, 0).index.size


def _has(size: LayerSize, density: float) -> bool:
    """True if the layer can have this density."""
    return any(math.isclose(density, legal) for legal in size.legal)
