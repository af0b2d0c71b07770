"""Which row of a table answers next: the policy's choice for the conditions as they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from presplit.core.plans import Conditions, Plan, PlanTable, Row
from presplit.core.protocols import SplitPolicy
from presplit.core.types import Answer
from presplit.runtime.estimate import Estimate
from presplit.runtime.probing import Probing
from presplit.runtime.trip import Trip
from presplit.runtime.walk import Walk

REFUSED_S = 30.0
"""What a server refused is not asked for again so long: it lacks a codec, or has another net."""

Way = tuple[int, str, str]
"""What a server sees of a plan: the split, the codec, and its own form."""


def way_of(plan: Plan) -> Way:
    """The way of ``plan`` to the server."""
    return (plan.split, plan.codec, plan.server_form)


class Choosing:
    """Chooses among the rows of ``table``, whose samples go by ``walks``; safe for threads."""

    def __init__(self, table: PlanTable, walks: Sequence[Walk], policy: SplitPolicy) -> None:
        self._table, self._policy = table, policy
        self._lock = threading.Lock()
        self._estimate = Estimate(table)
        self._last: Row | None = None
        self._refused = dict[Way, float]()
        self._probing = Probing(table, walks, self._estimate)

    @property
    def now(self) -> Conditions:
        """The conditions as they are by what was seen."""
        return self._estimate.now

    @property
    def is_heard(self) -> bool | None:
        """Whether the last request had a reply; None before the first one."""
        return self._estimate.is_heard

    @property
    def probed_bytes(self) -> int:
        """The payload of all requests that were sent only to learn of the link."""
        return self._probing.sent_bytes

    def choose(self, within_s: float) -> int:
        """The number of the row for an answer that is wanted within so many seconds."""
        self._probing.wake(self._last)
        with self._lock:
            number = self._policy.choose(self._estimate.now, within_s=within_s)
            if self._refused:
                number = self._not_refused(number)
            self._last = self._table.rows[number]
        return number

    def learn(self, answer: Answer, trip: Trip) -> None:
        """Take notice of an answer and of what was seen on its way."""
        assert answer.row is not None, "it was chosen here"
        edge_s = answer.elapsed_s if trip.edge_s is None else trip.edge_s
        self._estimate.learn(self._table.rows[answer.row], trip, edge_s)
        with self._lock:
            if answer.why == "refused":
                self._refused[way_of(self._table.rows[answer.row].plan)] = time.monotonic()
            self._policy.learn(answer.row, answer)

    def _not_refused(self, number: int) -> int:
        """The row of this number, or the best of those that no server has refused lately."""
        now = time.monotonic()
        self._refused = {way: at for way, at in self._refused.items() if now - at < REFUSED_S}
        rows = self._table.rows
        left = [n for n, row in enumerate(rows) if way_of(row.plan) not in self._refused]
        if number in left or not left:
            return number
        return min(left, key=lambda n: rows[n].mean_s(self._estimate.now))

    def heal(self) -> None:
        """The server is back: try it at once."""
        self._probing.heal()

    def close(self) -> None:
        """Probe no more."""
        self._probing.close()
