"""The ways that the demo compares: how slow the device is, what each way does, which one won.

The device is this machine, made so many times as slow that the dense net takes what its profile
says. What the parts of our net take is measured here and stretched likewise; from that the planner
chooses, as it would for any device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from presplit.bundle import Bundle
from presplit.core import units
from presplit.core.cost import edge_macs
from presplit.core.costs import Costs, Device, Parts
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.core.times import NOTHING, Times
from presplit.core.types import Floats, Runnable
from presplit.lab.slow_device import warm_s
from presplit.plan.beside import choice
from presplit.plan.choose import Mask
from presplit.plan.evaluate import Block
from presplit.plan.limits import Limits
from presplit.plan.scenario import BYTES_PER_WEIGHT, scenario

CUT = "bottleneck"
"""The submodule after which the net is cut where nobody plans."""
DENSE = ("dense-edge", "dense-int8-edge", "dense-server")
"""What one would do without Presplit."""
OURS = ("edge", "server", "split", "split+exit")
WAYS = (*DENSE, *OURS, "split+exit+outage")
ASKED_ROUNDS = 20
INT8 = "int8"
SAVED = 4
"""How many times fewer bytes than the image itself are asked of a plan: sending costs energy."""


@dataclass(frozen=True)
class Slowness:
    """The device that the edge stands for, and how many times as slow as this machine it is."""

    device: Device
    factor: float

    def told(self) -> str:
        """Both in words."""
        memory = f"{units.data(self.device.memory_bytes)} for weights"
        name = f"a {self.device.name.partition(',')[0]}"
        if "=" in name:  # it has no name, only numbers
            name = f"{units.count(self.device.macs_per_s)} multiply-accumulates a second"
        return f"this machine slowed {self.factor:,.0f}x, about {name} with {memory}"


def slowness(dense: Bundle, device: Device) -> Slowness:
    """How slow ``device`` is: the dense net is to take what its multiplications take there.

    A device that is faster than this machine is as fast as it.
    """
    here_s = _engine_s(dense, dense.runnable(0, dense.net.last), 0)
    macs = sum(part.macs for part in dense.manifest.segments)
    there_s = device.counted_s(macs)
    return Slowness(device, min(10_000.0, max(1.0, there_s / here_s)))


def plain_plans(dense: Bundle, ours: Bundle, deadline_s: float) -> dict[str, Plan]:
    """The plans that need no planner; ours splits at the narrow place."""
    names = [boundary.name for boundary in ours.net.boundaries]
    cut = max(number for number, name in enumerate(names) if name.startswith(CUT))
    plans = {"dense-edge": Plan(dense.net.last)}
    if INT8 in dense.forms:
        plans["dense-int8-edge"] = Plan(dense.net.last, form=INT8)
    plans |= {
        "dense-server": Plan(0, codec=_input_codec(dense)),
        "edge": Plan(ours.net.last),
        "server": Plan(0, codec=_input_codec(ours)),
        "split": Plan(cut, codec=INT8),
    }
    return {
        way: msgspec.structs.replace(plan, deadline_s=deadline_s) for way, plan in plans.items()
    }


def _input_codec(bundle: Bundle) -> str:
    """How images are sent: 8 bits a value, or as PNG where that is less."""
    there = [name for name in (INT8, "png") if name in bundle.manifest.ports[0].encodings]
    return min(there, key=lambda name: bundle.payload_bytes(0, name))


def planned(
    ours: Bundle,
    slow: Slowness,
    link: Link,
    *,
    sample: Floats,
    measured_s: float,
    max_drop: float,
    deadline_s: float,
) -> tuple[Plan, Plan, Limits]:
    """The planner's choice, its choice among plans that split and let an exit answer, the limits.

    Mostly both plans are the same. At most `most_bytes` may be sent and ``max_drop`` of the
    accuracy lost; where no plan keeps to that, the bytes are free, then the accuracy too. What is
    held out is too little here for a promise with confidence, so the samples are believed as they
    are. Raises `PlanError` if nothing fits the device.
    """
    from presplit.plan.choose import why_none

    edge, server = costs(ours, slow, sample, measured_s)
    found = scenario(
        ours,
        device=slow.device,
        link=link,
        server=slow.device,  # its costs are measured, so no number of it is used
        edge_costs=edge,
        server_costs=server,
    )
    asked = Limits(max_drop=max_drop, confidence=None, max_up_bytes=most_bytes(ours)).checked()
    free = asked.merged(max_up_bytes=None), asked.merged(max_up_bytes=None, max_drop=1.0)
    for limits in (asked, *free):
        best = choice(found, limits)
        if best is not None:
            both = choice(found, limits, _splits_with_an_exit) or best
            plans = best.plan(deadline_s=deadline_s), both.plan(deadline_s=deadline_s)
            return *plans, limits
    raise why_none(found, free[-1])


def most_bytes(bundle: Bundle) -> float:
    """What a plan may send for an answer on average: a part of what the image itself takes."""
    return bundle.payload_bytes(0, _input_codec(bundle)) / SAVED


def _splits_with_an_exit(block: Block) -> Mask | bool:
    if not 0 < block.split < block.found.net.last:
        return False
    sure: Mask = np.any(np.isfinite(block.head.weights.thresholds), axis=1)
    return sure


def costs(ours: Bundle, slow: Slowness, sample: Floats, measured_s: float) -> tuple[Costs, Costs]:
    """What our net's parts take on the slowed edge and on the server, which is this machine."""
    from presplit.runtime.measuring.asking import asking_s
    from presplit.runtime.measuring.measure import time_parts
    from presplit.runtime.measuring.rounds import kept

    here = time_parts(ours, seconds=measured_s, sample=sample)
    here = msgspec.structs.replace(
        here, device="this machine", ask_s=kept(asking_s(rounds=ASKED_ROUNDS))
    )
    edge = msgspec.structs.replace(
        here,
        device=slow.device.name,
        forms={form: _steady(ours, form).scaled(slow.factor) for form in ours.forms},
        power_w=slow.device.power_w,
    )
    return edge, here


def _steady(ours: Bundle, form: str) -> Parts:
    """What each stretch takes here when it is run again and again: the slowed edge's pace."""
    net = ours.net

    def took_s(start: int, stop: int, early: Sequence[str] = ()) -> float:
        return _engine_s(ours, ours.runnable(start, stop, exits=early, form=form), start)

    heads = [took_s(0, stop) for stop in range(1, net.last + 1)]
    tails = [took_s(start, net.last) for start in range(net.last)]
    exits = [
        max(0.0, took_s(0, exit_.after, [exit_.name]) - heads[exit_.after - 1])
        for exit_ in net.exits[:-1]
    ]
    return Parts(
        (NOTHING, *map(Times.of, heads)),
        (*map(Times.of, tails), NOTHING),
        (*map(Times.of, exits), NOTHING),
    )


def _engine_s(bundle: Bundle, runnable: Runnable, start: int) -> float:
    """The median seconds of a run in a row of others, here."""
    from presplit.runtime.engines import DEFAULT, ENGINES

    engine = ENGINES[DEFAULT](runnable, 1)
    zeros = np.zeros((1, *bundle.net.boundaries[start].shape), np.float32)
    return warm_s(lambda: engine.run({runnable.input: zeros}))


def row(
    way: str, bundle: Bundle, plan: Plan, answers: Sequence[Mapping[str, Any]], hits: Sequence[bool]
) -> dict[str, Any]:
    """One row of the table: what the edge process said, and how many of all answers are right."""
    count = len(answers)
    elapsed = sorted(answer["elapsed_s"] for answer in answers)
    sure_macs, asked_macs = _macs(bundle, plan)
    macs = [sure_macs if answer["why"] == "confident" else asked_macs for answer in answers]
    return {
        "way": way,
        "accuracy": sum(hits) / len(hits),
        "edge_share": sum(answer["where"] == "edge" for answer in answers) / count,
        "mean_s": sum(elapsed) / count,
        "p50_s": elapsed[math.ceil(0.5 * count) - 1],
        "p99_s": elapsed[math.ceil(0.99 * count) - 1],
        "up_bytes": sum(answer["up_bytes"] for answer in answers) / count,
        "edge_bytes": _edge_bytes(bundle, plan),
        "edge_macs": sum(macs) / count,
    }


def _macs(bundle: Bundle, plan: Plan) -> tuple[int, int]:
    """What the edge computes for a sample that leaves at the first exit, and one that does not."""
    manifest, net = bundle.manifest, bundle.net
    parts = [manifest.exits.get(exit_.name) for exit_ in net.exits]
    found = edge_macs(
        net,
        split=plan.split,
        used=plan.thresholds,
        segment_macs=[part.macs for part in manifest.segments],
        exit_macs=[part.macs if part else 0 for part in parts],
    )
    return found[0], found[-1]


def _edge_bytes(bundle: Bundle, plan: Plan) -> int:
    """The weights that the way needs on the edge, without those that only hold an answer."""
    manifest, net = bundle.manifest, bundle.net
    weights = sum(part.weights for part in manifest.segments[: plan.split])
    for exit_ in net.exits_up_to(plan.split):
        part = manifest.exits.get(exit_.name)
        if part is not None and exit_.name in plan.thresholds:
            weights += part.weights
    return weights * BYTES_PER_WEIGHT[plan.form]


def verdict(rows: Sequence[Mapping[str, Any]], way: str, device: Device) -> str:
    """One sentence: how the planned ``way`` compares with the best dense one, by the mean time.

    The best is one that ``device`` has the memory for.
    """
    by_way, large = {each["way"]: each for each in rows}, too_large(rows, device)
    dense = [each for each in rows if each["way"] in DENSE and each["way"] not in large]
    best = min(dense, key=lambda each: each["mean_s"])
    ours = by_way[way]
    ratio, median = best["mean_s"] / ours["mean_s"], best["p50_s"] / ours["p50_s"]
    right = f"accuracy {100 * ours['accuracy']:.2f} % against {100 * best['accuracy']:.2f} %"
    if ratio <= 1:
        return (
            f"As planned ({way}) it does not pay here: {best['way']} is {1 / ratio:.1f}x as fast "
            f"on average; {right}."
        )
    times = f"{ratio:.1f}x as fast on average as the best dense way that fits, {best['way']}"
    return (
        f"As planned ({way}): {times}, {median:.1f}x in the median, {_sent(ours, best)}; {right}."
    )


def _sent(ours: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """How the bytes sent compare."""
    if not best["up_bytes"]:
        return f"{ours['up_bytes']:.3g} bytes sent an answer instead of none"
    if not ours["up_bytes"]:
        return f"no bytes sent instead of {best['up_bytes']:.3g} an answer"
    ratio = best["up_bytes"] / ours["up_bytes"]
    if ratio < 1:
        return f"{1 / ratio:.1f}x as many bytes sent"
    return f"{ratio:.3g}x fewer bytes sent"


def too_large(rows: Sequence[Mapping[str, Any]], device: Device) -> list[str]:
    """The ways whose weights the device does not hold."""
    return [each["way"] for each in rows if each["edge_bytes"] > device.memory_bytes]
