"""More than one plan for a bundle: the front to choose from, and the table for an edge."""

from __future__ import annotations

from pathlib import Path

from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device
from presplit.core.link import Link
from presplit.core.plans import FallbackName, Plan, PlanTable
from presplit.core.times import NOTHING, Times
from presplit.plan.envelope import Box, table_of
from presplit.plan.limits import CONFIDENCE, Limits
from presplit.plan.pareto import front_of
from presplit.plan.scenario import scenario


def front(
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
    """Every plan that no other beats in mean, p50 and p99 time, accuracy, energy and bytes.

    By rising mean time; see `presplit.plan.pareto` for where it is thinned. Accuracies are those of
    the held-out samples, believed as they are. The other arguments are those of `search`.
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
    return front_of(found, deadline_s=deadline_s)


def table(
    bundle: Bundle | str | Path,
    *,
    device: str | Device,
    link: str | Link,
    server: str | Device,
    deadline_s: float | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    confidence: float | None = CONFIDENCE,
    max_memory_bytes: float | None = None,
    max_up_bytes: float | None = None,
    fallback: FallbackName | None = None,
    edge_costs: Costs | None = None,
    server_costs: Costs | None = None,
    queue: Times = NOTHING,
    box: Box | None = None,
) -> PlanTable:
    """At most 32 plans, each the best somewhere in a box of conditions, for an edge to choose from.

    Every row keeps the accuracy, the memory and the bytes that are asked. The box is around
    ``link`` if nothing is said: a hundredth to ten times its rate, a quarter to ten times its round
    trip, device and server half to eight times as slow as planned. See `presplit.plan.envelope`.
    The other arguments are those of `search`.
    """
    limits = Limits(
        deadline_s=deadline_s,
        min_accuracy=min_accuracy,
        max_drop=max_drop,
        confidence=confidence,
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
    )
    return table_of(found, limits, box)
