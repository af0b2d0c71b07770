"""How links of three kinds change over minutes: made by a seeded generator from stated statistics.

Recorded traces may not be passed on or show one drive on one day; these are drawn anew for each
seed, and every number that shapes them stands here. Sources: for LTE in a moving car, Raca et al.,
"Beyond throughput: a 4G LTE dataset with channel and context metrics" (MMSys 2018), and van der
Hooft et al., "HTTP/2-based adaptive streaming of HEVC video over 4G/LTE networks" (IEEE
Communications Letters, 2016): rates that change by an order of magnitude within seconds and are
about log-normal over a drive; Huang et al. (MobiSys 2012): a median of 5.6 Mbit/s up. For Wi-Fi,
two states after Gilbert (1960). All figures that are not in these papers are guesses.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from presplit.core.link import Link
from presplit.core.plans import Conditions
from presplit.core.shelf import Shelf

LEAST_BPS, MOST_BPS = 50e3, 50e6
DOWN = 3.0
"""How many times as fast as the way up a mobile link is on the way down."""


@dataclass(frozen=True)
class Moment:
    """What the link is like from ``at_s`` on, until the next one; in an outage nothing passes."""

    at_s: float
    link: Link
    outage: bool = False

    @property
    def conditions(self) -> Conditions:
        """What a table is asked for; an outage is a link on which nothing is worth sending."""
        if self.outage:
            return Conditions(up_bps=1.0, rtt_s=60.0)
        return Conditions(up_bps=self.link.up_bps, rtt_s=self.link.rtt_s)


@dataclass(frozen=True)
class Trace:
    """A link over time: moments in their order, the first at 0."""

    name: str
    moments: tuple[Moment, ...]

    def at(self, seconds: float) -> Moment:
        """What the link is like so many seconds after the beginning.

        >>> trace = outages(60, seed=1)
        >>> trace.at(0.0) is trace.moments[0], trace.at(1e9) is trace.moments[-1]
        (True, True)
        """
        starts = [moment.at_s for moment in self.moments]
        return self.moments[max(0, bisect.bisect_right(starts, seconds) - 1)]


def lte_drive(seconds: float, *, seed: int = 0) -> Trace:
    """LTE from a moving car, in steps of half a second.

    The logarithm of the rate up is an autoregressive process around 5.6 Mbit/s, with a standard
    deviation of 1.1 (a factor of 3) and a correlation that fades in 4 s; every 30 s, on average, a
    handover or a dead spot leaves 200 kbit/s for 2 s. The round trip is 45 ms, and three times that
    in a dead spot.
    """
    chance = random.Random(f"lte-drive {seed}")
    step_s, keeps = 0.5, math.exp(-0.5 / 4.0)
    level, dead_until, moments = chance.gauss(0, 1), -1.0, list[Moment]()
    for at_s in _steps(seconds, step_s):
        level = keeps * level + math.sqrt(1 - keeps**2) * chance.gauss(0, 1)
        if chance.random() < step_s / 30:
            dead_until = at_s + 2.0
        dead = at_s < dead_until
        up_bps = 200e3 if dead else 5.6e6 * math.exp(1.1 * level)
        rtt_s = (0.135 if dead else 0.045) * math.exp(0.1 * chance.gauss(0, 1))
        moments.append(Moment(at_s, _link("lte-drive", up_bps, rtt_s, down=DOWN)))
    return Trace("lte-drive", tuple(moments))


def busy_wifi(seconds: float, *, seed: int = 0) -> Trace:
    """Wi-Fi that others use too, in steps of a fifth of a second.

    It is free for 3 s on average, with 20 Mbit/s and 5 ms, then busy for 2 s, with 1 Mbit/s and
    40 ms, because queues fill; rates differ by a factor of 1.35 (log-normal) from step to step.
    """
    chance = random.Random(f"busy-wifi {seed}")
    step_s, busy, moments = 0.2, False, list[Moment]()
    for at_s in _steps(seconds, step_s):
        if chance.random() < step_s / (2.0 if busy else 3.0):
            busy = not busy
        up_bps = (1e6 if busy else 20e6) * math.exp(0.3 * chance.gauss(0, 1))
        rtt_s = (0.040 if busy else 0.005) * math.exp(0.2 * chance.gauss(0, 1))
        moments.append(Moment(at_s, _link("busy-wifi", up_bps, rtt_s, down=1.0)))
    return Trace("busy-wifi", tuple(moments))


def outages(seconds: float, *, seed: int = 0) -> Trace:
    """A good link that is gone now and then, in steps of a tenth of a second.

    10 Mbit/s and 20 ms, for 10 s on average; then nothing passes, for 2 s on average.
    """
    chance = random.Random(f"outages {seed}")
    step_s, out, moments = 0.1, False, list[Moment]()
    link = _link("outages", 10e6, 0.02, down=1.0)
    for at_s in _steps(seconds, step_s):
        if at_s and chance.random() < step_s / (2.0 if out else 10.0):
            out = not out
        moments.append(Moment(at_s, link, out))
    return Trace("outages", tuple(moments))


TRACES: Shelf[Callable[..., Trace]] = Shelf(
    "trace", {"lte-drive": lte_drive, "busy-wifi": busy_wifi, "outages": outages}
)


def _steps(seconds: float, step_s: float) -> Iterator[float]:
    """When each step begins."""
    return (number * step_s for number in range(math.ceil(seconds / step_s)))


def _link(name: str, up_bps: float, rtt_s: float, *, down: float) -> Link:
    """A link within what the shaper can do."""
    up_bps = min(max(up_bps, LEAST_BPS), MOST_BPS)
    return Link(name, up_bps=up_bps, down_bps=down * up_bps, rtt_s=rtt_s)
