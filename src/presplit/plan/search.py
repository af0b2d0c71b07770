"""Exact search over split, thresholds and codec.

Evaluate every plan of the grid, keep what is allowed, take the best.

Source: Neurosurgeon (ASPLOS 2017) searches all splits of a chain, SPINN (arXiv 2008.06402) splits
and one threshold; here every exit has its own threshold, all are weighed jointly, and the codec is
searched too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from presplit.bundle import Bundle
from presplit.core import cost, units
from presplit.core.costs import Costs, Device
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.plan.evaluate import Block, evaluate
from presplit.plan.scenario import Scenario, scenario

ROUNDING = 1e-9
"""What sums of shares may be off: an accuracy so little below the floor is on it."""


def search(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    max_accuracy_drop: float = 0.005,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
) -> Plan:
    """The fastest plan that keeps the accuracy, the deadline and the device's memory.

    Of all plans whose p99 is at most ``deadline_s``, whose held-out accuracy is at most
    ``max_accuracy_drop`` (a share) below that of the net's own classifier, and whose head (its
    segments and the exits in use) fits the device's memory, it is the one with the least mean time.
    Equal times (to a picosecond) are decided by fewer bytes, then all on the edge (which needs no
    server for the sample that no exit is sure of), then the smaller split, then the higher
    accuracy.

    ``device``, ``link`` and ``server`` are names on the shelves of `presplit.profiles`, or objects;
    ``edge_costs`` and ``server_costs`` are measured costs that replace what would be counted.
    Raises `PlanError` with the nearest achievable numbers if there is no such plan.
    """
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
    )
    return choose(found, deadline_s=deadline_s, max_accuracy_drop=max_accuracy_drop)


def candidates(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
) -> list[Plan]:
    """Every plan that `search` weighs, feasible or not, each with what is expected of it."""
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
    )
    return plans(found, deadline_s=deadline_s)


def baselines(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
) -> dict[str, Plan]:
    """What one would do without splitting, whether or not it is feasible.

    ``all-edge`` runs the whole net on the device, ``all-server`` sends every input by the fastest
    codec; neither uses an early exit.
    """
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
    )

    def fastest(split: int) -> Plan:
        alike = [block for block in evaluate(found) if block.split == split and not block.exits]
        best = min(alike, key=lambda block: (block.mean_s[0], block.up_bytes[0]))
        return best.plan(0, policy=found.policy, how=found.how, deadline_s=deadline_s)

    return {"all-edge": fastest(found.net.last), "all-server": fastest(0)}


def choose(found: Scenario, *, deadline_s: float | None, max_accuracy_drop: float) -> Plan:
    """`search` in a scenario that is already at hand."""
    if deadline_s is not None and not deadline_s > 0:
        raise PlanError(f"deadline_s must be above 0, got {deadline_s}")
    if not 0 <= max_accuracy_drop <= 1:
        raise PlanError(f"max_accuracy_drop must be in 0..1, got {max_accuracy_drop}")
    latest = float("inf") if deadline_s is None else deadline_s
    least = float(found.hits[-1].mean()) - max_accuracy_drop
    blocks = list(evaluate(found))
    best: tuple[tuple[float, float, int, float], Block, int] | None = None
    for block in blocks:
        feasible = (block.p99_s <= _by(found, block, latest)) & (block.accuracy >= least - ROUNDING)
        if block.head_bytes > found.memory_bytes or not feasible.any():
            continue
        rows = np.flatnonzero(feasible)
        mean_s = np.round(block.mean_s[rows], 12)
        row = int(rows[np.lexsort((-block.accuracy[rows], block.up_bytes[rows], mean_s))[0]])
        place = -1 if block.split == found.net.last else block.split
        rank = (float(mean_s.min()), float(block.up_bytes[row]), place, -float(block.accuracy[row]))
        if best is None or rank < best[0]:
            best = rank, block, row
    if best is None:
        raise PlanError(_why_none(found, blocks, latest=latest, least=least))
    return best[1].plan(best[2], policy=found.policy, how=found.how, deadline_s=deadline_s)


def _by(found: Scenario, block: Block, latest: float) -> float:
    """When the answers of ``block`` must be there."""
    return cost.answer_by(latest, asks=block.split < found.net.last)


def plans(found: Scenario, *, deadline_s: float | None = None) -> list[Plan]:
    """`candidates` in a scenario that is already at hand."""
    return [
        block.plan(row, policy=found.policy, how=found.how, deadline_s=deadline_s)
        for block in evaluate(found)
        for row in range(len(block.mean_s))
    ]


def _why_none(found: Scenario, blocks: Sequence[Block], *, latest: float, least: float) -> str:
    """Which constraint cannot be met, and the nearest numbers that can."""
    fitting = [block for block in blocks if block.head_bytes <= found.memory_bytes]
    if not fitting:
        smallest = min(block.head_bytes for block in blocks)
        return (
            f"no plan fits the device's memory of {units.data(found.memory_bytes)}: the smallest "
            "holds weights of"
            f" {units.data(smallest)}; add an earlier exit or take a larger device"
        )

    def fastest(block: Block) -> float:
        return float(block.p99_s[block.accuracy >= least - ROUNDING].min(initial=np.inf))

    nearest = min(fitting, key=fastest)
    in_time = [
        block.accuracy[block.p99_s <= _by(found, block, latest)].max(initial=-1.0)
        for block in fitting
    ]
    best = float(max(in_time))
    within = (
        "no plan at all is in time" if best < 0 else f"in time the best is {units.percent(best)}"
    )
    if np.isfinite(fastest(nearest)):
        takes = f"{units.seconds(fastest(nearest))} (split {nearest.split}, codec {nearest.codec})"
        accurate = f"of that accuracy the fastest takes {takes}"
    else:
        accurate = "none that fits has that accuracy"
    left_out = len({block.split for block in blocks} - {block.split for block in fitting})
    memory = (
        f" ({left_out} splits left out: their heads exceed {units.data(found.memory_bytes)})"
        if left_out
        else ""
    )
    return (
        f"no plan has a p99 within deadline_s = {units.seconds(latest)} (less "
        f"{units.seconds(cost.MARGIN_S)} where a server is asked, to read its reply) and an "
        f"accuracy of {units.percent(least)}: {accurate}{memory}; {within}; allow a longer "
        "deadline_s or a larger max_accuracy_drop"
    )
