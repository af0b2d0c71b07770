"""What a run's net costs beside its dense parent: storage and multiplications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from presplit.core import units
from presplit.core.tables import Column
from presplit.report.run_facts import Layer, RunFacts
from presplit.report.scales import share
from presplit.report.sections import Section, Table

AS_COUNTED = (
    "Early exits are counted too. How long it takes and what energy it needs depends on the "
    "device: presplit export, presplit measure, and the report of the bundle say that."
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
    columns = (
        Column("what", "", str, text=True),
        Column("dense", "dense parent", str),
        Column("here", "this net", str),
        Column("share", "share", share),
    )
    if not made.sparse:
        lead = "The net is dense: every connection exists."
        columns = (columns[0], columns[2])
        return Section("What it costs", lead, tables=[Table(rows, columns)], note=AS_COUNTED)
    return Section(
        "What it costs against the dense parent",
        "The dense parent is the same net with every connection. What does not exist is not "
        "stored, not multiplied, and has no state in the optimiser.",
        tables=[Table(rows, columns)],
        note=AS_COUNTED,
    )


def macs_of(layers: Sequence[Layer]) -> tuple[int, int]:
    """The MACs of a sample in all ``layers``, and what they would be with every connection."""
    return sum(each.macs for each in layers), sum(each.dense_macs for each in layers)


def _against(what: str, here: int, dense: int, show: Any) -> dict[str, Any]:
    return {
        "what": what,
        "dense": show(dense),
        "here": show(here),
        "share": here / dense if dense else None,
    }
