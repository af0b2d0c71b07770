"""Timing several things against each other until their medians are known well enough.

All are run once in each round, in an order that is drawn anew, so that a slow second of the machine
falls on all of them and none profits from what ran before it. Nothing that was seen is left out.
How well a median is known is told by the distribution-free interval of its ranks (order statistics
of a binomial; Conover, "Practical Nonparametric Statistics", section 3.2).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.progress import advance
from presplit.core.times import Times

WARM_UPS = 5
"""Rounds that are run first and not counted."""
LEAST_ROUNDS = 100
"""Rounds before anything is called stable: fewer say nothing of a p99."""
PRECISION = 0.02
"""The half width of the 95 % interval of a median at which it is stable, as a share of it."""
SMALL = 0.1
"""What takes less than this share of the longest part is judged as if it took as much."""
BURST = 3
"""Runs that are timed in a row where the machine rests before each, after one that is not."""
QUANTILES = 64
"""Evenly spaced quantiles that are kept of what was seen."""

Array = npt.NDArray[np.float64]
Clock = Callable[[], float]
Run = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """What each of some runs took: ``seconds`` ``(runs, rounds)``."""

    seconds: Array

    def median_s(self, run: int) -> float:
        """The median of one run."""
        return float(np.median(self.seconds[run]))

    def times(self, run: int, quantiles: int = QUANTILES) -> Times:
        """The distribution of one run as evenly spaced quantiles of four digits."""
        return kept(self.seconds[run], quantiles)

    @property
    def precision(self) -> float:
        """How well the medians are known: the widest half interval as a share of its median.

        >>> round(Timed(np.array([[1.0, 1.1, 0.9, 1.0, 1.2]])).precision, 2)
        0.15
        """
        medians = np.median(self.seconds, axis=1)
        count = self.seconds.shape[1]
        margin = 1.96 * math.sqrt(count)
        low = max(0, math.floor((count - margin) / 2))
        high = min(count - 1, math.ceil((count + margin) / 2))
        ordered = np.sort(self.seconds, axis=1)
        half = (ordered[:, high] - ordered[:, low]) / 2
        least = max(SMALL * float(medians.max()), 1e-12)
        return float((half / np.maximum(medians, least)).max())


def kept(seconds: Array, quantiles: int = QUANTILES) -> Times:
    """Draws of four digits: those that were seen, or as many evenly spaced quantiles of them.

    >>> kept(np.array([0.2, 0.123456])).draws_s, len(kept(np.arange(1000.0)).draws_s)
    ((0.1235, 0.2), 64)
    """
    found = np.sort(seconds)
    if len(found) > quantiles:
        found = np.quantile(found, (np.arange(quantiles) + 0.5) / quantiles)
    return Times(tuple(float(f"{each:.4g}") for each in found.tolist()))


def timed(
    runs: Sequence[Run], *, limit_s: float, pause_s: float = 0.0, clock: Clock = time.perf_counter
) -> Timed:
    """What each of ``runs`` takes, round by round until stable, or until ``limit_s`` is over.

    Before each run the machine rests for ``pause_s``: what comes after a pause finds the processor
    asleep. Then it is run `BURST` times in a row, after one run that is not counted, since an
    answer follows others of its kind: it finds its weights in the caches as they left them. At
    least one round is finished, however long it takes.
    """
    began = clock()
    warm = 0
    while warm < WARM_UPS and (not warm or clock() - began < limit_s / 4):
        for run in runs:
            run()
        warm += 1
    random = np.random.default_rng(0)
    rounds: list[list[float]] = []
    while True:
        before = clock()
        took: list[list[float]] = [[] for _ in runs]
        for place in map(int, random.permutation(len(runs))):
            took[place] = _in_a_row(runs[place], pause_s, clock)
        rounds += [list(each) for each in zip(*took, strict=True)]
        advance(clock() - before)
        over = clock() - began >= limit_s
        looks = len(rounds) >= LEAST_ROUNDS and len(rounds) % 20 < BURST
        if over or looks:
            found = Timed(np.array(rounds).T)
            if over or found.precision <= PRECISION:
                return found


def _in_a_row(run: Run, pause_s: float, clock: Clock) -> list[float]:
    """What one run takes at once, or what some take after a rest each."""
    if not pause_s:
        start = clock()
        run()
        return [clock() - start]
    run()
    found: list[float] = []
    for _ in range(BURST):
        time.sleep(pause_s)
        start = clock()
        run()
        found.append(clock() - start)
    return found
