"""What layers cost at each density, and the choice of densities that spends one budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from presplit.core.errors import PatternError, PresplitWarning
from presplit.patterns.knapsack import Option, cheapest

Unit = Literal["weights", "macs", "bytes"]
USUAL = 0.01
"""How closely a budget is met where nothing is said of it and densities allow it."""
Wish = tuple[float, float]
"""(density, penalty) of one option of a layer."""


@dataclass(frozen=True)
class LayerSize:
    """A layer as the allocation sees it.

    ``legal``: the densities that its family can have (`presplit.patterns.LEGAL`), rising;
    ``kernel``: the sides of a convolution's kernel; ``positions``: how often the weights are used
    for one sample, height x width of a convolution's output; ``tile``: outputs that share a fan-in
    set, None for grouped patterns, whose index is a permutation; ``places``: how long the index is
    at a density, where neither of these says it.
    """

    name: str
    n_in: int
    n_out: int
    legal: tuple[float, ...]
    kernel: tuple[int, ...] = ()
    positions: int = 1
    tile: int | None = None
    places: Callable[[float], int] | None = None

    def cost(self, density: float, unit: Unit = "weights") -> int:
        """What this layer costs at ``density``.

        Biases are left out, bytes are float32 values and int32 index.

        >>> size = LayerSize("conv", 16, 32, (0.25, 1.0), kernel=(3, 3), positions=64)
        >>> size.cost(0.25), size.cost(0.25, "macs")
        (1152, 73728)
        >>> size.cost(0.25, "bytes"), size.cost(1.0, "bytes")
        (4672, 18432)
        """
        connections = round(density * self.n_in * self.n_out)
        weights = connections * math.prod(self.kernel)
        if unit == "bytes":
            return 4 * weights + (4 * self._index(density, connections) if density < 1 else 0)
        return weights * self.positions if unit == "macs" else weights

    def _index(self, density: float, connections: int) -> int:
        """How many numbers the index has."""
        if self.places is not None:
            return self.places(density)
        return self.n_in if self.tile is None else connections // self.tile


def total(layers: Sequence[LayerSize], unit: Unit = "weights") -> int:
    """What all layers cost when dense.

    >>> total([LayerSize("fc1", 800, 100, (1.0,)), LayerSize("fc2", 100, 10, (1.0,))])
    81000
    """
    return sum(layer.cost(1.0, unit) for layer in layers)


def spend(
    layers: Sequence[LayerSize],
    tries: Sequence[Sequence[Sequence[Wish]]],
    budget: float,
    unit: Unit,
    tolerance: float | None,
    *,
    usual: float = USUAL,
) -> dict[str, float]:
    """One density for each layer: least penalty within the budget.

    Raises `PatternError`, saying what is possible, if there is none within ``tolerance``. None asks
    for the nearest total that there is: if that is further than ``usual``, a `PresplitWarning` says
    how far.

    ``tries``: rows of options, one row a layer; the first that can meet the budget is taken, the
    last has all options.
    """
    if unit not in get_args(Unit):
        raise PatternError(f"unit: expected one of {', '.join(get_args(Unit))}, got {unit!r}")
    within = usual if tolerance is None else tolerance
    if not 0 < budget < math.inf or not 0 <= within < 1:
        raise PatternError(
            f"a budget is a positive number of {unit}, a tolerance in 0..1, got {budget}, "
            f"{tolerance}"
        )
    low, high = math.ceil(budget * (1 - within)), math.floor(budget * (1 + within))
    for rows in tries:
        picks = cheapest(_options(layers, rows, unit), low, high)
        if picks is not None:
            return _picked(layers, rows, picks)
    options = _options(layers, tries[-1], unit)
    if tolerance is not None:
        raise PatternError(_impossible(options, budget, low, high, unit))
    picks = _nearest(options, budget, low, high)
    spent = sum(row[pick][0] for row, pick in zip(options, picks, strict=True))
    warnings.warn(
        f"a budget of {budget:.6g} {unit} cannot be met: the nearest total that these densities "
        f"reach is {spent}, {spent / budget:.3g} times it; another family has others, and a "
        "tolerance makes it an error",
        PresplitWarning,
        stacklevel=2,
    )
    return _picked(layers, tries[-1], picks)


def _picked(
    layers: Sequence[LayerSize], rows: Sequence[Sequence[Wish]], picks: Sequence[int]
) -> dict[str, float]:
    return {layer.name: row[pick][0] for layer, row, pick in zip(layers, rows, picks, strict=True)}


def _nearest(options: Sequence[Sequence[Option]], budget: float, low: int, high: int) -> list[int]:
    """The least penalty at the total nearest to ``budget``, none of which is in ``low..high``."""
    totals = _totals_around(options, low, high)
    _, total, picks = min((abs(total - budget), total, picks) for total, picks in totals)
    return cheapest(options, total, total) or picks


def _options(
    layers: Sequence[LayerSize], rows: Sequence[Sequence[Wish]], unit: Unit
) -> list[list[Option]]:
    """The rows with what each density costs in place of the density."""
    return [
        [(layer.cost(d, unit), penalty) for d, penalty in row]
        for layer, row in zip(layers, rows, strict=True)
    ]


def _impossible(
    options: Sequence[Sequence[Option]], budget: float, low: int, high: int, unit: Unit
) -> str:
    """What to say if no total of ``options`` is in ``low..high``."""
    least, most = (sum(pick(cost for cost, _ in row) for row in options) for pick in (min, max))
    if high < least or low > most:
        return f"a budget of {budget:.6g} {unit} is impossible: {least}..{most} are possible"
    nearest = " and ".join(str(total) for total, _ in _totals_around(options, low, high))
    return (
        f"none found that cost {low}..{high} {unit}; the nearest totals are {nearest}: "
        "change budget or tolerance"
    )


def _totals_around(
    options: Sequence[Sequence[Option]], low: int, high: int
) -> list[tuple[int, list[int]]]:
    """The nearest totals below and above ``low..high``, if there are any, and what gives them."""
    least, most = (sum(pick(cost for cost, _ in row) for row in options) for pick in (min, max))
    found: list[tuple[int, list[int]]] = []
    for sign, start, stop in ((-1, least, low - 1), (1, high + 1, most)):
        rows = [[(cost, float(sign * cost)) for cost, _ in row] for row in options]
        picks = cheapest(rows, start, stop)
        if picks is not None:
            total = sum(row[pick][0] for row, pick in zip(rows, picks, strict=True))
            found.append((total, picks))
    return found


def check_layers(layers: Sequence[LayerSize]) -> None:
    """Raise `PatternError` unless the layers can share a budget.

    There must be some, of different names, with legal densities that rise to at most 1.
    """
    names = [layer.name for layer in layers]
    if not layers or len(set(names)) != len(names):
        raise PatternError(f"a budget needs layers of different names, got {names}")
    for layer in layers:
        legal = layer.legal
        if not legal or list(legal) != sorted(set(legal)) or not 0 < legal[0] <= legal[-1] <= 1:
            raise PatternError(
                f"layer {layer.name}: legal densities must rise within 0..1, got {legal}"
            )
