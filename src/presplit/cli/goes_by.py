"""What ``presplit run`` goes by: one plan or a table of them, and what its engines are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from presplit.cli.options import plan_with, say
from presplit.core.errors import PlanError, context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presplit.bundle import Bundle
    from presplit.core.plans import Plan, PlanTable
    from presplit.runtime.engines import Load


def goes_by(
    bundle: Bundle,
    *,
    dynamic: bool | None,
    split: int | None,
    codec: str | None,
    threshold: list[str],
    deadline_s: float | None,
    forms: Mapping[str, str | None],
) -> tuple[Plan | None, PlanTable | None]:
    """The plan, or the table that it chooses from; the other one is None.

    Raises `PlanError` if it should choose and cannot.
    """
    given = split is not None or bool(codec or threshold or any(forms.values()))
    if _chooses(bundle, dynamic, given=given):
        return None, bundle.table
    if split is not None and not threshold and bundle.plan and bundle.plan.thresholds:
        say(
            f"--split {split}: the plan's thresholds belong to its split {bundle.plan.split}; none "
            "is used here"
        )
    plan = plan_with(
        bundle,
        split=split,
        codec=codec,
        threshold=threshold,
        deadline_s=deadline_s,
        forms=forms,
    )
    return plan, None


def _chooses(bundle: Bundle, dynamic: bool | None, *, given: bool) -> bool:
    """True if a row of the bundle's table is chosen before each answer.

    ``given`` is True if options say what the plan is. Raises `PlanError` if ``dynamic`` cannot be.
    """
    if dynamic and given:
        raise PlanError(
            "--dynamic chooses the plan itself: leave --split, --codec, --threshold and forms out"
        )
    if dynamic and bundle.table is None:
        raise PlanError(
            f"{bundle.path}: carries no table to choose from; make one with presplit plan --table "
            "--save"
        )
    if dynamic is None:
        return bundle.table is not None and not given
    return dynamic


def load_of(slow: float | None, *, steady: bool) -> Load:
    """What makes the engines: those of this machine, or slower ones."""
    from presplit.runtime.engines import DEFAULT, ENGINES

    if slow is None:
        return ENGINES[DEFAULT]
    from presplit.lab.slow_device import Slowed

    with context("--slow"):
        return Slowed(slow, steady=steady)
