"""Which row of a table answers next: the policy's choice for the conditions as they are."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from presplit.core.plans import Conditions, PlanTable, Row
from presplit.core.protocols import SplitPolicy
from presplit.core.types import Answer
from presplit.runtime.estimate import Estimate
from presplit.runtime.probing import Probing
from presplit.runtime.trip import Trip
from presplit.runtime.walk import Walk


class Choosing:
    """Chooses among the rows of ``table``, whose samples go by ``walks``; safe for threads."""

    def __init__(self, table: PlanTable, walks: Sequence[Walk], policy: SplitPolicy) -> None:
        self._table, self._policy = table, policy
        self._lock = threading.Lock()
        self._estimate = Estimate(table)
        self._last: Row | None = None
        self._probing = Probing(table, walks, self._estimate)

    @property
    def now(self) -> Conditions:
        """The conditions as they are by what was seen."""
        return self._estimate.now

    @property
    def probed_bytes(self) -> int:
        """The payload of all requests that were sent only to learn of the link."""
        return self._probing.sent_bytes

    def choose(self, within_s: float) -> int:
        """The number of the row for an answer that is wanted within so many seconds."""
        self._probing.wake(self._last)
        with self._lock:
            number = self._policy.choose(self._estimate.now, within_s=within_s)
            self._last = self._table.rows[number]
        return number

    def learn(self, answer: Answer, trip: Trip) -> None:
        """Take notice of an answer and of what was seen on its way."""
        assert answer.row is not None, "it was chosen here"
        edge_s = answer.elapsed_s if trip.edge_s is None else trip.edge_s
        self._estimate.learn(self._table.rows[answer.row], trip, edge_s)
        with self._lock:
            self._policy.learn(answer.row, answer)

    def heal(self) -> None:
        """The server is back: try it at once."""
        self._probing.heal()

    def close(self) -> None:
        """Probe no more."""
        self._probing.close()
