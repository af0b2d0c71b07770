"""Fixed: one row for ever, to compare with."""

from __future__ import annotations

from presplit.core.plans import Conditions, PlanTable
from presplit.core.types import Answer


class Fixed:
    """The row that is the best under the table's usual conditions, whatever comes."""

    def __init__(self, table: PlanTable) -> None:
        self._row = table.best(table.usual)

    def choose(self, now: Conditions, *, within_s: float) -> int:
        """The same row as always."""
        return self._row

    def learn(self, row: int, answer: Answer) -> None:
        """Nothing is learned."""
