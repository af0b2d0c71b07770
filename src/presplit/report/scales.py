"""Where a value lies on an axis, and which values are written at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from presplit.core.tables import plain

FEWEST = 2
"""Powers that must lie within a logarithmic axis: a shorter one has round values instead."""
ROOM = 0.05
"""The share of an axis that is left free at either end, unless its end is given."""


def share(value: float) -> str:
    """A share in 0..1 in percent, as short as it is.

    >>> share(0.5), share(0.985)
    ('50 %', '98.5 %')
    """
    return f"{100 * value:.4g} %"


@dataclass(frozen=True)
class Axis:
    """What an axis shows: its ``title``, and how its values become text.

    ``whole``: its values are counts, with nothing between two of them. ``low`` and ``high`` are its
    ends where the values are not to choose them; ``names`` are those
    of the values 0, 1, 2.. where they are no numbers but things.
    """

    title: str
    show: Callable[[float], str] = plain
    log: bool = False
    whole: bool = False
    low: float | None = None
    high: float | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Scale:
    """An axis laid over a span of a drawing, from the place ``start`` to the place ``end``."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where ``value`` lies; what is beyond an end lies at it."""
        low, high = self._line(self.low), self._line(self.high)
        share = (self._line(max(value, self.low)) - low) / (high - low)
        return self.start + min(1.0, share) * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """About ``most`` round values within the ends, with their text."""
        if self.axis.names:
            return [(float(number), name) for number, name in enumerate(self.axis.names)]
        values = _powers(self.low, self.high) if self.axis.log else []
        if len(values) < FEWEST:
            values = _round(self.low, self.high, most, is_whole=self.axis.whole)
        return [(value, self.axis.show(value)) for value in values]

    def _line(self, value: float) -> float:
        return math.log10(value) if self.axis.log else value


def laid(axis: Axis, values: Sequence[float], start: float, end: float) -> Scale:
    """The axis over a span, with ends that hold all ``values`` and leave room beside them.

    >>> laid(Axis("share", low=0.0, high=1.0), [0.5], 0, 100).place(0.25)
    25.0
    >>> laid(Axis("time", log=True), [0.001, 10], 0, 80).ticks()
    [(0.001, '0.001'), (0.01, '0.01'), (0.1, '0.1'), (1.0, '1'), (10.0, '10')]
    """
    if axis.names:
        return Scale(axis, -0.4, len(axis.names) - 0.6, start, end)
    shown = [value for value in values if math.isfinite(value) and not (axis.log and value <= 0)]
    given = [value for value in (axis.low, axis.high) if value is not None]
    shown = shown or given or [1.0]
    low, high = _spread(min(shown), max(shown), is_log=axis.log)
    low = low if axis.low is None else axis.low
    high = high if axis.high is None else axis.high
    if axis.show is share and max(shown) <= 1:
        high = min(1.0, high)  # no share is more than all
    return Scale(axis, low, high if high > low else low + 1.0, start, end)


def _spread(low: float, high: float, *, is_log: bool) -> tuple[float, float]:
    if is_log:
        factor = max((high / low) ** ROOM, 1.15)
        return low / factor, high * factor
    room = ROOM * (high - low) or 0.1 * abs(high) or 1.0
    # Counts and times begin at nothing: an axis below it would show what cannot be.
    return (0.0 if 0 <= low < room else low - room), high + room


def _round(low: float, high: float, most: int, *, is_whole: bool) -> list[float]:
    raw = max((high - low) / most, 1.0 if is_whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if is_whole else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    factors = (1,) if decades > 2.5 else (1, 3) if decades > 1.5 else (1, 2, 5)
    every = max(1, math.ceil(decades / 6))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [float(f"{value:.12g}") for value in found if low <= value <= high]
