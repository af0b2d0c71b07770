"""What a run's net costs beside its dense parent: storage, multiplications, time and energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from presplit.core import units
from presplit.core.tables import Column
from presplit.report.run_facts import Layer, RunFacts
from presplit.report.scales import share
from presplit.report.sections import Section, Table

OTHER_DEVICES = (
    "Times on another device, and where to cut there: presplit export, presplit measure, and the "
    "report of the bundle."
)
STATE_VALUES = {"adam": 2, "adamw": 2, "sgd": 1}
"""Numbers that an optimiser keeps for each weight."""


def costs_section(facts: RunFacts) -> Section | None:
    """The table of what the net costs beside its dense parent; None where no net could be built."""
    made = facts.made
    if made is None:
        return None
    weights = sum(layer.weights for layer in made.layers)
    dense = sum(layer.dense_weights for layer in made.layers)
    macs, dense_macs = macs_of(made.layers)
    optimiser = facts.spec.training.optimiser
    rows = [
        _against("weights", weights, dense, units.count),
        _against("weights as float32", 4 * weights, 4 * dense, units.data),
    ]
    if optimiser in STATE_VALUES:
        each = 4 * STATE_VALUES[optimiser]
        rows.append(_against(f"what {optimiser} keeps", each * weights, each * dense, units.data))
    rows.append(_against("MACs for a sample", macs, dense_macs, units.count))
    timed = facts.timed
    if timed is not None:
        dense_s = timed.dense_s or timed.seconds
        rows.append(_against("time for a sample here", timed.seconds, dense_s, units.seconds))
    joules = energy_of(facts)
    if joules is not None and facts.device is not None:
        words = f"energy on {facts.device.name}, an estimate"
        rows.append(_against(words, *joules, units.joules))
    columns = (
        Column("what", "what", str, text=True),
        Column("dense", "dense parent", str),
        Column("here", "this net", str),
        Column("share", "share", share),
    )
    if not made.sparse:
        lead = "The net is dense: every connection exists."
        columns = (columns[0], columns[2])
        return Section("What it costs", lead, tables=[Table(rows, columns)], note=_note(facts))
    return Section(
        "What it costs against the dense parent",
        "The dense parent is the same net with every connection. What does not exist is not "
        "stored, not multiplied, and has no state in the optimiser.",
        tables=[Table(rows, columns)],
        note=_note(facts),
    )


def energy_of(facts: RunFacts) -> tuple[float, float] | None:
    """The joules of a sample on ``facts.device``, an estimate: this net's, and its dense parent's.

    Watts times time, as in a plan from counted costs, so that the report of the bundle says the
    same. None where the watts are not known.
    """
    device, made = facts.device, facts.made
    if device is None or made is None or not device.power_w:
        return None
    macs, dense_macs = macs_of(made.layers)
    return device.counted_j(macs), device.counted_j(dense_macs)


def _note(facts: RunFacts) -> str:
    """What the numbers rest on."""
    sentences = ["Early exits are counted too.", _time_note(facts), _energy_note(facts)]
    return " ".join(filter(None, [*sentences, facts.untimed, OTHER_DEVICES]))


def _time_note(facts: RunFacts) -> str:
    timed = facts.timed
    if timed is None:
        return ""
    both = " Both nets were run in turn." if timed.dense_s else ""
    how = timed.how.get("engine", "")
    return f"Time: the median of {how}, on {timed.processor}.{both}"


def _energy_note(facts: RunFacts) -> str:
    device = facts.device
    if device is None:
        return ""
    if energy_of(facts) is None:
        return f"Energy is left out: of {device.name} no watts are known, power=3 says them."
    return (
        f"Energy: the {device.power_w:g} W of {device.name} under load times the time there, which "
        "is counted from multiplications; --device names another."
    )


def macs_of(layers: Sequence[Layer]) -> tuple[int, int]:
    """The MACs of a sample in all ``layers``, and what they would be with every connection."""
    return sum(each.macs for each in layers), sum(each.dense_macs for each in layers)


def _against(what: str, here: float, dense: float, show: Any) -> dict[str, Any]:
    return {
        "what": what,
        "dense": show(dense),
        "here": show(here),
        "share": here / dense if dense else None,
    }
