"""Dividing a total among unequal weights, and drawing connections for given out-degrees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from presplit.core.types import Ints

Reals = npt.NDArray[np.float64]


def shares(total: float, weights: Reals, limits: Reals) -> Reals:
    """``total`` divided in proportion to ``weights``, no share above its limit.

    Each share is ``min(limit, c * weight)``.

    The share of a weight 0 is 0. ``total`` must not exceed the sum of the limits of positive
    weights.

    >>> shares(10, np.array([1.0, 1.0, 2.0]), np.array([9.0, 9.0, 4.0])).tolist()
    [3.0, 3.0, 4.0]
    """
    result = np.zeros(len(weights))
    full = weights <= 0
    while not full.all():
        free = ~full
        result[free] = weights[free] * (total - result[full].sum()) / weights[free].sum()
        over = free & (result > limits)
        if not over.any():
            break
        result[over] = limits[over]
        full |= over
    return result


def whole_shares(total: int, weights: Reals, limit: int) -> Ints:
    """`shares` in whole numbers that sum to ``total`` exactly, by largest remainder.

    Each is at most ``limit``.

    >>> whole_shares(10, np.array([1.0, 1.0, 2.0, 0.0]), limit=6).tolist()
    [3, 2, 5, 0]
    """
    exact = shares(total, weights, np.full(len(weights), float(limit)))
    result = np.floor(exact + 1e-9).astype(np.int32)
    order = np.argsort(-(exact - result), kind="stable")
    order = order[(weights[order] > 0) & (result[order] < limit)]
    result[order[: total - int(result.sum())]] += 1
    return result


def rows_of_degrees(degrees: Ints, rows: int, rng: np.random.Generator) -> Ints:
    """Sorted rows of different inputs, input ``j`` in exactly ``degrees[j]`` of them.

    They are int32 ``(rows, fan_in)``.

    ``degrees`` are in ``0..rows`` and sum to ``rows * fan_in``. Row by row, with ``r`` rows left,
    input ``j`` is taken with probability ``need_j / r`` by systematic sampling in a random order
    (Madow 1949): the probabilities sum to ``fan_in``, who needs all rows left is taken for certain,
    so the draw cannot fail.

    >>> rows_of_degrees(np.array([3, 2, 1, 0], np.int32), 3, np.random.default_rng(0)).tolist()
    [[0, 1], [0, 1], [0, 2]]
    """
    need = degrees.astype(np.int64)
    index = np.empty((rows, int(need.sum()) // rows), dtype=np.int32)
    for row in range(rows):
        left = rows - row
        order = rng.permutation(len(need))
        marks = (np.cumsum(need[order]) + rng.integers(left)) // left
        taken = np.sort(order[np.diff(marks, prepend=0) > 0])
        index[row] = taken
        need[taken] -= 1
    return index
