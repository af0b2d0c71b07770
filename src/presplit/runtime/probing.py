"""Small requests and runs beside the traffic, where the traffic itself does not show enough.

An edge that answers everything itself would never hear that the link is back, and one that sends
little never that it could send much. So where nothing like it was seen for a while, and answers are
wanted, a sample of noise goes by the row that sends the least, or by the one that would be the best
if the link were perfect; and where nothing is computed here, a stretch is run. Answers that send as
much themselves make a probe needless, however rare they are: it would only be in their way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence

import numpy as np

from presplit.core.cost import WIRE_BYTES
from presplit.core.errors import EngineError
from presplit.core.plans import Conditions, PlanTable, Row
from presplit.core.types import Floats
from presplit.runtime.estimate import LAST, Estimate
from presplit.runtime.head import Stretch
from presplit.runtime.sending import Sending
from presplit.runtime.trip import Trip
from presplit.runtime.upstream import Failure
from presplit.runtime.walk import Walk

FIRST_S, EVERY_S = 0.1, 1.0
"""Seconds without evidence after which a probe goes, and the next ones, each after twice as long.

What was seen last may be a stall, or the first time of all, so it is looked at again soon.
"""
LARGE = 2.5
"""How many times as rare the probes of many bytes are."""
OFTEN = 0.5
"""Where the server is asked for such a share of answers, they show what the link is like."""
SHARE = 0.05
"""Of the link's and of the processor's time a probe takes so much at most."""
PATIENCE_S = 2.0
"""How long the reply of a probe is waited for."""
LEAST_RUN_S = 0.001
"""A stretch that takes less says little of how fast this machine is."""
PERFECT = Conditions(up_bps=1e12, rtt_s=0.0)


class Sent:
    """Probes that go up: noise by the row of that ``number``, ``rare`` times as rarely."""

    def __init__(
        self, number: int, row: Row, sending: Sending, estimate: Estimate, *, rare: float
    ) -> None:
        self.number = number
        self._row, self._sending, self._estimate = row, sending, estimate
        self._values, self._rare = noise(sending.shape), rare
        self._nbytes = max(row.up_bytes, WIRE_BYTES)
        self._heard, self._patience_s, self._next = 0.0, rare * FIRST_S, 0.0
        self.sent_bytes = 0

    def due(self, now: float, goes_by: Row | None = None) -> bool:
        """True if nothing like it was heard of for long enough.

        It is not while answers go by a row, ``goes_by``, that mostly sends as much itself.
        """
        if goes_by is not None and goes_by.asked >= OFTEN and goes_by.up_bytes >= self._nbytes / 2:
            return False
        heard = self._estimate.heard_at(self._nbytes)
        if heard > self._heard:
            self._heard, self._patience_s = heard, self._rare * FIRST_S
        return now >= max(self._heard + self._patience_s, self._next)

    def soon(self) -> None:
        """It is due with the next answer."""
        self._next, self._patience_s = 0.0, 0.0

    def go(self) -> Trip:
        """Send one, and wait for what comes of it."""
        trip, began = Trip(), time.monotonic()
        asked, payload_bytes = self._sending.ask(self._values, began + PATIENCE_S)
        if isinstance(asked, Failure):
            trip.unasked(asked)
        else:
            trip.asks(payload_bytes)
            trip.heard(asked, asked.wait(began + PATIENCE_S))
            asked.cancel()
        self.sent_bytes += payload_bytes
        occupied_s = min(PATIENCE_S, 8 * payload_bytes / self._estimate.sound_bps)
        self._next = began + occupied_s / SHARE
        self._patience_s = min(self._rare * EVERY_S, 2 * self._patience_s)
        return trip

    def learn(self, trip: Trip) -> None:
        """Tell the estimate; a reply to a probe is no reason to be impatient again."""
        self._estimate.learn(self._row, trip)
        self._heard = self._estimate.heard_at(self._nbytes)


class Ran:
    """Probes that are computed here: some runs of a stretch, enough to be believed."""

    def __init__(self, row: Row, stretch: Stretch, estimate: Estimate) -> None:
        self._row, self._stretch, self._estimate = row, stretch, estimate
        self._values, self._next = noise(stretch.shape), 0.0

    def due(self, now: float) -> bool:
        """True if nothing was computed for long enough."""
        return now >= max(self._estimate.computed_at + EVERY_S, self._next)

    def go(self) -> None:
        """Run it."""
        first = time.monotonic()
        self._next = first + EVERY_S
        for _ in range(LAST // 2 + 1):
            trip, began = Trip(), time.monotonic()
            try:
                self._stretch.run(self._values)
            except EngineError:
                return  # the next answer tells its caller
            trip.ran(time.monotonic() - began, self._stretch.seconds)
            self._estimate.learn(self._row, trip)
        self._next = first + max(EVERY_S, (time.monotonic() - first) / SHARE)


class Probing:
    """Probes on a thread of its own, when `wake` finds that it is time; ends with `close`."""

    def __init__(self, table: PlanTable, walks: Sequence[Walk], estimate: Estimate) -> None:
        self._of = table, walks, estimate
        self._refused = set[int]()
        self._sent, self._ran = _sent(*self._of), _ran(*self._of)
        self._wanted = threading.Event()
        self._goes_by: Row | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="probing", daemon=True)
        self._thread.start()

    @property
    def sent_bytes(self) -> int:
        """The payload of all that was sent."""
        return sum(probe.sent_bytes for probe in self._sent)

    def wake(self, goes_by: Row | None = None) -> None:
        """Probe if it is time to; returns at once. Answers went by the row ``goes_by``."""
        now = time.monotonic()
        self._goes_by = goes_by
        sent = any(probe.due(now, goes_by) for probe in self._sent)
        if sent or any(probe.due(now) for probe in self._ran):
            self._wanted.set()

    def heal(self) -> None:
        """The server is back: send what shows how the link is now, whatever was seen last."""
        if self._refused:
            self._refused.clear()
            self._sent = _sent(*self._of)
        for probe in self._sent:
            probe.soon()
        self._wanted.set()

    def close(self) -> None:
        """Probe no more; a probe that is on its way is not waited for."""
        self._ended = True
        self._wanted.set()

    def _work(self) -> None:
        """Probe whenever it is wanted."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            for probe in self._ran:
                if not self._ended and probe.due(time.monotonic()):
                    probe.go()
            for probe in self._sent:
                if not self._ended and probe.due(time.monotonic(), self._goes_by):
                    trip = probe.go()
                    if not self._ended:  # closing fails what is on its way, not the link
                        probe.learn(trip)
                        self._look_at(probe, trip)
            if self._ended:
                return

    def _look_at(self, probe: Sent, trip: Trip) -> None:
        """A row that the server refuses shows nothing: another one is sent from now on."""
        if trip.asked is not None and trip.asked.why == "refused":
            self._refused.add(probe.number)
            self._sent = _sent(*self._of, without=self._refused)


def _sent(
    table: PlanTable,
    walks: Sequence[Walk],
    estimate: Estimate,
    without: Container[int] = (),
) -> list[Sent]:
    """What is sent: by the row with the fewest bytes and by the best one over a perfect link.

    ``without`` are numbers of rows that are left out.
    """
    sendings = {
        number: walk.sending
        for number, walk in enumerate(walks)
        if walk.sending is not None and walk.sending.asks and number not in without
    }
    if not sendings:
        return []
    least = min(sendings, key=lambda number: table.rows[number].up_bytes)
    best = min(sendings, key=lambda number: table.rows[number].mean_s(PERFECT))
    found = [Sent(least, table.rows[least], sendings[least], estimate, rare=1.0)]
    if table.rows[best].up_bytes >= 2 * table.rows[least].up_bytes:
        found.append(Sent(best, table.rows[best], sendings[best], estimate, rare=LARGE))
    return found


def _ran(table: PlanTable, walks: Sequence[Walk], estimate: Estimate) -> list[Ran]:
    """What is run: the shortest stretch that says something, else the longest."""
    ways = [stretch for walk in walks for stretch in walk.way]
    if not ways:
        return []
    longest = max(ways, key=lambda one: one.seconds)
    telling = [stretch for stretch in ways if stretch.seconds >= LEAST_RUN_S]
    stretch = min(telling, key=lambda one: one.seconds, default=longest)
    return [Ran(table.rows[0], stretch, estimate)]


def noise(shape: Sequence[int]) -> Floats:
    """One sample of values in 0..1, float32 ``(1, *shape)``, always the same."""
    return np.random.default_rng(0).random((1, *shape), dtype=np.float32)
