"""What an edge knows of the link, the server and itself: from its own traffic alone.

The device's factor is how many times as long its stretches take as they did at opening, by the
median of the last few, times how many times as long an answer's part on the edge took then as the
table says, by a slow mean. The server's is what it says it took itself, against what the table
says. What is left of a request's time belongs to the link (`presplit.runtime.line`).
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque

from presplit.core.plans import Conditions, PlanTable, Row
from presplit.runtime.line import Line
from presplit.runtime.trip import Asked, Trip

LAST = 5
"""Of so many the median is taken: a step counts after three, one that is off never."""
BASE_WEIGHT, BASE_KEPT = 5.0, 0.98
"""How many answers the table's word counts; what an answer counts less with each one after it."""
LEAST_S = 0.001
"""Times are compared with so much added to both: below it, others than computing count."""
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
        self._load = deque([1.0], maxlen=LAST)
        self._server = deque([usual.server_factor], maxlen=LAST)
        self._overloads = 0
        edge_s = [row.edge_s for row in table.rows if row.edge_s]
        prior_s = BASE_WEIGHT * max(LEAST_S, statistics.fmean(edge_s) if edge_s else 0.0)
        self._prior_s, self._usual_base = prior_s, usual.device_factor
        self._seen_s = self._planned_s = 0.0
        self.computed_at = self.heard_at = time.monotonic()

    def learn(self, row: Row, trip: Trip, edge_s: float | None = None) -> None:
        """Take notice of a sample that went by ``row``.

        ``edge_s`` is what passed on the edge until it was answered or the server was asked; None
        for a probe, which is no answer.
        """
        with self._lock:
            if trip.usual_s:
                self.computed_at = time.monotonic()
                self._load.append(trip.ran_s / trip.usual_s)
                if edge_s is not None:
                    self._weigh(row.edge_s, edge_s)
            if trip.asked is not None:
                self._heard(trip.asked, row.tail_s)
            self._tell()

    def _weigh(self, planned_s: float, seen_s: float) -> None:
        """The part of an answer on the edge took ``seen_s`` and was planned to take another."""
        load = max(LEAST_FACTOR, statistics.median(self._load))
        self._seen_s = BASE_KEPT * self._seen_s + seen_s / load
        self._planned_s = BASE_KEPT * self._planned_s + planned_s

    def _heard(self, asked: Asked, tail_s: float) -> None:
        """A request had its reply, or has none."""
        now = self.heard_at = time.monotonic()
        if asked.why == "overloaded":
            self._overloads += 1
            return
        if asked.why != "server":
            down_s = asked.waited_s if asked.why == "late" else max(asked.waited_s, DOWN_S)
            self._line.failed(asked.nbytes, down_s)
            return
        self._overloads = 0
        factor = statistics.median(self._server)
        if asked.server_s is not None:
            factor = (asked.server_s + LEAST_S) / (tail_s + LEAST_S)
            self._server.append(factor)
        self._line.took(asked.nbytes, max(1e-6, asked.waited_s - factor * tail_s), now=now)

    def _tell(self) -> None:
        """Put together what is known."""
        base = (self._prior_s * self._usual_base + self._seen_s) / (self._prior_s + self._planned_s)
        server = statistics.median(self._server) * 2.0**self._overloads
        self.now = Conditions(
            up_bps=self._line.up_bps,
            rtt_s=self._line.rtt_s,
            server_factor=min(max(server, LEAST_FACTOR), MOST_FACTOR),
            device_factor=min(max(base * statistics.median(self._load), LEAST_FACTOR), MOST_FACTOR),
        )
