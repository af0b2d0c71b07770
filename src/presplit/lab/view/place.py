"""Where a net is to run: machines and links by name, their costs, scenarios of the planner."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from presplit.core.costs import Costs, Device
from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.core.value import Deadline, Value
from presplit.lab.view.here import THIS, Here, scaled
from presplit.lab.view.opened import Viewed
from presplit.plan.scenario import Scenario, scenario
from presplit.profiles import device_from, link_from
from presplit.profiles.given import DEVICE_KEYS, LINK_KEYS, Kind


class Asked(Value, frozen=True):
    """What was chosen on the page: a plan and where it is to run.

    ``exits`` maps each exit that may answer to the least score with which it does.
    """

    split: Annotated[int, Meta(ge=0)]
    exits: dict[str, float] = {}
    codec: str = "float32"
    form: str = "float32"
    server_form: str = "float32"
    device: str = THIS
    server: str = THIS
    link: str = "wifi"
    deadline_s: Deadline | None = None


def asked(value: Any) -> Asked:
    """The `Asked` in a JSON value; raises `SpecError` that names what is wrong."""
    try:
        return msgspec.convert(value, Asked, strict=False)
    except msgspec.ValidationError as error:
        raise SpecError(f"what was asked: {error}") from error


def planned_place(plan: Plan) -> dict[str, str]:
    """The device, the server and the link that ``plan`` was made for, in words of a command line.

    Nothing where that is not known. What is on no shelf and in no file here is told by its numbers.

    >>> from presplit.core.plans import PlannedFor
    >>> pi = Device("my pi", macs_per_s=2e9, memory_bytes=5e8, power_w=4.0)
    >>> made = Plan(1, planned_for=PlannedFor(pi, link_from("lte"), device_from("server-cpu")))
    >>> planned_place(made)  # doctest: +NORMALIZE_WHITESPACE
    {'device': 'macs=2000000000,memory=500000000,power=4,overhead=0',
     'server': 'server-cpu', 'link': 'lte'}
    """
    known = plan.planned_for
    if known is None:
        return {}
    return {
        "device": _worded(known.device, device_from, DEVICE_KEYS),
        "server": _worded(known.server, device_from, DEVICE_KEYS),
        "link": _worded(known.link, link_from, LINK_KEYS),
    }


def _worded(thing: Device | Link, named: Callable[[str], object], keys: Mapping[str, Kind]) -> str:
    with contextlib.suppress(SpecError):
        named(thing.name)
        return thing.name
    numbers = {key: getattr(thing, field) for key, (field, *_) in keys.items()}
    return ",".join(f"{key}={value:.12g}" for key, value in numbers.items() if value is not None)


@dataclass(frozen=True)
class Side:
    """Costs of a machine that stands for another, which is ``factor`` times as slow as this one."""

    device: Device
    costs: Costs
    factor: float


@dataclass(frozen=True, eq=False)
class Places:
    """The machines and links that ``net`` can be tried on.

    ``measured`` are costs of `presplit measure` for machines by name, which are taken in place of
    this machine's proportions.
    """

    net: Viewed
    here: Here
    measured: Mapping[str, Costs] = field(default_factory=dict[str, Costs])
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _memo: dict[tuple[str, str, str], Scenario] = field(
        default_factory=dict[tuple[str, str, str], Scenario], repr=False
    )

    def side(self, name: str) -> Side:
        """The machine called ``name``; raises `SpecError` if there is none."""
        if name == THIS:
            return Side(this_machine(), self.here.costs, 1.0)
        if name in self.measured:
            costs = self.measured[name]
            parts = costs.forms["float32"]
            factor = parts.head_s[-1].quantile(0.5) / self.here.warm_s
            device = Device(name, 1e9, this_machine().memory_bytes, costs.power_w)
            return Side(device, costs, factor)
        device = device_from(name)
        return Side(device, *scaled(self.here, device, self.net.bundle))

    def scenario(self, wish: Asked) -> Scenario:
        """All that plans depend on there; it is made once for each device, server and link."""
        key = (wish.device, wish.server, wish.link)
        with self._lock:
            if key not in self._memo:
                edge, server = self.side(wish.device), self.side(wish.server)
                self._memo[key] = scenario(
                    self.net.bundle,
                    device=edge.device,
                    server=server.device,
                    link=link_from(wish.link),
                    edge_costs=edge.costs,
                    server_costs=server.costs,
                )
            return self._memo[key]


@functools.cache
def this_machine() -> Device:
    """This machine as a device: half of its memory, as in the profiles; its costs are measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(THIS, macs_per_s=1e9, memory_bytes=memory / 2, power_w=0.0)
