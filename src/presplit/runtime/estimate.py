"""What an edge knows of the link, the server and itself: from its own traffic alone.

The device's factor is how many times as long its stretches take as they did at opening, by the
median of the last few, times how many times as long an answer's part on the edge took then as the
table says, by a slow mean. The server's is what it says it took itself, against what the table
says. What is left of a request's time belongs to the link (`presplit.runtime.line`).
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque

from presplit.core.plans import Conditions, PlanTable, Row
from presplit.runtime.line import Line
from presplit.runtime.trip import Asked, Trip

LAST = 5
"""Of so many the median is taken: a step counts after three, one that is off never."""
OLD_S = 0.5
"""After so many seconds without a new one, what was seen before counts no more."""
BASE_WEIGHT, BASE_KEPT = 5.0, 0.98
"""How many answers the table's word counts; what an answer counts less with each one after it."""
LEAST_S = 0.0003
"""The server's times are compared with so much added to both: what handing over takes there."""
LEAST_EDGE_S = 0.001
"""An answer on the edge that the table says takes less than that counts as much."""
LEAST_FACTOR, MOST_FACTOR = 0.01, 1000.0
DOWN_S = 1.0
"""A link that is down takes at least so long: that is what connecting again takes."""


class Estimate:
    """The conditions as they are by what was seen; safe for several threads.

    ``now`` are the best guess; before anything is seen, the table's usual ones.
    """

    def __init__(self, table: PlanTable) -> None:
        usual = table.usual
        self.now = usual
        self._lock = threading.Lock()
        self._line = Line(usual.up_bps, usual.rtt_s, now=time.monotonic())
        self._load, self._server = _Recent(1.0), _Recent(usual.server_factor)
        self._overloads = 0
        edge_s = [row.edge_s for row in table.rows if row.edge_s]
        prior_s = BASE_WEIGHT * max(LEAST_EDGE_S, statistics.fmean(edge_s) if edge_s else 0.0)
        self._prior_s, self._usual_base = prior_s, usual.device_factor
        self._seen_s = self._planned_s = 0.0
        self.computed_at = time.monotonic()
        self._opened_at = self.computed_at
        self._heard_at = dict[int, float]()
        self.is_heard: bool | None = None
        """Whether the last request had a reply, if there was one."""

    @property
    def sound_bps(self) -> float:
        """The rate on the way up, or what it was before requests failed."""
        return self._line.sound_bps

    def heard_at(self, nbytes: float) -> float:
        """When the last request of half as many bytes or more had its reply, or had none."""
        size = math.frexp(nbytes)[1] - 1
        times = [at for found, at in self._heard_at.copy().items() if found >= size]
        return max(times, default=self._opened_at)

    def learn(self, row: Row, trip: Trip, edge_s: float | None = None) -> None:
        """Take notice of a sample that went by ``row``.

        ``edge_s`` is what passed on the edge until it was answered or the server was asked; None
        for a probe, which is no answer.
        """
        with self._lock:
            if trip.usual_s:
                self.computed_at = time.monotonic()
                load = trip.ran_s / trip.usual_s
                self._load.add(load, now=self.computed_at)
                if edge_s is not None and row.edge_s:
                    self._seen_s = BASE_KEPT * self._seen_s + edge_s / max(load, LEAST_FACTOR)
                    self._planned_s = BASE_KEPT * self._planned_s + row.edge_s
            if trip.asked is not None:
                self._heard(trip.asked, row)
            self._tell()

    def _heard(self, asked: Asked, row: Row) -> None:
        """A request had its reply, or has none."""
        now = time.monotonic()
        self._heard_at[math.frexp(asked.nbytes)[1]] = now
        if asked.why != "planned":  # one that was given up says nothing
            self.is_heard = asked.why in ("overloaded", "refused", "server")
        if asked.why == "overloaded":
            self._overloads += 1
            return
        if asked.why == "refused":
            return  # it was heard, and what is refused says nothing of the link
        if asked.why == "planned":
            self._line.outlasted(asked.nbytes, asked.waited_s, now=now)
            return
        if asked.why != "server":
            down_s = asked.waited_s if asked.why == "late" else max(asked.waited_s, DOWN_S)
            self._line.failed(asked.nbytes, down_s)
            return
        self._overloads = 0
        factor = self._server.median
        if asked.server_s is not None:
            factor = (asked.server_s + LEAST_S) / (row.tail_s + LEAST_S)
            self._server.add(factor, now=now)
        travel_s = asked.waited_s - factor * row.tail_s - row.ask_s
        self._line.took(asked.nbytes, max(1e-6, travel_s), now=now)

    def _tell(self) -> None:
        """Put together what is known."""
        base = (self._prior_s * self._usual_base + self._seen_s) / (self._prior_s + self._planned_s)
        server = self._server.median * 2.0**self._overloads
        device = base * self._load.median
        self.now = Conditions(
            up_bps=self._line.up_bps,
            rtt_s=self._line.rtt_s,
            server_factor=min(max(server, LEAST_FACTOR), MOST_FACTOR),
            device_factor=min(max(device, LEAST_FACTOR), MOST_FACTOR),
        )


class _Recent:
    """The median of the last few of what was seen, all of it recent."""

    def __init__(self, expected: float) -> None:
        # What is expected counts as much as two that were seen: the first one may be slow.
        self._seen = deque([expected] * (LAST // 2), maxlen=LAST)
        self._at = math.inf

    @property
    def median(self) -> float:
        return statistics.median(self._seen)

    def add(self, value: float, *, now: float) -> None:
        if now - self._at > OLD_S:
            self._seen.clear()
        self._seen.append(value)
        self._at = now
