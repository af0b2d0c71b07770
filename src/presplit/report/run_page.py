"""The report of a run: what was trained, how good it is, what it costs, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from presplit.core import units
from presplit.core.shares import interval
from presplit.core.spec import spec_json
from presplit.core.tables import Column
from presplit.report.charts import Series, chart
from presplit.report.markup import Html, element, joined
from presplit.report.pictures import MOST, pictures
from presplit.report.run_costs import costs_section, macs_of
from presplit.report.run_facts import Layer, Made, RunFacts, said
from presplit.report.run_worth import class_section, exits_section, usual_row
from presplit.report.scales import Axis, share
from presplit.report.sections import Figure, Section, Table, data_table
from presplit.report.strip import strip

SHORT = 10
"""Epochs that are marked one by one; of more, the line says enough."""


def run_title(facts: RunFacts) -> str:
    """The heading of the page."""
    return f"Run {facts.spec.name}"


def run_lead(facts: RunFacts) -> str:
    """One sentence: what was trained on what, and how often it is right."""
    result = facts.result
    kind = "sparse" if facts.spec.sparsity else "dense"
    *early, last = result["accuracy"]
    exits = f" with {len(early)} early exit{'s' if len(early) > 1 else ''}" if early else ""
    of = ""
    if "samples" in result:
        low, high = interval(result["accuracy"][last], result["samples"]["test"])
        of = (
            f" of {units.count(result['samples']['test'])} test samples"
            f" ({100 * low:.2f} to {units.percent(high)} with 95 % confidence)"
        )
    right = units.percent(result["accuracy"][last])
    return f"A {kind} net{exits}, trained on {result['data']}: right in {right}{of}."


def run_highlights(facts: RunFacts) -> dict[str, str]:
    """What a reader is to see first."""
    result, found = facts.result, dict[str, str]()
    found["Accuracy"] = units.percent([*result["accuracy"].values()][-1])
    usual = usual_row(result)
    if usual and "accuracy" in usual:
        early = units.percent(sum([*usual["shares"].values()][:-1]))
        found[f"With exits, {early} answered early"] = units.percent(usual["accuracy"])
    if result.get("is_uneven"):
        balanced = [*result["balanced_accuracy"].values()][-1]
        found["Accuracy, every class alike"] = units.percent(balanced)
    found["Weights"] = units.count(result["weights"])
    if facts.made and facts.made.sparse:
        dense = sum(layer.dense_weights for layer in facts.made.layers)
        found["Of the dense net's weights"] = share(result["weights"] / dense)
        macs, all_macs = macs_of(facts.made.layers)
        found["Of the dense net's MACs"] = share(macs / all_macs) if all_macs else "unknown"
    if facts.timed is not None and facts.timed.dense_s:
        found["Of the dense net's time, here"] = share(
            round(facts.timed.seconds / facts.timed.dense_s, 3)
        )
    if facts.epochs:
        many = "s" if len(facts.epochs) > 1 else ""
        seconds = units.seconds(sum(each["seconds"] for each in facts.epochs))
        found["Trained"] = f"{len(facts.epochs)} epoch{many}, {seconds}"
    return found


def run_sections(facts: RunFacts) -> list[Section]:
    """Every section that the run's files have something for."""
    sections = [
        _net_section(facts),
        exits_section(facts.result),
        _training_section(facts),
        class_section(facts.result),
        costs_section(facts),
        _patterns_section(facts.made),
        _origin_section(facts),
    ]
    return [section for section in sections if section is not None]


def _net_section(facts: RunFacts) -> Section:
    lead = (
        "The net is a row of segments. Between two of them lies a boundary, where it can be cut: "
        "its shape, and the bytes that would travel there. The bar below a segment shows its share "
        "of the multiplications (MACs) against the largest."
    )
    made = facts.made
    if made is None:
        return Section("The net", f"Its parts are not shown: {facts.unknown}")
    usual = usual_row(facts.result)
    note = ""
    if usual:
        note = (
            "The shares are those of test samples that each exit answers with thresholds that lose "
            f"at most {100 * usual['goal']['max_drop']:g} points of accuracy on the held-out ones."
        )
    drawn = strip(made.net, made.segments, shares=usual["shares"] if usual else None)
    layers = element("details", element("summary", "Its layers"), _layers(made.layers))
    return Section("The net", lead, html=joined(drawn, layers), note=note)


def _layers(layers: Sequence[Layer]) -> Html:
    columns = (
        Column("name", "layer", str, text=True),
        Column("size", "size", str, text=True),
        Column("pattern", "pattern", str, text=True),
        Column("weights", "weights"),
        Column("dense", "if dense"),
        Column("macs", "MACs"),
    )
    rows = [
        {
            "name": each.name,
            "size": each.size,
            "pattern": each.pattern,
            "weights": each.weights,
            "dense": each.dense_weights,
            "macs": each.macs,
        }
        for each in layers
    ]
    return data_table(Table(rows, columns))


def _training_section(facts: RunFacts) -> Section | None:
    epochs = facts.epochs
    if not epochs:
        return None
    names = [*facts.result["accuracy"]]
    numbers = [each["number"] for each in epochs]
    is_short = len(epochs) <= SHORT
    loss = [Series("this net", numbers, [each["loss"] for each in epochs], marks=is_short)]
    right = [
        Series(name, numbers, [each["accuracy"][place] for each in epochs], marks=is_short)
        for place, name in enumerate(names)
        if all(place < len(each["accuracy"]) for each in epochs)
    ]
    if facts.parent_epochs:
        before = [each["number"] for each in facts.parent_epochs]
        own = [each["accuracy"][-1] for each in facts.parent_epochs if each["accuracy"]]
        right.append(Series("dense parent", before[: len(own)], own, dashed=True, hue=8))
    axis = Axis("epoch", whole=True, low=1, high=max(2, len(epochs), len(facts.parent_epochs)))
    figures = [
        Figure(
            "Loss",
            "What training makes small, of all exits together; down is better.",
            chart(loss, x=axis, y=Axis("loss", low=0)),
        ),
        Figure(
            "Accuracy while training",
            "On the held-out samples, which are not trained on; up is better.",
            chart(right, x=axis, y=Axis("accuracy", share)),
        ),
    ]
    lead = "An epoch is one pass over all samples to train with."
    if facts.parent_epochs:
        lead += " The dense parent was trained first, and this net learned from its answers."
    return Section("How it was trained", lead, figures=figures)


def _patterns_section(made: Made | None) -> Section | None:
    if made is None or not made.sparse:
        return None
    more = f" The first {MOST} of {len(made.sparse)} layers." if len(made.sparse) > MOST else ""
    return Section(
        "Which connections exist",
        "One row for each tile of outputs, one column for each input; a dot is a connection. They "
        f"were chosen before training and never change.{more}",
        html=pictures(made.sparse),
    )


def _origin_section(facts: RunFacts) -> Section:
    origin = facts.origin
    versions = {name: v for name, v in origin.items() if name not in ("command", "machine", "date")}
    listed = {
        "Seed": str(facts.spec.seed),
        "Made on": origin.get("date", "not recorded"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Machine": origin.get("machine", "not recorded"),
    }
    rows = [{"key": key, "value": _shown(value)} for key, value in said(facts.spec).items()]
    columns = (Column("key", "key", str, text=True), Column("value", "value", str, text=True))
    whole = element(
        "details",
        element("summary", "The whole spec"),
        element("pre", spec_json(facts.spec).decode(), class_="wrap"),
    )
    command = origin.get("command", "not recorded: the run is older than that")
    return Section(
        "Where it comes from",
        "The spec, the seed and the data make the run again.",
        html=joined(
            element("h3", "Command"),
            element("pre", command, class_="wrap"),
            data_table(Table(rows, columns, "What the spec says beyond the defaults")),
            whole,
            _details(listed),
        ),
    )


def _details(listed: Mapping[str, str]) -> Html:
    rows = [{"what": what, "value": value} for what, value in listed.items()]
    columns = (Column("what", "what", str, text=True), Column("value", "value", str, text=True))
    return data_table(Table(rows, columns, "How it was made"))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
