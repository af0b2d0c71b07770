"""The planner's choice where the page stands: what `presplit plan` would take there."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from presplit.core.errors import PlanError
from presplit.lab.view.opened import KNOWN
from presplit.lab.view.place import Asked, Places
from presplit.lab.view.predict import told
from presplit.plan.limits import Limits
from presplit.plan.search import choose as best_of


def first(places: Places, wish: Asked, limits: Limits) -> Asked:
    """``wish`` with the planner's choice there; with the fastest plan where none keeps to limits.

    Where no plan at all fits, ``wish`` is as it was.
    """
    for tried, kept in ((wish, limits), (msgspec.structs.replace(wish, deadline_s=None), Limits())):
        with contextlib.suppress(PlanError):
            return msgspec.structs.replace(wish, **choose(places, tried, kept)["plan"])
    return wish


def choose(places: Places, wish: Asked, limits: Limits) -> dict[str, Any]:
    """The best plan on the device and link that are asked for, by the deadline if there is one.

    Where nothing is known of accuracy no exit may answer: it would be a guess. Raises `PlanError`
    with the nearest numbers if no plan keeps to ``limits``.
    """
    kept = limits.merged(deadline_s=wish.deadline_s)
    if wish.deadline_s is None:
        kept = kept.merged(reliability=Limits().reliability)
    if places.net.accuracy != KNOWN:
        kept = kept.merged(confidence=None, max_drop=0.0, min_accuracy=None)
    plan = best_of(places.scenario(wish), kept)
    assert plan.expected is not None, "what is chosen has an estimate"
    return {"plan": told(plan), "mean_s": plan.expected.mean_s}
