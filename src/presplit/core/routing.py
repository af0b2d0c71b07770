"""Routing: a sample leaves at the first exit that is sure of it. The rule stands here alone.

An exit is sure when its score reaches its threshold. Evaluation, the choice of thresholds, the
planner, `Local` and `Edge` all route by these functions; they take scores, so that no policy is
needed here. Source: BranchyNet (arXiv 1709.01686) for one threshold an exit; weighing all
combinations of thresholds at once by cumulative histograms is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats

Array = npt.NDArray[np.float64]


def sure(scores: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.bool_]:
    """bool ``(n,)``: True where an exit with these ``scores`` ``(n,)`` answers.

    >>> sure(np.array([0.2, 0.9]), 0.9)
    array([False,  True])
    """
    return np.asarray(scores) >= threshold


def route(scores: Floats, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """int64 ``(n,)``: the number of the exit at which each sample leaves.

    ``scores``: ``(early exits, n)``, in the order in which the exits run; one threshold for each.
    Samples of which no early exit is sure leave at the last one, number ``len(thresholds)``.

    >>> route(np.array([[0.2, 0.9, 0.1], [0.8, 0.1, 0.3]]), [0.5, 0.5])
    array([1, 0, 2])
    """
    leaves = np.full(np.shape(scores)[1], len(thresholds), dtype=np.int64)
    for number in reversed(range(len(thresholds))):
        leaves[sure(scores[number], thresholds[number])] = number
    return leaves


def grid(scores: Floats, most: int) -> Floats:
    """At most ``most`` thresholds to try for one exit: different, rising, each a sample's score.

    They are the scores at evenly spaced ranks, rounded up: under the lowest every sample leaves,
    under the highest only the surest. "Never" is no threshold and is not among them.

    >>> grid(np.array([0.3, 0.1, 0.2, 0.1], np.float32), 3)
    array([0.1, 0.2, 0.3], dtype=float32)
    """
    if most >= len(scores):
        return np.unique(scores)
    ranks = np.ceil(np.linspace(0, 1, most) * (len(scores) - 1)).astype(np.int64)
    return np.unique(np.sort(scores)[ranks])


class Cells:
    """Samples sorted into the cells of a grid of thresholds, so that all are weighed at once.

    ``scores``: ``(early exits, n)``; ``grids``: rising thresholds for each early exit, exits beyond
    the grids are left out. ``shape`` has one axis for each exit, indexed by its threshold in the
    grid, "never" last.
    """

    def __init__(self, scores: Floats, grids: Sequence[Floats]) -> None:
        self.shape = tuple(len(rising) + 1 for rising in grids)
        self.samples = np.shape(scores)[1]
        # A sample reaches thresholds 0..level-1 of an exit, so it stays there under t if
        # level <= t.
        levels: list[npt.NDArray[np.int64]] = [
            np.searchsorted(rising, of_exit, side="right")
            for rising, of_exit in zip(grids, scores, strict=False)
        ]
        self._cells: list[npt.NDArray[np.int64]] = [np.zeros(self.samples, np.int64)]
        for level, size in zip(levels, self.shape, strict=True):
            self._cells.append(self._cells[-1] * size + level)

    def staying(self, count: int, weights: npt.NDArray[np.generic]) -> Array:
        """The weight of the samples that leave at none of the first ``count`` exits.

        ``weights``: ``(n,)``. The axes of the other exits have length 1.
        """
        shape = self.shape[:count]
        counted = np.bincount(self._cells[count], weights.astype(np.float64), math.prod(shape))
        total: Array = counted.astype(np.float64).reshape(shape)
        for axis in range(count):
            total = total.cumsum(axis)
        return total.reshape(shape + (1,) * (len(self.shape) - count))

    def leaving(self, exit_: int, weights: npt.NDArray[np.generic]) -> Array:
        """The weight of the samples that leave at ``exit_``."""
        return self.staying(exit_, weights) - self.staying(exit_ + 1, weights)


@dataclass(frozen=True, eq=False)
class Weighed:
    """What all combinations of thresholds give, from `weigh`.

    Every array has one axis for each early exit, indexed by its threshold in the grid, "never"
    last. ``shares``: for each exit, the last one included, the share of samples that leave there.
    ``right``: the share of samples answered correctly.
    """

    shares: tuple[Array, ...]
    right: Array


def weigh(scores: Floats, values: npt.NDArray[np.generic], grids: Sequence[Floats]) -> Weighed:
    """Where samples leave and how many are answered correctly, for all combinations at once.

    ``scores``: ``(early exits, n)``; ``values``: ``(early exits + 1, n)``, what an answer of each
    exit to each sample is worth, 1 if it is right and 0 if not; ``grids``: rising thresholds for
    each early exit. Early exits beyond the grids are left out.

    >>> found = weigh(np.array([[0.2, 0.9]]), np.array([[0, 1], [1, 1]]), [np.array([0.2, 0.9])])
    >>> found.right.tolist(), found.shares[0].tolist()  # thresholds 0.2, 0.9, never
    ([0.5, 1.0, 1.0], [1.0, 0.5, 0.0])
    """
    cells, early, ones = Cells(scores, grids), range(len(grids)), np.ones(np.shape(values)[1])
    leave = [cells.leaving(exit_, ones) for exit_ in early]
    right = cells.staying(len(grids), values[-1])
    for exit_ in early:
        right = right + cells.leaving(exit_, values[exit_])
    shares = [*leave, cells.staying(len(grids), ones)]
    return Weighed(
        tuple(np.broadcast_to(part / cells.samples, cells.shape) for part in shares),
        right / cells.samples,
    )
