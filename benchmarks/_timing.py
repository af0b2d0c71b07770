"""Honest timing: candidates in turn, one thread, process CPU time, medians.

Forms are checked before they are timed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

Work = Callable[[], object]

DISPLACING_BYTES = 64 * 2**20
"""More than the caches of one core's share hold."""


def medians(
    candidates: Mapping[str, Work],
    *,
    seconds: float,
    least: int = 7,
    most: int = 400,
    hot: bool = True,
) -> dict[str, float]:
    """Median CPU seconds of each candidate over rounds in which all take their turn.

    Rounds go on for ``seconds`` of CPU time in all, but at least ``least`` and at most ``most``
    times. The first two rounds warm up and do not count. A ``hot`` turn is two runs, of which the
    second counts: what the candidate before left in the caches is not its own cost. Otherwise every
    round begins with displacing the caches, so that a candidate with weights of its own reads them
    from memory, and the order of turns is another each round: who comes first also finds the
    interpreter cold. CPU time, because the machine is shared; so candidates must run in this
    process.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    spent, rounds, chance = 0.0, 0, random.Random(0)
    other = np.ones(0 if hot else DISPLACING_BYTES // 8)
    while rounds < least + 2 or (spent < seconds and rounds < most):
        other.sum()
        turns = list(candidates.items())
        if not hot:
            chance.shuffle(turns)
        for name, work in turns:
            if hot:
                work()
            began = time.process_time()
            work()
            taken = time.process_time() - began
            spent += taken
            if rounds >= 2:
                times[name].append(taken)
        rounds += 1
    return {name: statistics.median(values) for name, values in times.items()}


def cycled(works: list[Work]) -> Work:
    """Each call runs the next of ``works``.

    If their weights are more than the caches hold in all, every run starts cold.
    """
    place = 0

    def run() -> object:
        nonlocal place
        place = (place + 1) % len(works)
        return works[place]()

    return run


def relative_error(found: object, expected: object) -> float:
    """Largest difference of two arrays (or tensors), relative to the largest expected value."""
    one, other = (np.asarray(value, dtype=np.float64) for value in (found, expected))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-30))
