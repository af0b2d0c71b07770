"""Whether a plan fits what a bundle has."""

from __future__ import annotations

from presplit.bundle.manifest import Manifest
from presplit.core.errors import SpecError, context
from presplit.core.plans import Plan, PlanTable

PLAIN = "float32"
"""The form in which every bundle has its net."""


def fits(plan: Plan, manifest: Manifest) -> None:
    """Raise `SpecError` unless split, exits, codec and forms of ``plan`` are there."""
    plan.fits(manifest.net)
    forms = (PLAIN, *manifest.forms)
    for field, form in (("form", plan.form), ("server_form", plan.server_form)):
        if form not in forms:
            raise SpecError(f"{field}: no {form!r} here; there are: {', '.join(forms)}")
    offered = manifest.ports[plan.split].encodings
    if plan.split < manifest.net.last and plan.codec not in offered:
        raise SpecError(
            f"codec: boundary {plan.split} has no {plan.codec!r}; there are: {', '.join(offered)}"
        )
    if plan.gateway is not None:
        second = plan.gateway
        own = Plan(second.split, codec=second.codec, server_form=second.server_form)
        with context("gateway"):
            fits(own, manifest)


def all_fit(plan: Plan | None, table: PlanTable | None, manifest: Manifest) -> None:
    """Raise `SpecError` unless ``plan`` and every row of ``table`` fit, as `fits` says."""
    if plan is not None:
        with context("plan"):
            fits(plan, manifest)
    for number, row in enumerate(() if table is None else table.rows):
        with context(f"table: row {number}"):
            fits(row.plan, manifest)
