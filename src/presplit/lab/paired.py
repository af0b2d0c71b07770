"""Two nets on the same samples: how sure their difference is.

What counts are the samples that one of them alone has right. `chance` is McNemar's test
(Psychometrika 12, 1947) in its exact form, a binomial of 1/2. `difference_interval` is the wider of
two, end by end: Tango's score interval (Statistics in Medicine 17, 1998), which knows that other
samples would have told more or fewer pairs apart, and that of Clopper and Pearson (Biometrika 26,
1934) for the pairs that are told apart here, which is exact and agrees with the test: the interval
holds 0 where the test tells nothing apart.
"""

from __future__ import annotations

import math
from typing import Any

from presplit.core.errors import library

TAIL = 0.025
"""Of a two-sided interval of 95 %, on each side."""
Z = 1.959964
"""The quantile of the normal distribution for it."""
HALVINGS = 60


def chance(gains: int, losses: int) -> float:
    """How often a fair coin gives a split at least as uneven: McNemar's exact test, two-sided.

    >>> chance(5, 5), round(chance(9, 1), 4), chance(0, 0)
    (1.0, 0.0215, 1.0)
    """
    if gains == losses:
        return 1.0
    more, less = max(gains, losses), min(gains, losses)
    return min(1.0, 2 * float(_special().betainc(more, less + 1, 0.5)))


def difference_interval(gains: int, losses: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two accuracies, each of the same ``samples``.

    >>> low, high = difference_interval(5, 0, 360)
    >>> round(low, 4), round(high, 4), chance(5, 0)
    (-0.0006, 0.0321, 0.0625)
    """
    if gains < losses:
        low, high = difference_interval(losses, gains, samples)
        return -high, -low
    score, exact = _by_score(gains, losses, samples), _exact(gains, losses, samples)
    return min(score[0], exact[0]), max(score[1], exact[1])


def _by_score(gains: int, losses: int, samples: int) -> tuple[float, float]:
    """Tango's: the differences from which the one that was seen is less than `Z` away."""
    seen = (gains - losses) / samples

    def end(far: float) -> float:
        inside, outside = seen, far
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            if _apart(gains, losses, samples, middle) <= Z:
                inside = middle
            else:
                outside = middle
        return outside

    return end(-1.0), end(1.0)


def _apart(gains: int, losses: int, samples: int, difference: float) -> float:
    """How many standard errors what was seen is from ``difference``, either way.

    The error is that of the likeliest shares with this difference: section 3 of Tango's paper.
    """
    told = gains + losses
    b = (2 * samples - gains + losses) * difference - told
    c = -losses * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * samples * c)) - b) / (4 * samples)
    variance = samples * (2 * share + difference * (1 - difference))
    distance = abs(gains - losses - samples * difference)
    if variance <= 0:
        return math.inf if distance > 0 else 0.0
    return distance / math.sqrt(variance)


def _exact(gains: int, losses: int, samples: int) -> tuple[float, float]:
    """Clopper and Pearson's, of the share of gains among the pairs that are told apart."""
    special, told = _special(), gains + losses
    low = float(special.betaincinv(gains, losses + 1, TAIL)) if gains else 0.0
    high = float(special.betaincinv(gains + 1, losses, 1 - TAIL)) if losses else 1.0
    return (2 * low - 1) * told / samples, (2 * high - 1) * told / samples


def _special() -> Any:
    return library("scipy.special", need="presplit compare", extra="train")
