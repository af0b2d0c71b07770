"""How far a held-out accuracy can be trusted: tests that hold for any data.

A promise "the accuracy drops by at most ``drop``" is tested on pairs: a sample *loses* where the
net's own classifier is right and the plan is not, it *gains* where it is the other way round, and
the drop is the share of losses less that of gains. The test is exact for any distribution of
independent samples. Sources: Learn then Test (arXiv 2110.01052) and its use for early exits (arXiv
2405.20915, 2402.00857), where bounds by concentration or by betting take the place of this one. We
order outcomes by the betting capital of arXiv 2010.09686, averaged over fixed bets, and take as
many of them as the worst share of gains allows: an unconditional exact test after Barnard, which
rejects all that betting does and more.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MOST_PAIRS = 160
"""Losses or gains beyond so many are never accepted: it bounds the work, and costs no safety."""
BETS = np.linspace(0.05, 0.95, 10)
SHARES = 64
"""Shares of gains at which the worst case is sought."""


def fewest(drop: float, confidence: float) -> int:
    """How many samples without a single loss it takes to be so sure of at most this ``drop``.

    >>> fewest(0.005, 0.95)
    598
    """
    if drop <= 0:
        return 2**53
    return 1 if drop >= 1 else math.ceil(math.log(1 - confidence) / math.log1p(-drop))


def drops_at_most(drop: float, *, samples: int, losses: int, gains: int, alpha: float) -> bool:
    """Whether the drop is at most ``drop``, wrongly said with a probability of at most ``alpha``.

    >>> [drops_at_most(0.005, samples=n, losses=1, gains=0, alpha=0.05) for n in (800, 1000)]
    [False, True]
    """
    if samples == 0 or not 0 < drop < 1:
        return drop >= 1
    if 2 * drop * samples > MOST_PAIRS:
        # So many may be lost that losses alone are counted: gains would hardly tell more.
        return right_at_least(1 - drop, samples=samples, right=samples - losses, alpha=alpha)
    if max(losses, gains) > MOST_PAIRS:
        return False
    return bool(_accepted(samples, drop, alpha)[losses, gains])


def right_at_least(floor: float, *, samples: int, right: int, alpha: float) -> bool:
    """Whether the accuracy is at least ``floor``, wrongly said with at most probability ``alpha``.

    The exact binomial test: so few wrong answers would be seen at most so often.

    >>> [right_at_least(0.9, samples=100, right=right, alpha=0.05) for right in (94, 96)]
    [False, True]
    """
    if floor <= 0:
        return True
    if samples == 0 or floor >= 1:
        return False
    wrong = np.arange(samples - right + 1)
    logs = _log_choose(samples, wrong) + wrong * math.log1p(-floor)
    return float(np.exp(logs + (samples - wrong) * math.log(floor)).sum()) <= alpha


def _log_choose(samples: int, chosen: npt.NDArray[np.int64]) -> Array:
    return _log_factorials(samples)[samples] - (
        _log_factorials(samples)[chosen] + _log_factorials(samples)[samples - chosen]
    )


@functools.lru_cache(8)
def _log_factorials(most: int) -> Array:
    return np.concatenate([[0.0], np.log(np.arange(1, most + 1)).cumsum()])


@functools.lru_cache(256)
def _accepted(samples: int, drop: float, alpha: float) -> npt.NDArray[np.bool_]:
    """Bool ``(losses, gains)``: the outcomes after which the drop is believed.

    They are taken in the order of the capital that bets against a larger drop would have won, as
    long as the worst case has a probability of at most ``alpha``.
    """
    most = min(samples, MOST_PAIRS)
    losses, gains = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    losses, gains = losses.ravel(), gains.ravel()
    possible = losses + gains <= samples
    losses, gains = losses[possible], gains[possible]
    even = samples - losses - gains
    capital = np.zeros(len(losses))
    for bet in BETS:
        logs = even * np.log1p(bet * drop) + losses * np.log1p(bet * (drop - 1))
        capital += np.exp(np.minimum(logs + gains * np.log1p(bet * (drop + 1)), 600))
    # Betting alone accepts at 1 / alpha (Ville); far below that nothing can be accepted either.
    near = np.flatnonzero(capital * alpha >= 0.02)
    order = near[np.argsort(-capital[near], kind="stable")]
    worst = _worst(samples, drop, losses[order], gains[order])
    found = np.zeros((MOST_PAIRS + 1, MOST_PAIRS + 1), np.bool_)
    taken = order[worst <= alpha]
    found[losses[taken], gains[taken]] = True
    return found


def _worst(
    samples: int, drop: float, losses: npt.NDArray[np.int64], gains: npt.NDArray[np.int64]
) -> Array:
    """The largest probability of these outcomes up to each, over the possible shares of gains.

    The drop is just ``drop``: a larger one makes outcomes that are accepted no likelier.
    """
    logs = _log_factorials(samples)
    even = samples - losses - gains
    ways = logs[samples] - logs[losses] - logs[gains] - logs[even]
    worst = np.zeros(len(losses))
    largest = min((1 - drop) / 2 * (1 - 1e-9), 2.5 * (MOST_PAIRS + 1) / samples)
    for share in (0.0, *np.geomspace(0.02 / samples, largest, SHARES)):
        likely = ways + losses * math.log(drop + share) + even * math.log1p(-drop - 2 * share)
        if share:
            likely = likely + gains * math.log(share)
        else:
            likely = np.where(gains == 0, likely, -np.inf)
        worst = np.maximum(worst, np.exp(likely).cumsum())
    return worst
