"""Density allocation: one budget for a net, divided among its layers.

The budget is in weights, multiplications or bytes.

Sources. ERK: arXiv 1911.11134, after arXiv 1707.04780: density proportional to the sum of a weight
tensor's sides over their product, layers that would pass 1 are dense. uniform+: arXiv 2202.02643
and its code: the first convolution dense, the last linear layer at 20 % where the net has less, the
rest uniform; that code divides by all weights instead of the remaining ones and so lands below its
budget, here the rest gets exactly what is left. Early sparse, late dense: the trend found in arXiv
1812.01164. By time: narrow layers gain no time from sparsity, wide ones much.

A profile gives each layer a wish. Wishes are rounded to legal densities together, so that the
budget is met and the squared logarithms of density over wish sum to the least
(`presplit.patterns.budget`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from presplit.core.errors import PatternError
from presplit.patterns.budget import USUAL, LayerSize, Unit, check_layers, spend
from presplit.patterns.degrees import Reals, shares

Profile = Literal["uniform", "uniform+", "erk", "early_sparse"]

LATE_OVER_EARLY = 4.0
"""How many times denser the profile ``early_sparse`` wishes the last layer than the first."""
LAST_LINEAR = 0.2
"""What uniform+ wishes for the last linear layer of a net that has less."""
NEAR = 16
"""So many legal densities of each layer, those nearest to its wish, are tried before all are."""


def allocate(
    layers: Sequence[LayerSize],
    *,
    budget: float,
    unit: Unit = "weights",
    profile: Profile = "erk",
    tolerance: float | None = USUAL,
) -> dict[str, float]:
    """The legal density of each layer by name, so that together they cost ``budget``.

    The cost is met within ``tolerance``; None takes the nearest there is, and a `PresplitWarning`
    says how far that is from it.

    ``budget`` counts the ``unit`` for the whole net: a quarter of it is ``0.25 * total(layers,
    unit)``. Raises `PatternError` with the range that is possible if the budget is outside it, and
    with the nearest totals if the legal densities leave a gap around it.

    >>> from presplit.patterns.budget import total
    >>> layers = [LayerSize(f"fc{k}", 512, 512, (0.125, 0.25, 0.5, 1.0)) for k in range(3)]
    >>> allocate(layers, budget=0.25 * total(layers), profile="uniform")
    {'fc0': 0.25, 'fc1': 0.25, 'fc2': 0.25}
    >>> allocate(layers, budget=10_000)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: a budget of 10000 weights is impossible: \
98304..786432 are possible
    """
    check_layers(layers)
    if profile not in PROPORTIONS:
        raise PatternError(f"profile: expected one of {', '.join(PROPORTIONS)}, got {profile!r}")
    wishes = _wishes(layers, budget, unit, profile)
    rows = [
        [(d, math.log(d / wish) ** 2) for d in layer.legal]
        for layer, wish in zip(layers, wishes, strict=True)
    ]
    for position in _dense(layers, profile):
        rows[position] = rows[position][-1:]
    near = [sorted(row, key=lambda option: option[1])[:NEAR] for row in rows]
    return spend(layers, [near, rows], budget, unit, tolerance)


def by_time(
    layers: Sequence[LayerSize],
    times: Mapping[str, Mapping[float, float]],
    *,
    budget: float,
    unit: Unit = "weights",
    tolerance: float | None = USUAL,
    usual: float = USUAL,
) -> dict[str, float]:
    """The density of each layer by name with which a net of cost ``budget`` is fastest.

    ``times[name]``: seconds of the layer at each candidate density, measured on the engine that
    will run it. The budget is spent, not only kept: what a wide layer gives up a narrow one, for
    which sparsity saves no time, may keep. Where densities are few, a ``tolerance`` of 0.05..0.1
    finds faster nets: a narrow one makes layers sparse only to hit the total. None meets it within
    ``usual``, or as nearly as it can, as `allocate` does. Raises `PatternError`
    as `allocate` does, and if a layer was not measured.

    >>> narrow = LayerSize("narrow", 64, 64, (0.25, 1.0))
    >>> wide = LayerSize("wide", 256, 256, (0.125, 0.25, 1.0))
    >>> layers = [narrow, wide]
    >>> times = {
    ...     "narrow": {0.25: 9e-6, 1.0: 8e-6},
    ...     "wide": {0.125: 20e-6, 0.25: 30e-6, 1.0: 100e-6},
    ... }
    >>> by_time(layers, times, budget=12_288)
    {'narrow': 1.0, 'wide': 0.125}
    """
    check_layers(layers)
    for layer in layers:
        seconds = times.get(layer.name, {})
        if not seconds or not all(0 < d <= 1 and 0 <= t < math.inf for d, t in seconds.items()):
            raise PatternError(
                f"layer {layer.name} needs times >= 0 at densities in 0..1, got {dict(seconds)}"
            )
    rows = [sorted(times[layer.name].items()) for layer in layers]
    return spend(layers, [rows], budget, unit, tolerance, usual=usual)


def _uniform(layers: Sequence[LayerSize]) -> Reals:
    return np.ones(len(layers))


def _erk(layers: Sequence[LayerSize]) -> Reals:
    sides = [(layer.n_in, layer.n_out, *layer.kernel) for layer in layers]
    return np.array([sum(each) / math.prod(each) for each in sides])


def _early_sparse(layers: Sequence[LayerSize]) -> Reals:
    return np.geomspace(1.0, LATE_OVER_EARLY, len(layers))


PROPORTIONS: dict[Profile, Callable[[Sequence[LayerSize]], Reals]] = {
    "uniform": _uniform,
    "uniform+": _uniform,
    "erk": _erk,
    "early_sparse": _early_sparse,
}
"""What each profile makes the densities proportional to, until a layer is dense."""


def _dense(layers: Sequence[LayerSize], profile: Profile) -> list[int]:
    """The layers that a profile leaves dense, whatever the budget."""
    return (
        [k for k, layer in enumerate(layers) if layer.kernel][:1] if profile == "uniform+" else []
    )


def _wishes(layers: Sequence[LayerSize], budget: float, unit: Unit, profile: Profile) -> Reals:
    """The density that a profile wishes for each layer, not below its least legal one."""
    full = np.array([layer.cost(1.0, unit) for layer in layers], dtype=np.float64)
    held = np.zeros(len(layers))
    held[_dense(layers, profile)] = 1.0
    if profile == "uniform+" and not layers[-1].kernel and budget < LAST_LINEAR * full.sum():
        held[-1] = LAST_LINEAR
    free = held == 0
    left = min(budget, float(full.sum())) - float(held @ full)
    proportion = PROPORTIONS[profile](layers)[free]
    spent = shares(left, proportion * full[free], full[free])
    held[free] = np.divide(
        spent, full[free], out=np.ones_like(spent), where=full[free] > 0
    )  # what costs nothing is kept
    return np.maximum(held, [layer.legal[0] for layer in layers])
