"""A plan in words and numbers, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from presplit.core import units
from presplit.core.plans import Estimate, Plan, PlanTable
from presplit.core.tables import Column, table
from presplit.core.types import Net
from presplit.plan.scenario import PLAIN

Show = Callable[[Estimate], str]

AT_GATEWAY = "at the gateway"
"""The column that is shown only where a gateway answers."""

_COLUMNS: tuple[tuple[str, Show], ...] = (
    ("mean", lambda e: units.seconds(e.mean_s)),
    ("p50", lambda e: units.seconds(e.p50_s)),
    ("p99", lambda e: units.seconds(e.p99_s)),
    ("accuracy", lambda e: units.percent(e.accuracy)),
    ("on the edge", lambda e: units.percent(e.edge_share)),
    (AT_GATEWAY, lambda e: units.percent(e.gateway_share)),
    ("sent", lambda e: units.data(e.up_bytes)),
    ("energy", lambda e: units.joules(e.energy_j) if e.energy_j else "unknown"),
    ("edge MACs", lambda e: units.count(e.macs)),
)


def explain(plan: Plan, *, net: Net | None = None) -> str:
    """Plain text: what the plan does, what is expected of it, why it won, and what else there is.

    ``net`` adds the name of the boundary.

    >>> expected = Estimate(
    ...     mean_s=0.0101, p50_s=0.004, p99_s=0.031, accuracy=0.985, edge_share=0.7,
    ...     up_bytes=60.0, energy_j=0.02, macs=1.5e6, how="counted", in_time=0.999,
    ...     samples=500, accuracy_low=0.97, accuracy_high=0.989,
    ... )
    >>> print(explain(Plan(2, {"early": 0.9}, "int8", deadline_s=0.05, expected=expected)))
    Split at boundary 2, sent as int8.
    An answer is given early by exit 'early' when its confidence is at least 0.9000.
    Deadline: 50 ms, kept by 99.90 % of the answers.
    Accuracy 98.50 % (97.00 to 98.90 on 500 held-out samples).
    <BLANKLINE>
             mean   p50    p99  accuracy  on the edge  sent  energy  edge MACs
    ----  -------  ----  -----  --------  -----------  ----  ------  ---------
    plan  10.1 ms  4 ms  31 ms   98.50 %      70.00 %  60 B   20 mJ      1.5 M
    <BLANKLINE>
    All is for one sample. Times of computing are counted, the link is as its profile or its
    measurement says, energy is what the device's watts give.
    """
    lines = [_headline(plan, net), *_rules(plan), *_gateway(plan, net)]
    expected = plan.expected
    if plan.deadline_s is not None:
        kept = ""
        if expected is not None and expected.in_time is not None:
            kept = f", kept by {units.percent(expected.in_time)} of the answers"
        lines.append(f"Deadline: {units.seconds(plan.deadline_s)}{kept}.")
    if expected is None:
        return "\n".join(lines)
    if expected.samples:
        low, high = f"{100 * expected.accuracy_low:.2f}", f"{100 * expected.accuracy_high:.2f}"
        lines.append(
            f"Accuracy {units.percent(expected.accuracy)} ({low} to {high} on "
            f"{expected.samples:,} held-out samples)."
        )
    lines += [*expected.why, "", compared({"plan": expected, **expected.beside})]
    return "\n".join(
        [
            *lines,
            "",
            f"All is for one sample. Times of computing are {expected.how}, the link is as its "
            "profile or its",
            "measurement says, energy is what the device's watts give.",
        ]
    )


def compared(shown: Mapping[str, Estimate]) -> str:
    """A table with a line for each of these ways, what it takes and gives for one sample."""
    rows = [
        {"way": name, **{title: show(each) for title, show in _COLUMNS}}
        for name, each in shown.items()
    ]
    columns = [Column(title, title, str) for title, _ in _COLUMNS]
    if not any(each.gateway_share for each in shown.values()):
        columns = [column for column in columns if column.key != AT_GATEWAY]
    return table(rows, [Column("way", "", str, text=True), *columns])


def named(plan: Plan) -> str:
    """A plan in a few words.

    >>> named(Plan(2, {"early": 0.9}, "int8"))
    'split 2, int8, early >= 0.9'
    """
    rules = [f"{name} >= {threshold:.4g}" for name, threshold in plan.thresholds.items()]
    alone = plan.expected is not None and plan.expected.all_edge
    forms = [] if (plan.form, plan.server_form) == (PLAIN, PLAIN) else [f"edge in {plan.form}"]
    if forms and not alone:
        forms.append(f"server in {plan.server_form}")
    way = ["all on the edge"] if alone else [f"split {plan.split}", plan.codec]
    return ", ".join([*way, *forms, *rules])


def told_table(found: PlanTable, turns: Sequence[tuple[float, int]]) -> str:
    """The rows of a table, and from which rate on each is the best where all else is as planned."""
    lines = ["Plans to change between as conditions change:"]
    lines += [f"  {number}. {named(row.plan)}" for number, row in enumerate(found.rows, 1)]
    lines.append("With the round trip, the device and the server as planned:")
    for up_bps, row in turns:
        lines.append(f"  from {units.rate(up_bps)} up: {named(found.rows[row].plan)}")
    return "\n".join(lines)


def _headline(plan: Plan, net: Net | None) -> str:
    """Where the split is, or that there should be none."""
    expected = plan.expected
    all_edge = expected is not None and expected.all_edge
    if all_edge or (net is not None and plan.split == net.last):
        return f"Do not split: the edge answers everything (split {plan.split})."
    if plan.split == 0 and not plan.thresholds and plan.gateway is None:
        return (
            "Do not split: the server answers everything (split 0, the input sent as "
            f"{plan.codec})."
        )
    where = f"Split at {_place(plan.split, net)}, sent as {plan.codec}."
    if (plan.form, plan.server_form) != ("float32", "float32"):
        other = "server" if plan.gateway is None else "gateway"
        where += f" The edge computes in {plan.form}, the {other} in {plan.server_form}."
    if expected is not None and expected.edge_share == 1:
        where += " Every held-out sample was answered before it; what is not goes on there."
    return where


def _place(split: int, net: Net | None) -> str:
    """A boundary, with its name if the net is known."""
    return f"boundary {split}" + (
        "" if net is None else f" ({net.boundaries[split].name}) of 0..{net.last}"
    )


def _rules(plan: Plan) -> list[str]:
    """One line for each exit that may answer early."""
    return [
        f"An answer is given early by exit {name!r} when its {plan.policy} is at least "
        f"{threshold:.4f}."
        for name, threshold in plan.thresholds.items()
    ]


def _gateway(plan: Plan, net: Net | None) -> list[str]:
    """What the gateway does, and one line for each of its exits that may answer."""
    does, expected = plan.gateway, plan.expected
    if does is None:
        return []
    rules = [
        f"There an answer is given by exit {name!r} when its {plan.policy} is at least "
        f"{threshold:.4f}."
        for name, threshold in does.thresholds.items()
    ]
    if (does.split, does.codec) == (plan.split, plan.codec):
        return ["The gateway passes that on to the server as it is."]
    all_there = expected is not None and expected.edge_share + expected.gateway_share > 1 - 1e-9
    if all_there and not does.thresholds:
        return ["The gateway answers everything that reaches it; the server is not asked."]
    where = "re-encodes it" if does.split == plan.split else f"goes on to {_place(does.split, net)}"
    told = f"The gateway {where}, sent to the server as {does.codec}."
    if does.server_form != plan.server_form:
        told += f" The server computes in {does.server_form}."
    return [told, *rules]
