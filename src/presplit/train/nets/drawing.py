"""Patterns drawn for a layer, within each of its groups where it has some.

Where a family has not exactly the density for a layer, the nearest one can be taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns import LEGAL
from presplit.train.layers.convolution import Convolution


def draw_for(draw: Family, layer: nn.Module, density: float, seed: int) -> Pattern:
    """A pattern between all channels; within each group where the layer has groups."""
    n_out, n_in, groups = size_of(layer)
    parts = [
        draw(n_in // groups, n_out // groups, density=density, seed=seed + 1000 * k)
        for k in range(groups)
    ]
    return _side_by_side(parts)


def nearest_density(family: str, layer: nn.Module, density: float, least: int) -> float:
    """The nearest density, as a factor, that ``family`` can have; as it is if it has any."""
    if family not in LEGAL or not 0 < density < 1:
        return density
    n_out, n_in, groups = size_of(layer)
    legal = LEGAL[family](n_in // groups, n_out // groups)
    near = [d for d in legal if d == 1 or d * n_in / groups >= least]
    return min(near, key=lambda d: abs(math.log(d / density)))


def size_of(layer: nn.Module) -> tuple[int, int, int]:
    """(outputs, inputs, groups) of a dense layer."""
    if isinstance(layer, Convolution):
        return layer.out_channels, layer.in_channels, layer.groups
    assert isinstance(layer, nn.Linear)
    return layer.out_features, layer.in_features, 1


def _side_by_side(parts: Sequence[Pattern]) -> Pattern:
    """One pattern in which each of ``parts`` has inputs and outputs of its own."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.fan_in for part in parts)
    starts = np.cumsum([0, *(part.n_in for part in parts)])
    made = np.cumsum([0, *(part.n_out for part in parts)])
    rows = [
        np.pad(
            np.where(part.index >= 0, part.index + start, -1),
            ((0, 0), (0, width - part.fan_in)),
            constant_values=-1,
        )
        for part, start in zip(parts, starts, strict=False)
    ]
    orders = [np.arange(p.n_out) if p.out_order is None else p.out_order for p in parts]
    order = np.concatenate([o + start for o, start in zip(orders, made, strict=False)])
    kept = None if np.array_equal(order, np.arange(len(order))) else order
    return Pattern(int(starts[-1]), parts[0].tile, np.concatenate(rows), kept)
