"""The report of a bundle: how it is cut, where the time of an answer goes, what else there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from presplit.bundle import Bundle
from presplit.core import units
from presplit.core.errors import BundleError
from presplit.core.link import Link
from presplit.core.plans import Estimate, Plan, PlanTable
from presplit.core.tables import Column
from presplit.plan.explain import named
from presplit.plan.parts import Part, answers, block_of, parts, quantiles
from presplit.plan.scenario import Scenario
from presplit.report.bundle_offers import codecs_section, table_section
from presplit.report.charts import Rule, Series, chart
from presplit.report.markup import Html, element, joined
from presplit.report.scales import Axis, share
from presplit.report.sections import Figure, Section, Table, data_table
from presplit.report.strip import strip

LEVELS = [0.001, *np.arange(0.02, 0.99, 0.02).round(2).tolist(), 0.99, 0.995, 0.999]
"""Shares of answers at which the spread of times is drawn."""
MOST_LABELS = 20
"""Classes that are named; of more, it is said how many."""
FAR = 4
"""A deadline beyond so many times the longest answers is said, not drawn."""
TONES = {"edge": (1, 6, 3), "link": (5, 7, 8), "server": (2, 4)}
"""Hues of the parts of a time, by whose they are."""


HOW = {
    "measured": "Times of computing are measured.",
    "counted": "Times of computing are counted from multiplications: a guess, until presplit "
    "measure has measured them on the device and the server.",
}


@dataclass(frozen=True)
class BundleFacts:
    """A bundle with the plan that is shown, and where it is to run.

    ``place`` says on which device, link and server; ``found`` is the scenario there, None where
    nothing could be planned, for the reason ``unknown``. ``notes`` are sentences for the reader.
    ``is_guessed``: nobody said the place, and the plan does not say for which one it was made.
    """

    bundle: Bundle
    plan: Plan | None
    table: PlanTable | None
    found: Scenario | None
    place: str
    link: Link | None
    unknown: str = ""
    notes: Sequence[str] = ()
    is_guessed: bool = False


def bundle_lead(facts: BundleFacts) -> str:
    """One sentence: what the bundle is, and what its plan does."""
    net = facts.bundle.net
    early = len(net.exits) - 1
    exits = f" and {early} early exit{'s' if early > 1 else ''}" if early else ""
    what = f"A net of {net.last} segments{exits}, ready for an edge and a server."
    if facts.plan is None:
        return f"{what} It has no plan yet: {facts.unknown}"
    guess = " That place is a guess: the plan does not say where it was made for."
    return f"{what} {facts.place}: {named(facts.plan)}.{guess if facts.is_guessed else ''}"


def bundle_highlights(facts: BundleFacts) -> dict[str, str]:
    """What a reader is to see first."""
    expected = facts.plan.expected if facts.plan else None
    manifest = facts.bundle.manifest
    if expected is None or facts.plan is None:
        pieces = [*manifest.segments, *manifest.exits.values()]
        return {
            "Weights": units.count(sum(part.weights for part in pieces)),
            "MACs for a sample": units.count(sum(part.macs for part in pieces)),
            "Files": units.data(sum(file.bytes for file in manifest.files.values())),
        }
    found = {
        "Half of the answers within": units.seconds(expected.p50_s),
        "99 of 100 within": units.seconds(expected.p99_s),
    }
    if facts.plan.deadline_s is not None and expected.in_time is not None:
        late = f"In time for {units.seconds(facts.plan.deadline_s)}"
        found[late] = units.percent(expected.in_time)
    found["Accuracy"] = units.percent(expected.accuracy)
    found["Answered on the device"] = units.percent(expected.edge_share)
    found["Sent for an answer"] = units.data(expected.up_bytes)
    if expected.energy_j:
        found["Energy for an answer"] = units.joules(expected.energy_j)
    return found


def bundle_sections(facts: BundleFacts) -> list[Section]:
    """Every section that there is something for."""
    sections = [
        _net_section(facts),
        _time_section(facts),
        _beside_section(facts.plan),
        table_section(facts.table, facts.link, facts.bundle.net.last),
        codecs_section(facts.bundle, facts.plan),
        _origin_section(facts.bundle),
    ]
    return [section for section in sections if section is not None]


def _net_section(facts: BundleFacts) -> Section:
    manifest, plan = facts.bundle.manifest, facts.plan
    segments = [(part.macs, part.weights) for part in manifest.segments]
    shares, payload = None, "not cut: all on the device"
    if plan is not None and facts.found is not None and plan.gateway is None:
        shares = answers(block_of(facts.found, plan))
    if plan is not None and plan.split < facts.bundle.net.last:
        payload = f"sent as {plan.codec}: {_bytes(facts.bundle, plan.split, plan.codec)}"
    lead = (
        "The net is a row of segments. Between two of them lies a boundary, where it can be cut: "
        "its shape, and the bytes that would travel there as they are. The bar below a segment "
        "shows its share of the multiplications (MACs) against the largest."
    )
    split = None if plan is None else plan.split
    drawn = strip(facts.bundle.net, segments, shares=shares, split=split, payload=payload)
    note = "The shares are those of held-out samples that each exit answers." if shares else ""
    return Section("The net, and where it is cut", lead, html=drawn, note=note)


def _bytes(bundle: Bundle, boundary: int, codec: str) -> str:
    try:
        return units.data(bundle.payload_bytes(boundary, codec))
    except BundleError:
        return "bytes vary"


def _time_section(facts: BundleFacts) -> Section | None:
    plan, found = facts.plan, facts.found
    if plan is None or found is None or plan.gateway is not None:
        return None
    block = block_of(found, plan)
    listed, total = parts(block), float(block.mean_s[0])
    levels = [0.5, 0.9, 0.99, 0.999]
    times = {
        f"{100 * level:g} % within": units.seconds(seconds)
        for level, seconds in zip(levels, quantiles(block, levels), strict=True)
    }
    return Section(
        "Where the time of an answer goes",
        f"{units.seconds(total)} on average over all answers, those that an early exit gives at "
        f"once too. {HOW.get(found.how, found.how)}",
        facts=times,
        html=_stacked(listed, total),
        figures=[_spread(plan, quantiles(block, LEVELS))],
        note=" ".join(
            [f"{facts.place}. What only some samples need counts by how many these are."]
            + [*facts.notes]
        ),
    )


def _stacked(listed: Sequence[Part], total: float) -> Html:
    """The parts as one bar, and what each colour means."""
    seen = dict.fromkeys(TONES, 0)
    pieces: list[Html] = []
    words: list[Html] = []
    for part in listed:
        tones = TONES[part.of]
        hue = f"--hue:var(--h{tones[min(seen[part.of], len(tones) - 1)]})"
        seen[part.of] += 1
        pieces.append(element("span", style=f"--part:{part.seconds / total:.4f};{hue}"))
        told = (
            f"{part.name}: {units.seconds(part.seconds)} ({share(round(part.seconds / total, 3))})"
        )
        words.append(element("li", f"{told}, {part.of}", style=hue))
    bar = element("div", *pieces, class_="bar", role="img", aria_label="Parts of the mean time")
    return joined(bar, element("ul", *words, class_="key"))


def _spread(plan: Plan, seconds: Sequence[float]) -> Figure:
    rules: list[Rule] = []
    caption = "The share of answers that are there by each time; a step is many answers at once."
    deadline = plan.deadline_s
    if deadline is not None and deadline <= FAR * seconds[-1]:
        rules.append(Rule(f"deadline {units.seconds(deadline)}", x=deadline))
    elif deadline is not None:
        caption += f" The deadline, {units.seconds(deadline)}, lies far to the right."
    drawn = chart(
        [Series("answers", seconds, LEVELS, steps=True)],
        x=Axis("time of an answer", units.seconds, low=0),
        y=Axis("answers that are there", share, low=0, high=1),
        rules=rules,
    )
    return Figure("How times are spread", caption, drawn)


BY_CODEC = ("all-server ", "dense all-server ")
WAYS = (
    Column("way", "way", str, text=True),
    Column("mean_s", "mean", units.seconds),
    Column("p50_s", "half within", units.seconds),
    Column("p99_s", "99 % within", units.seconds),
    Column("in_time", "in time", units.percent),
    Column("accuracy", "accuracy", units.percent),
    Column("edge_share", "on the device", units.percent),
    Column("up_bytes", "sent", units.data),
    Column("energy_j", "energy", units.joules),
    Column("macs", "MACs on the device", units.count),
)


def _beside_section(plan: Plan | None) -> Section | None:
    expected = plan.expected if plan else None
    if plan is None or expected is None:
        return None
    rows = [_way(f"the plan: {named(plan)}", expected)]
    rows += [_way(name, each) for name, each in _told(expected.beside).items()]
    columns = [column for column in WAYS if any(row.get(column.key) for row in rows)]
    reasons = [element("li", sentence) for sentence in expected.why]
    return Section(
        "What else one could do",
        "All is for one sample, on average. all-edge runs the whole net on the device, all-server "
        "sends every input as it is, or by a codec.",
        html=element("ul", *reasons) if reasons else Html(""),
        tables=[Table(rows, columns, "Ways compared", frozenset({0}))],
    )


def _told(beside: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The ways that differ: of those that send the input by a codec, the fastest alone."""
    kept = {name: each for name, each in beside.items() if not _by_codec(name)}
    for start in BY_CODEC:
        alike = [name for name in beside if name.startswith(start)]
        fastest = min(alike, key=lambda name: beside[name].mean_s, default=None)
        if fastest is not None:
            kept[fastest] = beside[fastest]
    return kept


def _by_codec(name: str) -> bool:
    return name.startswith(BY_CODEC)


def _way(name: str, expected: Estimate) -> dict[str, Any]:
    return {
        "way": name,
        **{field: getattr(expected, field) for field in (column.key for column in WAYS[1:])},
    }


def _origin_section(bundle: Bundle) -> Section:
    manifest = bundle.manifest
    stored = sum(file.bytes for file in manifest.files.values())
    listed = {
        "Name": manifest.name,
        "Hash of all that computes": manifest.model_hash,
        "Made": manifest.created,
        "Versions": ", ".join(f"{name} {each}" for name, each in manifest.versions.items()),
        "Forms": ", ".join(bundle.forms),
        "Files": f"{len(manifest.files)}, {units.data(stored)}",
    }
    if manifest.validation is not None:
        listed["Held-out samples"] = units.count(manifest.validation.samples)
    if manifest.labels:
        more = len(manifest.labels) - MOST_LABELS
        rest = f" and {more:,} more" if more > 0 else ""
        listed["Classes"] = f"{', '.join(manifest.labels[:MOST_LABELS])}{rest}"
    rows = [{"what": what, "value": value} for what, value in listed.items()]
    columns = (Column("what", "what", str, text=True), Column("value", "value", str, text=True))
    parts = [data_table(Table(rows, columns, "What it is"))]
    if manifest.spec is not None:
        raw = msgspec.json.format(msgspec.json.encode(manifest.spec), indent=2).decode()
        summary = element("summary", "The spec that it was trained by")
        parts.append(element("details", summary, element("pre", raw, class_="wrap")))
    return Section("Where it comes from", html=joined(*parts))
