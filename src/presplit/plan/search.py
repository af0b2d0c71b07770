"""Exact search over split, used exits, thresholds, codec, form of head and form of tail.

Source: Neurosurgeon (ASPLOS 2017) searches all splits of a chain, SPINN (arXiv 2008.06402) splits
and one threshold; here every exit has its own threshold, all are weighed jointly, codecs and forms
are searched too, times are distributions, and the accuracy is a promise that is tested.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device
from presplit.core.link import Link
from presplit.core.plans import FallbackName, Plan, PlannedFor
from presplit.core.times import NOTHING, Times
from presplit.plan.beside import choice, told, ways
from presplit.plan.choose import Choice, why_none
from presplit.plan.limits import CONFIDENCE, RELIABILITY, Limits
from presplit.plan.scenario import Scenario, scenario
from presplit.plan.tiers import every
from presplit.profiles import device_from, link_from


def search(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    reliability: float = RELIABILITY,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    confidence: float | None = CONFIDENCE,
    max_energy_j: float | None = None,
    max_memory_bytes: float | None = None,
    max_up_bytes: float | None = None,
    fallback: FallbackName | None = None,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
    queue: Times = NOTHING,
    gateway: str | Device | None = None,
    uplink: str | Link | None = None,
    gateway_costs: Costs | None = None,
    against: Bundle | str | Path | None = None,
) -> Plan:
    """The plan with the least mean time that keeps to all limits (see `Limits`).

    By default at most half a point of accuracy is lost with a confidence of 0.95: a promise for all
    data drawn as the held-out samples were. With few of them it is a cautious plan, often one whose
    exits answer nothing; ``confidence=None`` believes the samples as they are.

    Equal times (to a picosecond) are decided by fewer bytes, then all on the edge (which needs no
    server for the sample that no exit is sure of), then the smaller split, then the higher
    accuracy.

    ``device``, ``link`` and ``server`` are names on the shelves of `presplit.profiles`, or objects;
    ``edge_costs`` and ``server_costs`` are measured costs that replace what would be counted;
    ``queue`` is what a request waits for at the server (see `presplit.plan.queueing`); what one
    could do instead stands beside the plan, with ``against`` also by the bundle of a dense net.
    With a ``gateway`` behind ``link``, and the server behind its ``uplink``, two splits are
    searched together (see `presplit.plan.tiers`).
    Raises
    `PlanError` with the nearest achievable numbers if there is no such plan.
    """
    limits = Limits(
        deadline_s=deadline_s,
        reliability=reliability,
        min_accuracy=min_accuracy,
        max_drop=max_drop,
        confidence=confidence,
        max_energy_j=max_energy_j,
        max_memory_bytes=max_memory_bytes,
        max_up_bytes=max_up_bytes,
        fallback=fallback,
    )
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
        queue=queue,
        gateway=gateway,
        uplink=uplink,
        gateway_costs=gateway_costs,
    )
    dense = None
    if against is not None:
        dense = scenario(
            against,
            device=device,
            link=link,
            server=server,
            queue=queue,
            gateway=gateway,
            uplink=uplink,
        )
    best = _best(found, limits.checked())
    plan = told(found, best, limits, ways(found, deadline_s=deadline_s, dense=dense))
    costs = {"edge": edge_costs, "server": server_costs, "gateway": gateway_costs}
    planned_for = PlannedFor(
        _device(device),
        _link(link),
        _device(server),
        None if gateway is None else _device(gateway),
        None if uplink is None else _link(uplink),
        {name: _measured(each) for name, each in costs.items() if each is not None},
    )
    return msgspec.structs.replace(plan, planned_for=planned_for)


def _device(given: str | Device) -> Device:
    return device_from(given) if isinstance(given, str) else given


def _link(given: str | Link) -> Link:
    return link_from(given) if isinstance(given, str) else given


def _measured(costs: Costs) -> str:
    """On what these costs were found, and when."""
    return ", ".join(filter(None, [costs.processor or costs.device, costs.when]))


def candidates(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
    queue: Times = NOTHING,
    gateway: str | Device | None = None,
    uplink: str | Link | None = None,
    gateway_costs: Costs | None = None,
) -> list[Plan]:
    """Every plan that `search` weighs, feasible or not, each with what is expected of it.

    There may be millions: it is for small nets, and for looking closely.
    """
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
        queue=queue,
        gateway=gateway,
        uplink=uplink,
        gateway_costs=gateway_costs,
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
    queue: Times = NOTHING,
    gateway: str | Device | None = None,
    uplink: str | Link | None = None,
    gateway_costs: Costs | None = None,
    against: Bundle | str | Path | None = None,
) -> dict[str, Plan]:
    """What one would do without a planner, whether or not it is feasible; none uses an exit.

    ``all-edge`` runs the whole net on the device, ``all-server`` sends every input raw,
    ``all-server CODEC`` by a codec; ``against``, the bundle of a dense net, adds its own ways and
    its best split. Measured costs are those of ``bundle`` alone: the other net is counted.
    """
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=server,
        edge_costs=edge_costs,
        server_costs=server_costs,
        queue=queue,
        gateway=gateway,
        uplink=uplink,
        gateway_costs=gateway_costs,
    )
    dense = None
    if against is not None:
        dense = scenario(
            against,
            device=device,
            link=link,
            server=server,
            queue=queue,
            gateway=gateway,
            uplink=uplink,
        )
    return ways(found, deadline_s=deadline_s, dense=dense)


def choose(found: Scenario, limits: Limits | None = None) -> Plan:
    """`search` in a scenario that is already at hand, without the reasons."""
    limits = Limits() if limits is None else limits.checked()
    return _best(found, limits).plan(deadline_s=limits.deadline_s, limits=limits)


def _best(found: Scenario, limits: Limits) -> Choice:
    """The best plan, or the error that says why there is none."""
    best = choice(found, limits)
    if best is None:
        raise why_none(found, limits)
    return best


def plans(found: Scenario, *, deadline_s: float | None = None) -> list[Plan]:
    """`candidates` in a scenario that is already at hand."""
    return [
        plan
        for block in every(found)
        for plan in block.plans(np.arange(len(block.head.mean_s)), deadline_s=deadline_s)
    ]
