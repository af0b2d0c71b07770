"""How fast this machine is now, against what its engines took at opening."""

from __future__ import annotations

import threading
import time
from collections import deque

LAST = 5
"""Of so many runs the median is taken; the longer a run at opening, the more it counts."""
OLD_S = 2.0
"""After so many seconds without a run, what was seen before counts no more."""
LONGER = 2.0
"""A run that was stopped is taken to have needed so many times as long."""
LEAST_S = 0.0005
"""Added to both times before they are compared: of a run that takes less, chance is the most."""


class Pace:
    """What a run is expected to take, by the last few that were seen; safe for several threads.

    It is never expected to be faster than at opening.

    >>> pace = Pace()
    >>> pace.expected_s(0.01)
    0.01
    >>> pace.ran(0.1, usual_s=0.01)
    >>> round(pace.expected_s(0.02), 2)
    0.2
    """

    def __init__(self) -> None:
        self._seen = deque[tuple[float, float]](maxlen=LAST)
        self._at = 0.0
        self._lock = threading.Lock()

    def ran(self, took_s: float, usual_s: float) -> None:
        """A run took ``took_s`` that took ``usual_s`` at opening."""
        now = time.monotonic()
        with self._lock:
            if now - self._at > OLD_S:
                self._seen.clear()
            self._seen.append(((took_s + LEAST_S) / (usual_s + LEAST_S), usual_s + LEAST_S))
            self._at = now

    def stopped(self, after_s: float, usual_s: float) -> None:
        """A run was stopped ``after_s``: if that is longer than usual, it was far from its end."""
        if after_s > usual_s:
            self.ran(LONGER * after_s, usual_s)

    def expected_s(self, usual_s: float) -> float:
        """What a run that took ``usual_s`` at opening is expected to take now."""
        with self._lock:
            old = not self._seen or time.monotonic() - self._at > OLD_S
            factor = 1.0 if old else max(1.0, self._median())
        return usual_s if factor == 1.0 else factor * (usual_s + LEAST_S) - LEAST_S

    def _median(self) -> float:
        """How many times as long, by half of the weight of what was seen."""
        half, weight = sum(weight for _, weight in self._seen) / 2, 0.0
        for factor, own in sorted(self._seen):
            weight += own
            if weight >= half:
                return factor
        return 1.0
