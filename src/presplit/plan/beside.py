"""What else one could do, beside the plan: the ways that need no planner, and why the plan won.

All on the edge, all on the server with the raw input or by any codec of it, and the same with the
dense net where its bundle is given, besides its best single split without exits, which is what
Neurosurgeon (ASPLOS 2017) finds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from presplit.core import units
from presplit.core.plans import Estimate, Plan
from presplit.plan.cautious import cautious, judging
from presplit.plan.choose import Choice, Keep, everything, fastest, room
from presplit.plan.evaluate import Block
from presplit.plan.limits import Limits
from presplit.plan.risk import fewest
from presplit.plan.scenario import PLAIN, Scenario
from presplit.plan.tiers import Tiered, every


def choice(found: Scenario, limits: Limits, keep: Keep = everything) -> Choice | None:
    """The best plan under ``limits``, promised or plain as they say; None if there is none."""
    if limits.confidence is None:
        return fastest(found, limits, keep=keep)
    return cautious(found, limits, keep=keep)


def ways(
    found: Scenario, *, deadline_s: float | None = None, dense: Scenario | None = None
) -> dict[str, Plan]:
    """What one would do without a planner, whether or not it keeps to any limit.

    The names: ``all-edge``, ``all-edge int8``, ``all-server``, ``all-server CODEC``, the same of a
    gateway if there is one; those of the net that ``dense`` describes begin with ``dense``, and
    ``dense split`` is its fastest split.
    """
    named = dict(_alone(found))
    if dense is not None:
        named |= {f"dense {name}": block for name, block in _alone(dense)}
        splits = [b for b in _without_exits(dense) if 0 < b.split < dense.net.last]
        if splits:
            named["dense split"] = min(splits, key=_mean_s)
    rows = np.array([0])
    return {name: block.plans(rows, deadline_s=deadline_s)[0] for name, block in named.items()}


def _without_exits(found: Scenario) -> Iterable[Block]:
    """Every split and codec, no exit answering."""
    return every(found, [np.array([], np.float32)] * len(found.early))


def _mean_s(block: Block) -> float:
    return float(block.mean_s[0])


def _alone(found: Scenario) -> Iterable[tuple[str, Block]]:
    """The blocks in which the edge or the server does everything."""
    for block in _without_exits(found):
        form = block.head.form
        if block.split == found.net.last:
            yield ("all-edge" if form == PLAIN else f"all-edge {form}"), block
        elif block.split == 0 and form == PLAIN and (who := _who(block)):
            tail = "" if block.server_form == PLAIN else f" in {block.server_form}"
            codec = "" if block.codec == PLAIN else f" {block.codec}"
            yield f"all-{who}{codec}{tail}", block


def _who(block: Block) -> str:
    """Who computes all that is behind the edge's split; "" where two do."""
    if not isinstance(block, Tiered) or block.passes_on:
        return "server"
    return "" if block.asks_on else "gateway"


def told(found: Scenario, best: Choice, limits: Limits, others: Mapping[str, Plan]) -> Plan:
    """The plan of ``best`` with the reasons why it won and what stands beside it."""
    plan = best.plan(deadline_s=limits.deadline_s, limits=limits)
    assert plan.expected is not None
    why = (
        *_gain(found, limits, plan.expected, others),
        *_runner_up(found, best, limits),
        *_binding(found, best, limits),
        *_caution(found, best, limits),
    )
    beside = {name: other.expected for name, other in others.items() if other.expected is not None}
    expected: Estimate = msgspec.structs.replace(plan.expected, why=why, beside=beside)
    return msgspec.structs.replace(plan, expected=expected)


def _gain(
    found: Scenario, limits: Limits, expected: Estimate, others: Mapping[str, Plan]
) -> list[str]:
    """How the plan's mean time compares with all on the edge and with the input sent.

    Of either the fastest is meant that is at least as accurate as the plan, or as float32 is; and
    of those on the edge one that fits there, if any does.
    """
    memory = room(found, limits)
    small = {n: p for n, p in others.items() if found.whole_bytes(p.form) <= memory}
    edge = _fastest("all-edge", small, expected.accuracy)
    note = "" if edge else ", which does not fit there"
    edge = edge or _fastest("all-edge", others, expected.accuracy)
    server = _fastest("all-server", others, expected.accuracy)
    words = [_ratio(expected, *edge) + note] if edge else []
    words += [_ratio(expected, *server)] if server else []
    between = ", and " if note else " and "
    return [f"On average it is {between.join(words)}."] if words else []


def _fastest(way: str, others: Mapping[str, Plan], accuracy: float) -> tuple[str, Estimate] | None:
    """The fastest of ``others`` that go this way; None if there is none."""
    named = {name: each.expected for name, each in others.items() if name.split()[0] == way}
    known = {name: each for name, each in named.items() if each is not None}
    plain = known.get(way)
    least = accuracy if plain is None else min(accuracy, plain.accuracy)
    right = [(name, each) for name, each in known.items() if each.accuracy >= least - 1e-9]
    return min(right, key=lambda pair: pair[1].mean_s, default=None)


def _ratio(expected: Estimate, name: str, other: Estimate) -> str:
    """How fast the plan is beside the way called ``name``.

    >>> slow, fast = (Estimate(s, s, s, 1, 1, 0, 0, 0, "counted") for s in (0.3, 0.001))
    >>> _ratio(fast, "all-server", slow), _ratio(slow, "all-edge", fast)
    ('300 times as fast as all-server', '300 times slower than all-edge')
    """
    least, most = sorted((expected.mean_s, other.mean_s))
    if most <= least * 1.005:
        return f"as fast as {name}"
    if least == 0:
        return f"{'slower than' if expected.mean_s else 'faster than'} {name}, which takes no time"
    times = f"{most / least:,.0f}" if most >= 100 * least else f"{most / least:.3g}"
    words = "slower than" if expected.mean_s > other.mean_s else "as fast as"
    return f"{times} times {words} {name}"


def _runner_up(found: Scenario, best: Choice, limits: Limits) -> list[str]:
    """What the best plan with another split lost."""
    splits = _splits(best.block)
    other = choice(found, limits, lambda block: _splits(block) != splits)
    if other is None:
        return ["No plan with another split keeps to all limits."]
    plan = other.plan(deadline_s=None)
    assert plan.expected is not None
    more = plan.expected.mean_s - best.rank[0]
    lost = "as fast" if more <= 1e-12 else f"{units.seconds(more)} slower on average"
    return [f"The next best plan with another split, {_named(plan, other.block)}, is {lost}."]


def _splits(block: Block) -> tuple[int, ...]:
    """Where the net is cut: once, or with a gateway twice."""
    return (block.split, block.onward.split) if isinstance(block, Tiered) else (block.split,)


def _named(plan: Plan, block: Block) -> str:
    """A plan in a few words."""
    exits = f" with {units.counted(len(plan.thresholds), 'exit')}" if plan.thresholds else ""
    if not block.asks:
        return f"all on the edge{exits}"
    named = f"split {plan.split} sent as {plan.codec}{exits}"
    if plan.gateway is None:
        return named
    return f"{named}, then split {plan.gateway.split} sent as {plan.gateway.codec}"


def _binding(found: Scenario, best: Choice, limits: Limits) -> list[str]:
    """Which limits the plan would be faster without."""
    lifted: dict[str, Limits] = {}
    if limits.deadline_s is not None:
        lifted["the deadline"] = limits.merged(deadline_s=None, reliability=0.99)
    for name, field in (
        ("the energy", "max_energy_j"),
        ("the memory", "max_memory_bytes"),
        ("the bytes", "max_up_bytes"),
    ):
        if getattr(limits, field) is not None:
            lifted[name] = limits.merged(**{field: None})
    lifted["the accuracy"] = limits.merged(max_drop=1.0, min_accuracy=None, confidence=None)
    lines: list[str] = []
    for name, fewer in lifted.items():
        freer = choice(found, fewer)
        if freer is not None and freer.rank[0] < best.rank[0] * (1 - 1e-9):
            lines.append(f"{name} ({units.seconds(freer.rank[0])})")
    roomy = choice(dataclasses.replace(found, memory_bytes=float("inf")), limits)
    if roomy is not None and roomy.rank[0] < best.rank[0] * (1 - 1e-9):
        lines.append(f"the device's memory ({units.seconds(roomy.rank[0])})")
    return [f"It would be faster without the limit of {', '.join(lines)}."] if lines else []


def _caution(found: Scenario, best: Choice, limits: Limits) -> list[str]:
    """What the promise of accuracy rests on, and what caution costs."""
    if limits.confidence is None:
        return ["The accuracy is that of the held-out samples, believed as they are: no promise."]
    lines: list[str] = []
    if limits.drop is not None:
        lines.append(
            f"With a confidence of {limits.confidence:g} at most {100 * limits.drop:g} points of "
            "accuracy are lost."
        )
        needs = fewest(limits.drop, limits.confidence)
        judges = judging(found.samples, limits)
        if judges < needs <= 2**52:
            lines.append(
                f"{found.samples:,} held-out samples are few: {judges:,} of them judge, and "
                f"{needs:,} without a single loss are needed before an exit or a lossy codec can "
                "be trusted so far; so the plan is cautious."
            )
    plain = fastest(found, limits)
    if plain is not None and plain.rank[0] < best.rank[0] * (1 - 1e-9):
        lines.append(
            f"Believing the samples as they are (confidence none) would give a plan of "
            f"{units.seconds(plain.rank[0])} on average, without a promise."
        )
    return lines
