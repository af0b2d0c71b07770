"""What lies between an edge and its server, and what a request takes there."""

from __future__ import annotations

from presplit.core.times import Times
from presplit.core.value import NonNegative, Positive, Share, Value


class Link(Value, frozen=True):
    """What lies between an edge and its server.

    Rates are bits per second; ``rtt_s`` is the empty round trip.
    """

    name: str
    up_bps: Positive
    down_bps: Positive
    rtt_s: NonNegative
    jitter_s: NonNegative = 0.0
    loss: Share = 0.0
    power_w: NonNegative = 0.0
    """What the edge's radio draws while it sends."""
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

        One draw for now: neither jitter nor loss is in it.

        >>> Link("slow", up_bps=8e3, down_bps=8e6, rtt_s=0.1).time(1000, 1000).draws_s
        (1.101,)
        """
        return Times.of(self.up_s(up_bytes) + self.rtt_s + self.down_s(down_bytes))
