"""Drift: a share that rises above what it was when the plan was made, noticed soon and surely.

Source: E. S. Page, "Continuous inspection schemes" (1954): the sum of log-likelihood ratios of the
risen against the usual share, never below zero, is compared with a bound.
"""

from __future__ import annotations

import math

BOUND = 6.0
"""Evidence of e^6 to 1: by chance alone it comes up about once in many hundreds of looks."""
LEAST = 0.01


class Drift:
    """Looks, one after another, at things that happen with the share ``usual`` as a rule.

    ``risen`` is the share that must not go unnoticed.

    >>> drift = Drift(0.02, 0.12)
    >>> any(drift.sees(n % 50 == 0) for n in range(1000))
    False
    >>> [n for n in range(100) if drift.sees(n % 4 == 0)][0] < 50
    True
    """

    def __init__(self, usual: float, risen: float) -> None:
        usual = min(max(usual, LEAST), 0.9)
        risen = min(max(risen, usual + LEAST), 0.99)
        self.usual, self.risen = usual, risen
        self._for, self._against = math.log(risen / usual), math.log((1 - risen) / (1 - usual))
        self._sum = 0.0

    def sees(self, it: bool) -> bool:
        """Take notice of one more; True if the share has risen, and then it begins anew."""
        self._sum = max(0.0, self._sum + (self._for if it else self._against))
        if self._sum < BOUND:
            return False
        self._sum = 0.0
        return True
