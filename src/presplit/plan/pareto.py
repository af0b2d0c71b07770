"""All plans of which none is better in everything: the front, from which a person may choose.

Six numbers count: mean, median and 99th percentile of the time, accuracy, energy, bytes.
"""

from __future__ import annotations

import numpy as np

from presplit.core.plans import Plan
from presplit.plan.evaluate import Array, Block, Rows
from presplit.plan.scenario import Scenario
from presplit.plan.tiers import every

MOST_PLANS = 100_000
"""Beyond so many plans fewer thresholds are tried: at least one for each exit."""
DIGITS = 10
"""Numbers that agree in so many digits are the same."""


def front_of(found: Scenario, *, deadline_s: float | None = None) -> list[Plan]:
    """Every plan that fits the device's memory and that no other beats in all six numbers.

    Sorted by mean time. Of plans that agree in all numbers the first stands for all. Exact up to
    `MOST_PLANS` plans; of larger nets the thresholds of each exit are thinned evenly until no more
    are left.
    """
    kept: list[tuple[Block, int]] = []
    numbers = np.empty((0, 6))
    for block in every(found, levels=levels(found)):
        rows, mine = _own_front(block)
        together = np.vstack([numbers, mine])
        best = undominated(together).tolist()
        places: list[tuple[Block, int]] = [*kept, *((block, int(row)) for row in rows)]
        kept = [places[at] for at in best]
        numbers = together[best]
    order: list[int] = np.lexsort(numbers.T[::-1]).tolist()
    chosen = [kept[at] for at in order]
    return [block.plans(np.array([row]), deadline_s=deadline_s)[0] for block, row in chosen]


def levels(found: Scenario) -> int | None:
    """How many thresholds each exit may have so that there are not too many plans."""
    tried: int | None = None
    while _count(found, tried) > MOST_PLANS and (tried is None or tried > 1):
        tried = 20 if tried is None else tried - 1
    return tried


def _count(found: Scenario, levels: int | None) -> int:
    """How many plans there are."""
    return sum(len(block.head.mean_s) for block in every(found, levels=levels))


def _own_front(block: Block) -> tuple[Rows, Array]:
    """The rows of a block that no other of its rows beats, with their numbers."""
    fits = block.weights_bytes <= block.found.memory_bytes
    rows = np.flatnonzero(fits)
    linear = [block.mean_s, -block.accuracy(), block.joules, block.up_bytes]
    times = [block.quantile(rows, 0.5), block.quantile(rows, 0.99)]
    columns = [linear[0][rows], *times, *(each[rows] for each in linear[1:])]
    numbers: Array = np.stack([_rounded(column) for column in columns], axis=1)
    best = undominated(numbers)
    return rows[best], numbers[best]


def _rounded(values: Array) -> Array:
    """Values to `DIGITS` significant digits."""
    size = np.where(values == 0, 1.0, np.abs(values))
    unit = 10.0 ** (np.floor(np.log10(size)) - DIGITS + 1)
    return np.round(values / unit) * unit


def undominated(numbers: Array) -> Rows:
    """The rows of ``(n, criteria)``, less is better, that no other row beats; of equals the first.

    >>> undominated(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
    [0, 1]
    """
    left = np.lexsort((np.arange(len(numbers)), *numbers.T[::-1]))
    kept: list[int] = []
    while len(left):
        # The first in the order of its numbers is beaten by none that come later.
        first, left = left[0], left[1:]
        kept.append(int(first))
        left = left[(numbers[left] < numbers[first]).any(axis=1)]
    return np.sort(np.array(kept, np.int64))
