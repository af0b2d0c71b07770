"""Table: the row with the least mean time, left only when that pays.

Source: dynamic split computing (arXiv 2205.11269), which takes the best split for the rate that is
seen. What differs: a row is a whole plan, with exits, codec and form; the conditions are also the
round trip, the server and the device; and what is seen is uncertain, so a row is left when what
other rows would have saved adds up. Where the edge computes an answer of its own while it waits, a
request that takes long costs no more than that, and one that is quick saves all: not knowing
speaks for asking.
"""

from __future__ import annotations

import math
import time

import numpy as np
import numpy.typing as npt

from presplit.core.plans import Conditions, PlanTable
from presplit.core.types import Answer

Array = npt.NDArray[np.float64]

PATIENCE = 0.15
"""A row is left when the shares of time that others would have saved add up to so much.

So a row that is better by a sixth is taken at once, one that is better by a twentieth after three
answers; one that is better now and then, by chance, is not.
"""

BACK, BACK_S = 4.0, 2.0
"""So much more is needed to go back to the row that was left so many seconds ago: between two that
are about as good an edge would go to and fro."""
SPREAD = 1.6
"""A request takes as long as expected, so many times as long or as short, each as likely."""
WORTH = 0.03
"""Asking where it may be in vain must save such a share of the edge's time: it costs bytes."""


class Best:
    """The row with the least mean time among those that meet the deadline, if any does.

    ``patience`` is `PATIENCE`; with 0 the best row is taken each time. ``spread`` is `SPREAD`; with
    1 the conditions are taken for certain.
    """

    def __init__(
        self, table: PlanTable, *, patience: float = PATIENCE, spread: float = SPREAD
    ) -> None:
        self._patience = patience
        self._likely = np.array([[1 / spread], [1.0], [spread]])
        self._row = table.best(table.usual)
        self._missed = 0.0
        self._left, self._left_at = -1, 0.0
        rows = table.rows
        # Times are linear in the device's factor, the round trip, seconds a bit, the server's
        # factor, and a constant: the mean of all answers first, then those for which the server
        # is asked.
        ways = np.array([(0.0, 1.0, 8 * r.up_bytes, r.tail_s, r.ask_s) for r in rows])
        asked = np.array([r.asked for r in rows])
        self._weights = np.array([asked[:, None] * ways, (asked > 0)[:, None] * ways])
        self._heads_s = np.array([r.edge_s for r in rows])
        self._weights[:, :, 0] = self._heads_s
        own_s = np.array([math.inf if r.meanwhile_s is None else r.meanwhile_s for r in rows])
        races = np.isfinite(own_s)
        self._longest_s = np.where(races, asked * np.where(races, own_s, 0.0), math.inf)
        self._worth_s = np.where(races, WORTH * (self._heads_s + self._longest_s), 0.0)
        self._races = bool(races.any())

    def choose(self, now: Conditions, *, within_s: float) -> int:
        """The best row, or the one before, as long as it is nearly as good."""
        moment = (now.device_factor, now.rtt_s, 1 / now.up_bps, now.server_factor, 1.0)
        mean_s, longest_s = self._weights @ np.array(moment)
        if self._races:
            mean_s = self._first_of_both(mean_s, now.device_factor)
        fits = longest_s <= within_s
        if fits.any():
            mean_s = np.where(fits, mean_s, np.inf)
        best = int(mean_s.argmin())
        own_s, best_s = float(mean_s[self._row]), float(mean_s[best])
        if best_s == own_s:
            self._missed = 0.0
            return self._row
        # Infinite where the row before does not meet the deadline and another one does.
        self._missed += 1 - best_s / own_s
        if self._missed >= self._patience_for(best):
            self._left, self._left_at = self._row, time.monotonic()
            self._row, self._missed = best, 0.0
        return self._row

    def _patience_for(self, row: int) -> float:
        """What must be missed before that row is taken."""
        back = row == self._left and time.monotonic() - self._left_at < BACK_S
        return BACK * self._patience if back else self._patience

    def _first_of_both(self, mean_s: Array, device: float) -> Array:
        """The mean times where an answer here ends the waiting, and what asking in vain costs."""
        heads_s = device * self._heads_s
        way_s = (mean_s - heads_s) * self._likely
        waited_s = np.minimum(way_s, device * self._longest_s).mean(axis=0)
        return heads_s + waited_s + device * self._worth_s

    def learn(self, row: int, answer: Answer) -> None:
        """Nothing: the conditions hold what is to be known."""
