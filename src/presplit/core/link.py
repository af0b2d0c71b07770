"""What lies between an edge and its server, and what a request takes there.

What TCP and HTTP/2 really do to a request on a connection that is open: its bytes occupy the way at
the link's rate; a connection that was idle begins with a small window and doubles it each round
trip (slow start, RFC 5681; the sum over its rounds is Cardwell, Savage and Anderson, "Modeling TCP
Latency", INFOCOM 2000); each piece of a stream is late by chance, and none overtakes another; a
packet that is lost is sent again after the retransmission timeout (RFC 6298).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from presplit.core.times import Times
from presplit.core.value import NonNegative, PartialShare, Positive, Value

DRAWS = 2048
"""How many draws the time of a request has, where chance plays a part: two are beyond 99.9 %."""
WAY_DRAWS = 256
"""How many there are of each way, of which all pairs are looked at."""
PACKET_BYTES = 1448
"""What one TCP segment carries over Ethernet: 1,500 less the headers of IP and TCP."""
PIECE_S = 0.002
"""A stream moves in pieces of about this much of the link's time, each late by itself."""
MIN_PIECE_BYTES, MAX_PIECE_BYTES = 1460, 65536
LEAST_STALL_S = 0.2
"""The least retransmission timeout of Linux; RFC 6298 asks for a second and is not followed."""
MOST_STALLS = 8
"""Losses of one request that are told apart."""

Array = npt.NDArray[np.float64]


class Link(Value, frozen=True):
    """What lies between an edge and its server.

    Rates are bits per second; ``rtt_s`` is the empty round trip. Each piece of a stream is late by
    a uniform 0..``jitter_s`` each way. ``loss`` is the probability that a packet of `PACKET_BYTES`
    is lost. ``window_bytes`` is what a connection may send after a pause before anything was
    acknowledged; without one it sends at the full rate at once. ``rtt_draws``, where the link was
    measured, are the empty round trips that were seen, jitter included; they take the place of
    ``rtt_s`` and ``jitter_s``.
    """

    name: str
    up_bps: Positive
    down_bps: Positive
    rtt_s: NonNegative
    jitter_s: NonNegative = 0.0
    loss: PartialShare = 0.0
    power_w: NonNegative = 0.0
    """What the edge's radio draws while it sends."""
    window_bytes: Positive | None = None
    rtt_draws: Times | None = None
    source: str = ""
    date: str = ""

    def up_s(self, nbytes: float) -> float:
        """Seconds that so many bytes occupy the way up."""
        return 8 * nbytes / self.up_bps

    def down_s(self, nbytes: float) -> float:
        """Seconds that so many bytes occupy the way down."""
        return 8 * nbytes / self.down_bps

    def time(self, up_bytes: float, down_bytes: float) -> Times:
        """What a request of so many bytes and its reply take, the server's own time left out.

        At most `DRAWS` evenly spaced draws, always the same ones; a link without chance has one.

        >>> Link("slow", up_bps=8e3, down_bps=8e6, rtt_s=0.1).time(1000, 1000).draws_s
        (1.101,)
        >>> far = Link("far", up_bps=8e6, down_bps=8e6, rtt_s=0.1, window_bytes=1000)
        >>> round(far.time(4000, 0).draws_s[0], 6)  # 4 ms, the trip, and twice a wait for its end
        0.301
        >>> shaky = Link("shaky", up_bps=8e6, down_bps=8e6, rtt_s=0.1, jitter_s=0.02)
        >>> round(shaky.time(100, 100).quantile(0.5), 3), len(shaky.time(100, 100).draws_s)
        (0.12, 2048)
        """
        fixed = self.up_s(up_bytes) + self.down_s(down_bytes)
        fixed += self._slow_start_s(up_bytes, self.up_bps)
        fixed += self._slow_start_s(down_bytes, self.down_bps)
        pieces = self._pieces(up_bytes, self.up_bps), self._pieces(down_bytes, self.down_bps)
        if self.rtt_draws is None:
            trips = self.rtt_s + _late(self.jitter_s, *pieces)
        else:
            # What was seen is of single pieces; a stream is as late as the latest of several.
            more = _late(self.jitter_s, *pieces).mean() - self.jitter_s
            trips = self.rtt_draws.array + max(more, 0.0)
        packets = math.ceil(up_bytes / PACKET_BYTES) + math.ceil(down_bytes / PACKET_BYTES)
        if self.loss and packets:
            trips = _stalled(trips, packets, self.loss, max(LEAST_STALL_S, 2 * self.rtt_s))
        return Times(tuple((fixed + trips).tolist()))

    def _slow_start_s(self, nbytes: float, bps: float) -> float:
        """What waiting for acknowledgements adds while the window is smaller than the link."""
        window = self.window_bytes
        waited, sent = 0.0, 0.0
        while window is not None and 8 * window / bps < self.rtt_s and sent + window < nbytes:
            waited += self.rtt_s - 8 * window / bps
            sent += window
            window *= 2
        return waited

    def _pieces(self, nbytes: float, bps: float) -> tuple[int, float]:
        """How many pieces of a stream of ``nbytes`` may be the latest, and how far apart they are.

        A piece that is more than the jitter before the last one cannot be later than it.
        """
        size = piece_bytes(bps)
        apart_s = 8 * size / bps
        reached = math.ceil(min(self.jitter_s / apart_s, 64))
        return max(1, min(math.ceil(nbytes / size), reached)), apart_s


def piece_bytes(bps: float) -> int:
    """The size of a piece of a stream at so many bits per second.

    >>> piece_bytes(1e6), piece_bytes(1e7), piece_bytes(1e9)
    (1460, 2500, 65536)
    """
    return min(MAX_PIECE_BYTES, max(MIN_PIECE_BYTES, int(bps * PIECE_S / 8)))


def _middles(count: int) -> Array:
    """The middles of ``count`` equal parts of 0..1."""
    return (np.arange(count) + 0.5) / count


@functools.lru_cache(maxsize=256)
def _late(jitter_s: float, up: tuple[int, float], down: tuple[int, float]) -> Array:
    """Evenly spaced quantiles of how late a request and its reply are together; read-only."""
    if not jitter_s:
        found = np.zeros(1)
    else:
        both = np.add.outer(_one_way(jitter_s, *up), _one_way(jitter_s, *down))
        found = np.quantile(both, _middles(DRAWS))
    found.flags.writeable = False
    return found


def _one_way(jitter_s: float, pieces: int, apart_s: float) -> Array:
    """Evenly spaced quantiles of how late the last of some pieces of a stream arrives.

    Piece i before the last must be late by ``i * apart_s`` more to hold it up: the lateness is at
    most t with probability ``prod(min(1, (t + i * apart_s) / jitter_s))``.
    """
    grid = np.linspace(0, jitter_s, 1025)
    ahead = np.arange(pieces) * apart_s
    chance = np.minimum(1.0, (grid[:, np.newaxis] + ahead) / jitter_s).prod(axis=1)
    return np.interp(_middles(WAY_DRAWS), chance, grid)


def _stalled(trips: Array, packets: int, loss: float, stall_s: float) -> Array:
    """Evenly spaced quantiles of ``trips`` where each packet may be lost and stall the stream."""
    counts = range(min(packets, MOST_STALLS) + 1)
    keeps = 1 - loss
    chances = np.array([math.comb(packets, k) * loss**k * keeps ** (packets - k) for k in counts])
    chances[-1] += max(0.0, 1 - chances.sum())  # what is beyond counts as the most
    times = np.add.outer(stall_s * np.array(counts), trips)
    weights = np.repeat(chances / len(trips), len(trips)).reshape(times.shape)
    order = np.argsort(times, axis=None)
    reached = weights.ravel()[order].cumsum()
    wanted: Array = _middles(DRAWS) * reached[-1]
    places: npt.NDArray[np.int64] = np.searchsorted(reached, wanted)
    return times.ravel()[order][np.minimum(places, times.size - 1)]
