"""What the planner expects of one plan, in the parts that it sums: for a page to draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.errors import SpecError
from presplit.core.plans import Estimate, Plan
from presplit.core.times import mixed_quantile
from presplit.core.types import Floats
from presplit.lab.view.opened import UNKNOWN
from presplit.lab.view.place import Asked, Places
from presplit.plan.choose import with_fallback
from presplit.plan.evaluate import Block, head_of, weighing
from presplit.plan.limits import Limits
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
    block = block_of(found, wish)
    plan = with_fallback(block.plans(ONE, deadline_s=wish.deadline_s)[0], found, Limits())
    assert plan.expected is not None, "what is evaluated has an estimate"
    return {
        "plan": told(plan),
        "times": _times(block, plan.expected),
        "parts": parts(found, block),
        "ends": _ends(found, block),
        "accuracy": _accuracy(places, plan.expected),
        "up_bytes": plan.expected.up_bytes,
        "payload_bytes": 0.0 if block.way is None else block.way.up_bytes,
        "edge_share": plan.expected.edge_share,
        "energy_j": _energy(found, plan.expected),
        "memory_bytes": int(block.weights_bytes[0]),
        "fits": bool(block.weights_bytes[0] <= found.memory_bytes),
        "how": found.how,
    }


def block_of(found: Scenario, wish: Asked) -> Block:
    """The one plan that is asked for, as the planner evaluates it."""
    net = found.net
    if wish.split > net.last:
        raise SpecError(f"split: expected one in 0..{net.last}, got {wish.split}")
    form = wish.form if wish.form in found.forms else "float32"
    ways = found.ways(wish.split, form)
    wanted = (wish.codec, form if wish.split == net.last else wish.server_form)
    order = [wanted, (wish.codec, "float32"), ("float32", form), *ways]
    codec, server_form = next(way for way in order if way in ways)
    grids = [_threshold(wish, exit_.name) for exit_ in found.early]
    weights = weighing(found, grids)(wish.split, form)
    travels = wish.split < net.last
    way = found.sent(wish.split, codec, server_form) if travels else None
    return Block(found, head_of(found, wish.split, form, weights), codec, server_form, way)


def told(plan: Plan) -> dict[str, Any]:
    """What the page's controls show of ``plan``."""
    return {
        "split": plan.split,
        "exits": dict(plan.thresholds),
        "codec": plan.codec,
        "form": plan.form,
        "server_form": plan.server_form,
    }


def parts(found: Scenario, block: Block) -> list[dict[str, Any]]:
    """The mean time of a sample in parts, each with what it is a part of."""
    asked = float(block.asked[0])
    own_s = found.edge.answer_s.mean_s
    listed = [("head", "edge", float(block.head.mean_s[0]) - own_s), ("edge's own", "edge", own_s)]
    if block.way is not None:
        encode, trip, ask, queue, decode, tail = block.way.steps
        sent = block.way.up_bytes + WIRE_BYTES
        up_s, down_s = found.link.up_s(sent), found.link.down_s(REPLY_BYTES)
        listed += [
            ("encode", "edge", asked * encode.mean_s),
            ("up", "link", asked * up_s),
            ("round trip", "link", asked * max(0.0, trip.mean_s - up_s - down_s)),
            ("down", "link", asked * down_s),
            ("messages", "link", asked * ask.mean_s),
            ("tail", "server", asked * (queue.mean_s + decode.mean_s + tail.mean_s)),
        ]
    return [{"name": name, "of": of, "s": max(0.0, s)} for name, of, s in listed]


def used(found: Scenario, block: Block) -> tuple[list[str], Floats]:
    """The exits at which samples may end, the last one for those that go on, and their shares."""
    subset = block.head.weights.subsets[int(block.head.weights.used[0])]
    names = [found.early[number].name for number in subset]
    shares = block.head.weights.shares[0][[*subset, -1]]
    return [*names, found.net.exits[-1].name], shares


def _times(block: Block, expected: Estimate) -> dict[str, Any]:
    number = int(block.head.weights.used[0])
    subset = block.head.weights.subsets[number]
    shares = block.head.weights.shares[:1][:, [*subset, -1]]
    draws = block.times(number)
    levels = [float(mixed_quantile(draws, shares, q)[0]) for q in LEVELS.tolist()]
    return {
        "mean_s": expected.mean_s,
        "p50_s": expected.p50_s,
        "p99_s": expected.p99_s,
        "in_time": expected.in_time,
        "shares": LEVELS.tolist(),
        "quantiles_s": levels,
    }


def _ends(found: Scenario, block: Block) -> list[dict[str, Any]]:
    """Each way that a sample can end: at which exit, how often, what it takes."""
    names, shares = used(found, block)
    draws = block.times(int(block.head.weights.used[0]))
    where = ["edge"] * len(names)
    if block.asks:
        where[-1] = "server"
    return [
        {"exit": name, "where": place, "share": float(share), "p50_s": each.quantile(0.5)}
        for name, place, share, each in zip(names, where, shares, draws, strict=True)
    ]


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


def _threshold(wish: Asked, name: str) -> Floats:
    """The one threshold to look at for an exit; none if it does not answer."""
    chosen = [wish.exits[name]] if name in wish.exits else []
    return np.array(chosen, np.float32)
