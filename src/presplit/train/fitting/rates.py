"""Rates that know the structure: sparse layers learn faster by the root of what they leave out.

Values that are drawn for the connections that exist begin larger, by the root of the dense fan-in
over the sparse one, than those of the dense layer. Adam moves every value by about the rate,
whatever its size, so that at one rate for all a sparse layer changes less, in proportion, than the
dense one would. With its rate multiplied by the same root it changes as much, and a rate that suits
the dense net suits the sparse one (`python -m benchmarks rates`). That rates follow from the fan-in
is of arXiv 2203.03466 and, for structured layers, arXiv 2406.06248. There they go with the fan-in
itself, in the limit of wide nets and many steps; for nets of this size that was too much at low
densities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from presplit.core.recipe import Recipe
from presplit.train.layers.sparse import SparseLayer


def by_rate(
    model: nn.Module, values: Sequence[nn.Parameter], recipe: Recipe
) -> list[dict[str, Any]]:
    """``values`` of ``model`` in the groups that an optimiser of torch takes, each with its rate.

    The connections of a sparse layer have ``recipe.rate / sqrt(density)`` if ``recipe.rates`` is
    "by_fan_in", density being the share of what each output of the dense layer read; all else,
    biases among it, has ``recipe.rate``.

    >>> from presplit.patterns import grouped
    >>> from presplit.train.layers.linear import SparseLinear
    >>> net = nn.Sequential(SparseLinear(grouped(8, 8, density=1 / 4)), nn.Linear(8, 2))
    >>> groups = by_rate(net, list(net.parameters()), Recipe(rate=0.1, rates="by_fan_in"))
    >>> [(group["lr"], len(group["params"])) for group in groups]
    [(0.2, 1), (0.1, 3)]
    """
    shares: dict[int, float] = {}
    if recipe.rates == "by_fan_in":
        sparse = (layer for layer in model.modules() if isinstance(layer, SparseLayer))
        shares = {id(layer.values): layer.density * layer.dense_groups for layer in sparse}
    groups: dict[float, list[nn.Parameter]] = {}
    for value in values:
        groups.setdefault(shares.get(id(value), 1.0), []).append(value)
    return [{"params": group, "lr": recipe.rate / share**0.5} for share, group in groups.items()]
