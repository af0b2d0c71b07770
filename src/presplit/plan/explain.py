"""A plan in words and numbers, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from presplit.core import units
from presplit.core.plans import Estimate, Plan
from presplit.core.tables import Column, table
from presplit.core.types import Net

_ROWS: tuple[tuple[str, Callable[[Estimate], str]], ...] = (
    ("mean time", lambda e: units.seconds(e.mean_s)),
    ("p50 time", lambda e: units.seconds(e.p50_s)),
    ("p99 time", lambda e: units.seconds(e.p99_s)),
    ("accuracy", lambda e: units.percent(e.accuracy)),
    ("answered on the edge", lambda e: units.percent(e.edge_share)),
    ("sent per sample", lambda e: units.data(e.up_bytes)),
    ("edge energy per sample", lambda e: units.joules(e.energy_j) if e.energy_j else "unknown"),
    ("edge MACs per sample", lambda e: units.count(e.macs)),
)


def explain(
    plan: Plan, *, net: Net | None = None, baselines: Mapping[str, Plan] | None = None
) -> str:
    """Plain text: what the plan does, what is expected of it, and whether to split at all.

    ``net`` adds the name of the boundary; ``baselines`` (see `presplit.plan.baselines`) adds a
    column for each.

    >>> expected = Estimate(
    ...     mean_s=0.0101, p50_s=0.004, p99_s=0.031, accuracy=0.985, edge_share=0.7,
    ...     up_bytes=60.0, energy_j=0.02, macs=1.5e6, how="counted",
    ... )
    >>> print(explain(Plan(2, {"early": 0.9}, "int8", deadline_s=0.05, expected=expected)))
    Split at boundary 2, sent as int8.
    An answer is given early by exit 'early' when its confidence is at least 0.9000.
    Deadline: 50 ms.
    <BLANKLINE>
                               plan
    ----------------------  -------
    mean time               10.1 ms
    p50 time                   4 ms
    p99 time                  31 ms
    accuracy                98.50 %
    answered on the edge    70.00 %
    sent per sample            60 B
    edge energy per sample    20 mJ
    edge MACs per sample      1.5 M
    <BLANKLINE>
    Times of computing are counted; the link is its profile's, without jitter, loss or queues, \
and energy is
    what the profiles' watts give; accuracy is on held-out samples.
    """
    lines = [_headline(plan, net), *_rules(plan)]
    if plan.deadline_s is not None:
        lines.append(f"Deadline: {units.seconds(plan.deadline_s)}.")
    beside = baselines or {}
    if beside:
        lines += _gain(plan, beside)
    shown = {
        name: p.expected for name, p in {"plan": plan, **beside}.items() if p.expected is not None
    }
    if shown:
        lines += ["", _columns(shown)]
    if plan.expected is not None:
        how = plan.expected.how
        lines += [
            "",
            f"Times of computing are {how}; the link is its profile's, without jitter, loss or "
            "queues, and energy is",
            "what the profiles' watts give; accuracy is on held-out samples.",
        ]
    return "\n".join(lines)


def _headline(plan: Plan, net: Net | None) -> str:
    """Where the split is, or that there should be none."""
    expected = plan.expected
    all_edge = expected is not None and expected.all_edge
    if all_edge or (net is not None and plan.split == net.last):
        return f"Do not split: the edge answers everything (split {plan.split})."
    if plan.split == 0 and not plan.thresholds:
        return (
            "Do not split: the server answers everything (split 0, the input sent as "
            f"{plan.codec})."
        )
    place = f"boundary {plan.split}"
    if net is not None:
        place += f" ({net.boundaries[plan.split].name}) of 0..{net.last}"
    where = f"Split at {place}, sent as {plan.codec}."
    if expected is not None and expected.edge_share == 1:
        where += " Every held-out sample was answered before it; what is not goes on there."
    return where


def _rules(plan: Plan) -> list[str]:
    """One line for each exit that may answer early."""
    return [
        f"An answer is given early by exit {name!r} when its {plan.policy} is at least "
        f"{threshold:.4f}."
        for name, threshold in plan.thresholds.items()
    ]


def _gain(plan: Plan, baselines: Mapping[str, Plan]) -> list[str]:
    """How the plan's mean time compares with each baseline's."""
    if plan.expected is None:
        return []
    own = plan.expected.mean_s
    told: list[str] = []
    for name, other in baselines.items():
        if other.expected is None or own == 0:
            continue
        ratio = other.expected.mean_s / own
        times = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
        told.append(
            f"as fast as {name}" if abs(ratio - 1) < 0.005 else f"{times} times as fast as {name}"
        )
    return [f"On average it is {' and '.join(told)}."] if told else []


def _columns(shown: Mapping[str, Estimate]) -> str:
    """A table with one row for each number and one column for each plan."""
    rows = [
        {"what": title, **{name: show(expected) for name, expected in shown.items()}}
        for title, show in _ROWS
    ]
    columns = [Column("what", "", str, text=True), *(Column(name, name, str) for name in shown)]
    return table(rows, columns)
