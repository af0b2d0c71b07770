"""Means over seeds with their intervals; the only file of the lab that knows scipy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from presplit.core.errors import library
from presplit.lab.sweep.found import Estimate

CONFIDENCE = 0.95


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of ``values``, one for each seed, and the 95 % interval of Student's t around it.

    >>> estimate([0.9, 0.92, 0.94]).low, estimate([0.9])
    (0.870317..., Estimate(mean=0.9, n=1, spread=None, low=None, high=None))
    """
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Estimate(mean=mean, n=1)
    spread = statistics.stdev(values)
    half = spread / math.sqrt(n) * student(n - 1)
    return Estimate(mean=mean, n=n, spread=spread, low=mean - half, high=mean + half)


def student(freedom: int) -> float:
    """How many standard errors the interval reaches to each side.

    >>> round(student(2), 3)
    4.303
    """
    special = library("scipy.special", need="an interval over seeds", extra="train")
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
