"""A time is a distribution: equally likely draws in seconds, of which a constant has one.

What a segment, a codec, a link or a queue takes is a `Times`; sums of such draws give quantiles and
the probability to be done by a deadline. Evenly spaced quantiles are draws, so a file that keeps
quantiles keeps draws. Source: sums of independent draws by Monte Carlo; the pairing of draws is
seeded by their values, so that equal sums are equal.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from presplit.core.value import NonNegative, Value

Array = npt.NDArray[np.float64]


class Times(Value, frozen=True):
    """What something takes: equally likely draws, in seconds. Adding takes both as independent.

    >>> step = Times((0.25, 0.75))
    >>> (step + Times.of(1)).quantile(0.99), step.within(0.5), step.mean_s
    (1.75, 0.5, 0.5)
    """

    draws_s: Annotated[tuple[NonNegative, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        # A plan is made of thousands of these, and nearly all come from sums: a glance is enough.
        given: object = self.draws_s
        if type(given) is tuple and set(map(type, given)) == {float}:
            draws = np.array(given)
            if draws.min() >= 0 and math.isfinite(draws.max()):
                return
        super().__post_init__()

    @classmethod
    def of(cls, seconds: float | Sequence[float]) -> Times:
        """A constant, or the draws that were seen; raises `SpecError` for a negative one."""
        draws = np.atleast_1d(np.asarray(seconds, np.float64))
        return cls(tuple(draws.tolist()))

    @property
    def array(self) -> Array:
        """The draws as float64 ``(draws,)``."""
        return np.array(self.draws_s)

    @property
    def mean_s(self) -> float:
        """The mean of the draws."""
        return math.fsum(self.draws_s) / len(self.draws_s)

    def quantile(self, q: float) -> float:
        """The least draw that a share ``q`` (0..1) of all draws does not exceed."""
        place = max(0, math.ceil(q * len(self.draws_s) - 1))
        return sorted(self.draws_s)[place]

    def within(self, seconds: float) -> float:
        """The probability (0..1) to take at most so many seconds."""
        return float((self.array <= seconds).mean())

    def moved(self, seconds: float) -> Times:
        """Every draw later by ``seconds``, earlier if they are negative, but never below 0."""
        return Times(tuple([max(0.0, draw + seconds) for draw in self.draws_s]))

    def scaled(self, factor: float) -> Times:
        """Every draw ``factor`` times as long.

        >>> Times((0.25, 0.5)).scaled(2).draws_s
        (0.5, 1.0)
        """
        return Times(tuple((self.array * factor).tolist()))

    def __add__(self, other: Times) -> Times:
        """The sum of independent times; as many draws as the larger of both has."""
        mine, theirs = self.array, other.array
        if len(mine) > 1 and len(theirs) > 1:
            most = max(len(mine), len(theirs))
            seed = zlib.crc32(theirs.tobytes(), zlib.crc32(mine.tobytes()))
            shuffled = np.random.default_rng(seed).permutation(_stretched(theirs, most))
            mine, theirs = _stretched(mine, most), shuffled
        return Times(tuple((mine + theirs).tolist()))


def _stretched(draws: Array, count: int) -> Array:
    """So many draws of the same distribution: the quantiles in the middles of ``count`` parts.

    Those that are repeated once more than others are spread over all of them, so that neither the
    low nor the high ones weigh more.
    """
    if len(draws) == count:
        return draws
    places = (2 * np.arange(count) + 1) * len(draws) // (2 * count)
    return np.sort(draws)[places]


NOTHING = Times((0.0,))
"""What takes no time."""


def total(parts: Sequence[Times]) -> Times:
    """The sum of all ``parts``, one after another.

    >>> total([Times.of(0.5), Times.of(0.25)]).draws_s, total([]).draws_s
    ((0.75,), (0.0,))
    """
    found = NOTHING
    for part in parts:
        found = found + part
    return found


def chance_within(parts: Sequence[Times], seconds: float) -> float:
    """The probability (0..1) that the sum of independent ``parts`` is at most so many seconds.

    Every draw of the part that has most is met with every draw of the others' sum, so that chances
    are told apart that are far smaller than one of all draws of a sum.

    >>> chance_within([Times((0.0, 1.0)), Times((0.0, 1.0))], 1.5)
    0.75
    """
    order = sorted(parts, key=lambda part: len(part.draws_s))
    most, others = np.sort(order[-1].array), total(order[:-1]).array
    reached = np.searchsorted(most, seconds - others, side="right")
    return float(reached.mean()) / len(most)


def mixed_quantile(parts: Sequence[Times], shares: Array, q: float) -> Array:
    """The time that a share ``q`` of samples does not exceed, for many mixtures at once.

    ``shares``: ``(mixtures, parts)``, what each part weighs in each mixture; each row sums to 1.
    Gives seconds ``(mixtures,)``.

    >>> mixed_quantile([Times.of(0.1), Times.of(2.0)], np.array([[0.6, 0.4], [0.4, 0.6]]), 0.5)
    array([0.1, 2. ])
    """
    draws = np.concatenate([part.array for part in parts])
    sizes = np.array([len(part.draws_s) for part in parts])
    order = np.argsort(draws, kind="stable")
    weights: Array = np.repeat(shares / sizes, sizes, axis=1)[:, order]
    # Sums of shares are off by rounding; a draw that weighs nothing never reaches the share.
    reached = (weights.cumsum(axis=1) >= q - 1e-12) & (weights > 0)
    latest = len(draws) - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    found = reached.any(axis=1)
    return np.where(found, draws[order[np.argmax(reached, axis=1)]], draws[order[latest]])
