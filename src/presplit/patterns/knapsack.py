"""Choosing one option for each of several rows.

The choice has the least penalty in all and a total cost within a range. It is exact when small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

MOST_TOTALS = 1 << 14
"""Up to this many different totals the choice is exact.

Beyond, totals that are nearly equal count as one.
"""

Option = tuple[int, float]
"""(cost, penalty) of one option; costs are whole numbers, at least 0."""


def cheapest(rows: Sequence[Sequence[Option]], low: int, high: int) -> list[int] | None:
    """The option to take in each row, so that the penalties sum to the least.

    The costs sum to ``low..high``.

    None if no choice has such a total. Source: dynamic programming over the totals that can be
    reached (Bellman 1957), keeping the best way to each. With more than `MOST_TOTALS` totals the
    range is divided into that many cells, and the best way to each cell is kept with its true
    total: what is returned is always within the range.

    >>> cheapest([[(1, 9.0), (4, 2.0)], [(2, 7.0), (8, 1.0)]], low=5, high=9)
    [1, 0]
    """
    least, most = _suffix_sums(rows, min), _suffix_sums(rows, max)
    totals, penalties = np.zeros(1, dtype=np.int64), np.zeros(1)
    taken: list[tuple[npt.NDArray[np.int64], int]] = []
    for number, options in enumerate(rows):
        costs = np.array([cost for cost, _ in options], dtype=np.int64)
        new_totals = (totals[:, None] + costs).reshape(-1)
        new_penalties = (
            penalties[:, None] + np.array([penalty for _, penalty in options])
        ).reshape(-1)
        alive = (new_totals + least[number + 1] <= high) & (new_totals + most[number + 1] >= low)
        kept = np.flatnonzero(alive)
        if not kept.size:
            return None
        kept = kept[_best_of_each(new_totals[kept], new_penalties[kept])]
        totals, penalties = new_totals[kept], new_penalties[kept]
        taken.append((kept, len(options)))
    choice: list[int] = []
    state = int(np.argmin(penalties))
    for kept, width in reversed(taken):
        state, option = divmod(int(kept[state]), width)
        choice.append(option)
    return choice[::-1]


def _suffix_sums(
    rows: Sequence[Sequence[Option]], pick: Callable[[Iterable[int]], int]
) -> list[int]:
    """What the rows from each position on cost at least, or at most."""
    sums = [0]
    for options in reversed(rows):
        sums.append(sums[-1] + pick(cost for cost, _ in options))
    return sums[::-1]


def _best_of_each(
    totals: npt.NDArray[np.int64], penalties: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Positions of the least penalty of each total.

    If there are too many totals, it is that of each cell of totals.
    """
    cells = totals
    span = int(totals.max() - totals.min())
    if totals.size > MOST_TOTALS and np.unique(totals).size > MOST_TOTALS:
        cells = totals // (span // MOST_TOTALS + 1)
    order = np.lexsort((penalties, cells))
    first = np.diff(cells[order], prepend=cells[order[0]] - 1) != 0
    return order[first]
