"""Whether a manifest is of one piece, and whether a plan fits what a bundle has."""

from __future__ import annotations

from pathlib import Path

from presplit.bundle.golden import GOLDEN
from presplit.bundle.manifest import Manifest
from presplit.core.errors import BundleError, SpecError, context
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


def check_consistent(manifest: Manifest, file: Path) -> None:
    """Raise `BundleError` unless segments, ports, exits and files belong to the net."""
    net = manifest.net
    early = [e.name for e in net.exits if e.after < net.last]
    files = {part.file for part in (*manifest.segments, *manifest.exits.values())}
    files |= {part.file for form in manifest.forms.values() for part in form.parts}
    counts = {len(manifest.segments)} | {len(form.segments) for form in manifest.forms.values()}
    ends = {len(manifest.ports)}
    ends |= {len(each) for form in manifest.forms.values() for each in (form.enter, form.leave)}
    exits = [manifest.exits, *(form.exits for form in manifest.forms.values())]
    if manifest.validation is not None:
        files |= manifest.validation.files
    if (
        counts != {net.last}
        or ends != {net.last + 1}
        or any(sorted(each) != sorted(early) for each in exits)
        or files != set(manifest.files) - {GOLDEN}
    ):
        raise BundleError(
            f"{file}: segments, ports, exits and files do not belong to its net; export the bundle "
            "again"
        )
    try:
        all_fit(manifest.plan, manifest.table, manifest)
    except SpecError as error:
        raise BundleError(f"{file}: {error}") from error
