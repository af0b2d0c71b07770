"""What a page shows of an edge: a watcher that counts, and the edge's own word for the rest."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from presplit.bundle import Bundle
from presplit.core.errors import PresplitError
from presplit.core.plans import Plan, PlanTable
from presplit.core.types import Answer
from presplit.runtime.edge import DEFAULT_DEADLINE_S, Edge, plans_of
from presplit.runtime.live.lately import SENT, Key, Lately, shares
from presplit.runtime.live.picture import Pictures
from presplit.runtime.live.times import told
from presplit.runtime.live.words import EDGE

ON_SERVER: Key = ("where", "server")
DEGRADED: Key = ("what", "degraded")
MISSED: Key = ("what", "missed")
ALONE = "all stays on the edge, by the plan"
SINCE = "not asked since "
MOST_WHY = 200
"""Characters of a failure's own words that are shown."""


class EdgeLive:
    """Counts an edge's answers: it is the edge's watcher, ``Edge.open(watch=live)``.

    ``plan`` is what the edge goes by. ``deadline_s`` is that of its calls, if they give one.
    ``asked`` are the servers' addresses. ``pictures`` has the last image, where that is wished.
    """

    def __init__(
        self,
        bundle: Bundle,
        plan: Plan | PlanTable,
        *,
        deadline_s: float | None = None,
        asked: Sequence[str] = (),
        pictures: Pictures | None = None,
    ) -> None:
        self._bundle, self._plan = bundle, plan
        limits = [one.deadline_s for one in plans_of(plan) if one.deadline_s is not None]
        self.deadline_s = deadline_s or min(limits, default=DEFAULT_DEADLINE_S)
        self._asked, self.pictures = list(asked), pictures
        self._lately = Lately()
        self._last: Answer | None = None

    def __call__(self, answer: Answer) -> None:
        """Count one answer."""
        keys: list[Key] = [
            ("why", answer.why),
            ("exit", f"{answer.exit}, {answer.where}"),
            ("where", answer.where),
            ("plan", str(answer.row or 0)),
        ]
        if answer.degraded:
            keys.append(DEGRADED)
        if answer.elapsed_s > self.deadline_s:
            keys.append(MISSED)
        self._lately.add(answer.elapsed_s, *keys, sent_bytes=answer.up_bytes)
        self._last = answer

    def now(self, edge: Edge) -> dict[str, Any]:
        """All that is known at this moment, ready for JSON; ``docs/live.md`` says what is what."""
        recent, whole = self._lately.recent(), self._lately.kinds.copy()
        conditions = edge.conditions
        return {
            "kind": "edge",
            "name": self._bundle.manifest.name,
            "process": os.getpid(),
            "at": time.time(),
            "up_s": self._lately.up_s,
            "answers": self._lately.count,
            "per_s": recent.per_s,
            "deadline_s": self.deadline_s,
            "degraded": {"recent": recent.kinds[DEGRADED], "whole": whole[DEGRADED]},
            "missed": {"recent": recent.kinds[MISSED], "whole": whole[MISSED]},
            "times": told(self._lately, recent),
            "exits": shares("exit", recent.kinds, whole),
            "whys": shares("why", recent.kinds, whole, EDGE),
            "seconds": self._lately.seconds(ON_SERVER, DEGRADED),
            "boundaries": [
                {"name": each.name, "bytes": each.nbytes} for each in self._bundle.net.boundaries
            ],
            "plans": self._plans(recent.kinds, whole),
            "planned_for": self._planned_for(),
            "sent": self._sent(recent.kinds, whole),
            "link": None
            if conditions is None
            else {**structs.asdict(conditions), "heard": edge.is_heard},
            "servers": self._servers(edge),
            "counts": edge.counts,
            "said": edge.said,
            "energy": self._energy(whole),
            "picture": None if self.pictures is None else self.pictures.now(),
        }

    def _plans(self, recent: Counter[Key], whole: Counter[Key]) -> list[dict[str, object]]:
        """The rows that the edge chooses from, or its one plan, and how often each was taken."""
        found = list[dict[str, object]]()
        last = None if self._last is None else self._last.row or 0
        for number, plan in enumerate(plans_of(self._plan)):
            key = "plan", str(number)
            exits = {name: least for name, least in plan.thresholds.items() if math.isfinite(least)}
            found.append(
                {
                    "split": plan.split,
                    "at": self._bundle.net.boundaries[plan.split].name,
                    "codec": plan.codec,
                    "bytes": self._payload_bytes(plan),
                    "form": plan.form,
                    "server_form": plan.server_form,
                    "exits": exits,
                    "recent": recent[key],
                    "whole": whole[key],
                    "current": number == last,
                }
            )
        return found

    def _payload_bytes(self, plan: Plan) -> float | None:
        """What one sample takes at the plan's cut, encoded; None where that is not known."""
        if plan.split == self._bundle.net.last:
            return 0.0
        with contextlib.suppress(PresplitError):
            return self._bundle.payload_bytes(plan.split, plan.codec)
        return None

    def _sent(self, recent: Counter[Key], whole: Counter[Key]) -> dict[str, float]:
        """Bytes that were sent for an answer on average; most answers may have sent nothing."""
        lately = sum(count for key, count in recent.items() if key[0] == "why")
        return {
            "recent_bytes": recent[SENT] / max(1, lately),
            "whole_bytes": whole[SENT] / max(1, self._lately.count),
        }

    def _planned_for(self) -> str | None:
        """Where the plan was made to run, in words; a table is of the bundle's plan."""
        plan = self._bundle.plan if isinstance(self._plan, PlanTable) else self._plan
        known = None if plan is None else plan.planned_for
        return None if known is None else known.words

    def _servers(self, edge: Edge) -> list[dict[str, object]]:
        """Each server, and why it is not asked now, if so."""
        if all(one.split == self._bundle.net.last for one in plans_of(self._plan)):
            planned = {"asked": False, "why": ALONE, "silent_s": None}
            return [{"address": each, **planned} for each in self._asked]
        out, now = edge.not_asked, time.monotonic()
        found = list[dict[str, object]]()
        for each in self._asked:
            failed = out.get(each)
            found.append(
                {
                    "address": each,
                    "asked": failed is None,
                    "why": failed.detail.removeprefix(SINCE)[:MOST_WHY] if failed else "",
                    "silent_s": now - failed.at if failed else 0.0,
                }
            )
        return found

    def _energy(self, whole: Counter[Key]) -> dict[str, float] | None:
        """What the plans reckon that all answers took, in joules; None where they reckon nothing.

        It is an estimate: watts of the device and the radio, times what each plan takes on average.
        """
        if isinstance(self._plan, PlanTable):
            joules = [row.energy_j for row in self._plan.rows]
        else:
            expected = self._plan.expected
            joules = [0.0 if expected is None else expected.energy_j]
        total_j = sum(each * whole["plan", str(n)] for n, each in enumerate(joules))
        count = self._lately.count
        return {"total_j": total_j, "mean_j": total_j / count} if total_j and count else None
