"""What the planner expects of one plan, in the parts that it sums: for a page to draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from presplit.core.errors import SpecError
from presplit.core.plans import Estimate, Plan
from presplit.lab.view.opened import UNKNOWN
from presplit.lab.view.place import Asked, Places
from presplit.plan.choose import with_fallback
from presplit.plan.evaluate import Block
from presplit.plan.limits import Limits
from presplit.plan.parts import End, block_of, ends, parts, quantiles
from presplit.plan.scenario import Scenario

LEVELS = np.array([0.01, *np.arange(0.025, 0.976, 0.025), 0.99]).round(3)
"""Shares at which the distribution of times is told."""
ONE = np.array([0])


def predict(places: Places, wish: Asked) -> dict[str, Any]:
    """What is expected of the plan that is asked for, as values for JSON.

    What does not go together is brought to what does (a codec that is not there at this split), and
    ``plan`` says what was taken. Raises `SpecError` for a name or a split that does not exist.
    """
    found = places.scenario(wish)
    block = block_of(found, plan_of(found, wish))
    plan = with_fallback(block.plans(ONE, deadline_s=wish.deadline_s)[0], found, Limits())
    assert plan.expected is not None, "what is evaluated has an estimate"
    return {
        "plan": told(plan),
        "times": _times(block, plan.expected),
        "parts": [{"name": part.name, "of": part.of, "s": part.seconds} for part in parts(block)],
        "ends": [_end(each) for each in ends(block)],
        "accuracy": _accuracy(places, plan.expected),
        "up_bytes": plan.expected.up_bytes,
        "payload_bytes": 0.0 if block.way is None else block.way.up_bytes,
        "edge_share": plan.expected.edge_share,
        "energy_j": _energy(found, plan.expected),
        "memory_bytes": int(block.weights_bytes[0]),
        "fits": bool(block.weights_bytes[0] <= found.memory_bytes),
        "how": found.how,
    }


def plan_of(found: Scenario, wish: Asked) -> Plan:
    """The plan that is asked for, with what does not go together brought to what does.

    Raises `SpecError` for a split that does not exist.
    """
    net = found.net
    if wish.split > net.last:
        raise SpecError(f"split: expected one in 0..{net.last}, got {wish.split}")
    form = wish.form if wish.form in found.forms else "float32"
    ways = found.ways(wish.split, form)
    wanted = (wish.codec, form if wish.split == net.last else wish.server_form)
    order = [wanted, (wish.codec, "float32"), ("float32", form), *ways]
    codec, server_form = next(way for way in order if way in ways)
    passed = [exit_.name for exit_ in found.early if exit_.after <= wish.split]
    thresholds = {name: wish.exits[name] for name in passed if name in wish.exits}
    return Plan(wish.split, thresholds, codec, form=form, server_form=server_form)


def told(plan: Plan) -> dict[str, Any]:
    """What the page's controls show of ``plan``."""
    return {
        "split": plan.split,
        "exits": dict(plan.thresholds),
        "codec": plan.codec,
        "form": plan.form,
        "server_form": plan.server_form,
    }


def _times(block: Block, expected: Estimate) -> dict[str, Any]:
    return {
        "mean_s": expected.mean_s,
        "p50_s": expected.p50_s,
        "p99_s": expected.p99_s,
        "in_time": expected.in_time,
        "shares": LEVELS.tolist(),
        "quantiles_s": quantiles(block, LEVELS.tolist()),
    }


def _end(end: End) -> dict[str, Any]:
    return {
        "exit": end.exit,
        "where": end.of,
        "share": end.share,
        "p50_s": end.times.quantile(0.5),
    }


def _accuracy(places: Places, expected: Estimate) -> dict[str, Any]:
    kind = places.net.accuracy
    if kind == UNKNOWN:
        return {"kind": kind}
    return {
        "kind": kind,
        "value": expected.accuracy,
        "low": expected.accuracy_low,
        "high": expected.accuracy_high,
        "samples": expected.samples,
    }


def _energy(found: Scenario, expected: Estimate) -> float | None:
    """Joules of a sample on the device; None where its watts are not known."""
    return None if found.edge.energy == "unknown" else expected.energy_j
