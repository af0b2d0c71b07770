"""Round trip and rate of a link, from requests of different sizes and the time that each took.

A request of n bytes takes ``rtt + n / rate``. Both are followed by a Kalman filter whose state
drifts: the rate of a wireless link much, its round trip little, so a change that was seen with one
size alone is mostly taken as one of the rate. What the filter cannot expect is a step. A transfer
that is faster than expected proves one; one that is slower may be a stall, two in a row are a step.

Source: Kalman, "A new approach to linear filtering and prediction problems" (1960), with two
states; the rules for steps are this project's own.
"""

from __future__ import annotations

import math

RATE_DRIFT = 0.5
"""By what share of itself the rate changes in a second, as a standard deviation: in a car more."""
RTT_DRIFT = 0.1
"""The same of the round trip."""
NOISE_S = 0.0005
"""What a time differs by from another under the same conditions, besides a share of itself."""
NOISE_SHARE = 0.08
SURPRISE = 3.0
"""Standard deviations beyond which a time is not what was expected."""
SETTLED = 8
"""A step within so many requests after another means that the first was not understood."""
LONGEST_DRIFT_S = 5.0
"""Drift is counted for so long at most: what was seen last stays the best guess."""
WORSE = 2.0
"""How many times as slow a link becomes in the estimate with each request that failed."""
OUTLASTED = 1.2
"""A request that was given up is taken to have needed so many times as long."""
LONGEST_S = 60.0
"""No request is expected to take longer."""
FASTEST_BPS = 10e9


class Line:
    """What is known of one link; ``rtt_s`` and ``up_bps`` are the best guess at any time."""

    def __init__(self, up_bps: float, rtt_s: float, *, now: float) -> None:
        self._rtt_s: float = max(rtt_s, 1e-6)
        self._byte_s: float = 8 / up_bps
        self._seen = now
        self._widen(self._rtt_s, self._byte_s)
        self._settled = SETTLED
        self._slower: float | None = None
        self._sound: tuple[float, float] | None = None

    @property
    def rtt_s(self) -> float:
        """The round trip of a request without any bytes, in seconds."""
        return self._rtt_s

    @property
    def up_bps(self) -> float:
        """The rate on the way up, in bits a second."""
        return 8 / self._byte_s

    @property
    def sound_bps(self) -> float:
        """The rate on the way up, or what it was before requests failed."""
        return self.up_bps if self._sound is None else 8 / self._sound[1]

    def expected_s(self, nbytes: float) -> float:
        """What a request of so many bytes is expected to take."""
        return self._rtt_s + nbytes * self._byte_s

    def took(self, nbytes: float, seconds: float, *, now: float) -> None:
        """Take notice of a request of ``nbytes`` whose reply was there after ``seconds``."""
        if self._sound is not None:
            # Back after failures: most likely it is as it was before them.
            self._rtt_s, self._byte_s = self._sound
            self._sound = None
            self._widen(self._rtt_s, self._byte_s)
        self._drift(now)
        off_s = seconds - self.expected_s(nbytes)
        spread_s = math.sqrt(self._variance(nbytes))
        if abs(off_s) > SURPRISE * spread_s:
            if off_s > 0 and self._slower is None:
                self._slower = nbytes
                return
            self._step(nbytes, abs(off_s))
        elif self._slower is not None and self._slower / 2 <= nbytes <= self._slower * 2:
            # As fast as ever: it was a stall. Another size would not have shown the same.
            self._slower = None
        self._settled += 1
        self._correct(nbytes, off_s)

    def outlasted(self, nbytes: float, seconds: float, *, now: float) -> None:
        """Take notice of a request of ``nbytes`` that was given up after ``seconds``.

        It would have taken longer, how much is not known. The link is not down for that, so what is
        seen next counts as ever.
        """
        if self.expected_s(nbytes) < OUTLASTED * seconds:
            self._slower = nbytes  # no stall that may be over: it took too long as it is
            self.took(nbytes, OUTLASTED * seconds, now=now)

    def failed(self, nbytes: float, waited_s: float) -> None:
        """Take notice of a request of ``nbytes`` that had no reply after ``waited_s`` seconds."""
        if self._sound is None:
            self._sound = self._rtt_s, self._byte_s
        expected_s = self.expected_s(nbytes)
        worse_s = min(WORSE * max(expected_s, waited_s), LONGEST_S)
        times = max(1.0, worse_s / expected_s)
        self._rtt_s, self._byte_s = times * self._rtt_s, times * self._byte_s

    def _step(self, nbytes: float, off_s: float) -> None:
        """The link is another one: its rate, and its round trip too if that did not explain it."""
        rate_alone = self._settled >= SETTLED
        self._widen(self._rtt_s + (0.0 if rate_alone else off_s), off_s / nbytes + self._byte_s)
        self._slower, self._settled = None, 0

    def _widen(self, rtt_s: float, byte_s: float) -> None:
        """Forget how sure it was: the rate may be anything, the round trip changes less."""
        self._rr: float = (0.3 * rtt_s + NOISE_S) ** 2
        self._rb: float = 0.0
        self._bb: float = byte_s**2

    def _drift(self, now: float) -> None:
        """Be less sure by the time that has passed."""
        passed_s = min(max(0.0, now - self._seen), LONGEST_DRIFT_S)
        self._seen = now
        self._rr += passed_s * (RTT_DRIFT * self._rtt_s + NOISE_S) ** 2
        self._bb += passed_s * (RATE_DRIFT * self._byte_s) ** 2

    def _variance(self, nbytes: float) -> float:
        """How far a time may be from what is expected, as a variance."""
        own = self._rr + 2 * nbytes * self._rb + nbytes**2 * self._bb
        return own + (NOISE_S + NOISE_SHARE * self.expected_s(nbytes)) ** 2

    def _correct(self, nbytes: float, off_s: float) -> None:
        """The filter's step for a time that is ``off_s`` later than expected."""
        to_rtt, to_byte = self._rr + nbytes * self._rb, self._rb + nbytes * self._bb
        variance = self._variance(nbytes)
        # Neither may fall below nothing, nor a byte below what a time can show of so many.
        self._rtt_s = max(self._rtt_s + to_rtt / variance * off_s, self._rtt_s / 2)
        shown_s = min(self._byte_s, max(NOISE_S / nbytes, 8 / FASTEST_BPS))
        self._byte_s = max(self._byte_s + to_byte / variance * off_s, shown_s)
        self._rr -= to_rtt**2 / variance
        self._rb -= to_rtt * to_byte / variance
        self._bb -= to_byte**2 / variance
