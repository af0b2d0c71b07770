"""From a site to its placement: what each model may do, what is chosen, what the machines do then.

Times have the wait at the servers in them, as in an M/M/c queue that is as busy as it may become
with services as long as the longest tail that could come to it: so deadlines hold wherever the
others are placed. Where a model may go to several servers, the risk of its promise of accuracy is
shared by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from presplit.bundle import Bundle, read
from presplit.core.costs import Costs, Device
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.core.times import NOTHING, Times
from presplit.core.value import NonNegative, Share, Value
from presplit.plan.choose import Choice, everything, why_none
from presplit.plan.evaluate import Block
from presplit.plan.options import Option, options, pruned
from presplit.plan.placement import MOST_S, Room, Solution, Task, solve, used
from presplit.plan.queueing import wait
from presplit.plan.scenario import PLAIN, Scenario, scenario
from presplit.plan.site import Host, Model, Site
from presplit.profiles import costs_from, device_from, link_from

NO_LINK = Link("none", up_bps=1.0, down_bps=1.0, rtt_s=0.0)


class Placed(Value, frozen=True):
    """A model on a device: its plan, and the server that runs its tail, None if there is none."""

    model: str
    bundle: str
    device: str
    server: str | None
    rate_per_s: NonNegative
    plan: Plan


class Busy(Value, frozen=True):
    """What a machine holds of its memory, and the share of the time that it computes.

    ``wait_s`` is what a request is planned to wait at it on average.
    """

    name: str
    memory_bytes: NonNegative
    of_bytes: NonNegative
    load: NonNegative
    max_load: NonNegative
    wait_s: NonNegative = 0.0


class Placement(Value, frozen=True):
    """All models in their places, and what the machines do then.

    ``mean_s`` and ``energy_j`` are those of a request, over all. ``gap``: by what share of it the
    objective may exceed the least there is; 0 if it is proved to be the least.
    """

    placed: tuple[Placed, ...]
    machines: tuple[Busy, ...]
    mean_s: NonNegative
    energy_j: NonNegative
    gap: Share
    considered: Annotated[int, Meta(ge=0)] = 0
    """How many plans were left to choose from."""


def place(
    site: Site, *, most_s: float = MOST_S, bundles: Mapping[str, Bundle] | None = None
) -> Placement:
    """The placement of all models of ``site`` with the least mean time, or energy, of a request.

    Raises `PlanError` that names the model whose limits no plan keeps, or the machines that are too
    small and by how much; `MissingLibrary` without OR-Tools. ``most_s`` is how long is searched at
    most; ``bundles`` are those that are read already, by their paths in ``site``.
    """
    around = _Around(site, bundles or {})
    tasks = [
        Task(model.called, device, around.options(model, device))
        for model in site.models
        for device in model.devices
    ]
    solution = solve(tasks, around.rooms, most_s=most_s)
    return around.told(tasks, solution)


class _Around:
    """A site with all that it names read: machines, links, bundles."""

    def __init__(self, site: Site, bundles: Mapping[str, Bundle]) -> None:
        self.site = site
        paths = {model.bundle for model in site.models}
        self.bundles = {path: bundles[path] if path in bundles else read(path) for path in paths}
        machines = (*site.devices, *site.servers)
        self.machines: dict[str, Device] = {m.name: device_from(m.profile) for m in machines}
        self.links = {(each.device, each.server): link_from(each.link) for each in site.links}
        workers = {host.name: host.workers for host in site.servers}
        self.rooms = {
            m.name: Room(self.machines[m.name].memory_bytes, m.max_load * workers.get(m.name, 1))
            for m in machines
        }
        self.total_per_s = sum(m.rate_per_s * len(m.devices) for m in site.models)
        nets = [self._net(model) for model in site.models for _ in model.devices]
        self.often = Counter(nets)
        self.queues = {host.name: self._queue(host) for host in site.servers}

    def _net(self, model: Model) -> str:
        """Under which name a server hosts the whole of it."""
        return self.bundles[model.bundle].manifest.model_name(0, PLAIN)

    def _queue(self, host: Host) -> Times:
        """What a request waits at a server that is as busy as it may become."""
        longest_s, offered = 0.0, 0.0
        for model in self.site.models:
            asking = [device for device in model.devices if (device, host.name) in self.links]
            if asking:
                found = self._scenario(model, asking[0], host.name, NOTHING)
                slowest = max(parts.tail_s[0].mean_s for parts in found.server.forms.values())
                longest_s = max(longest_s, slowest)
                offered += len(asking) * model.rate_per_s * slowest
        busy = min(self.rooms[host.name].load, offered)
        if not busy:
            return NOTHING
        return wait(load_per_s=busy / longest_s, service_s=longest_s, workers=host.workers)

    def _scenario(self, model: Model, device: str, server: str | None, queue: Times) -> Scenario:
        """A model on a device with a server, or with none that could be asked."""
        edge_costs = _measured(model.edge_costs, device)
        edge = self.machines[device]
        # Memory is shared by all models of the device, so that it is no limit of one alone.
        edge = msgspec.structs.replace(edge, memory_bytes=1e300)
        if server is None:
            return scenario(
                self.bundles[model.bundle],
                device=edge,
                link=NO_LINK,
                server=edge,
                edge_costs=edge_costs,
                server_costs=edge_costs,
            )
        return scenario(
            self.bundles[model.bundle],
            device=edge,
            link=self.links[device, server],
            server=self.machines[server],
            edge_costs=edge_costs,
            server_costs=_measured(model.server_costs, server),
            queue=queue,
        )

    def options(self, model: Model, device: str) -> list[Option]:
        """What a model may do on a device; raises `PlanError` if nothing keeps to its limits."""
        servers: list[str | None] = [s.name for s in self.site.servers]
        servers = [name for name in servers if (device, name) in self.links] or [None]
        limits = model.limits
        if limits.confidence is not None:
            limits = limits.merged(confidence=1 - (1 - limits.confidence) / len(servers))
        net = self._net(model)
        found: list[Option] = []
        problems: list[str] = []
        for server in servers:
            queue = NOTHING if server is None else self.queues[server]
            here = self._scenario(model, device, server, queue)
            mine = options(
                here,
                limits,
                server=server,
                name=self.bundles[model.bundle].manifest.model_name,
                rate_per_s=model.rate_per_s,
                share=model.rate_per_s / self.total_per_s,
                goal=self.site.objective,
            )
            found += mine
            if not mine:
                keep = everything if server else _alone
                problems.append(f"{server or 'no server'}: {why_none(here, limits, keep)}")
        if not found:
            raise PlanError(f"{model.called} on {device} with {'; with '.join(problems)}")
        return pruned(found, shared=self.often[net] > 1)

    def told(self, tasks: Sequence[Task], solution: Solution) -> Placement:
        """The placement of a solution, with what it takes of every machine."""
        models = [(model, device) for model in self.site.models for device in model.devices]
        chosen = [task.options[n] for task, n in zip(tasks, solution.chosen, strict=True)]
        placed: list[Placed] = []
        for (model, device), option in zip(models, chosen, strict=True):
            assert option.plan is not None
            block, row = option.plan
            placed.append(
                Placed(
                    model.called,
                    model.bundle,
                    device,
                    option.server,
                    model.rate_per_s,
                    Choice(block, row, (0.0, 0.0, 0, 0.0)).plan(deadline_s=model.deadline_s),
                )
            )
        use = used([(task.device, option) for task, option in zip(tasks, chosen, strict=True)])
        return Placement(
            tuple(placed),
            tuple(self._busy(name, use) for name in self.machines),
            mean_s=self._mean(placed, "mean_s"),
            energy_j=self._mean(placed, "energy_j"),
            gap=solution.gap,
            considered=sum(len(task.options) for task in tasks),
        )

    def _mean(self, placed: Sequence[Placed], field: str) -> float:
        found = sum(each.rate_per_s * getattr(each.plan.expected, field) for each in placed)
        return found / self.total_per_s

    def _busy(self, name: str, use: Mapping[tuple[str, str], float]) -> Busy:
        workers = {host.name: host.workers for host in self.site.servers}.get(name, 1)
        return Busy(
            name,
            memory_bytes=use.get((name, "memory"), 0.0),
            of_bytes=self.rooms[name].memory_bytes,
            load=use.get((name, "load"), 0.0) / workers,
            max_load=self.rooms[name].load / workers,
            wait_s=self.queues.get(name, NOTHING).mean_s,
        )


def _alone(block: Block) -> bool:
    return block.way is None


def _measured(files: Mapping[str, str], machine: str) -> Costs | None:
    """What was measured there; None if nothing was."""
    return costs_from(files[machine]) if machine in files else None
