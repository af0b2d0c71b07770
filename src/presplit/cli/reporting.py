"""What ``presplit report`` gathers of a bundle: its plan, or the one that is found for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from presplit.cli.options import read_costs
from presplit.cli.plan import table_for, wished
from presplit.core import units
from presplit.core.costs import Device
from presplit.core.errors import BundleError, PlanError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.profiles import device_from, link_from

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.plans import PlanTable
    from presplit.plan.scenario import Scenario
    from presplit.report.bundle_page import BundleFacts

NEAR = 0.01
"""As a share: a mean time that differs by less is that of the same device, link and server."""
UNKNOWN_PLACE = (
    "the plan does not say where it was made for; say --device, --link and --server, or plan it "
    "again with presplit plan --save"
)


@dataclass(frozen=True)
class Around:
    """Where a bundle is to run, as the command line says it; None leaves it to the spec."""

    device: str | None = None
    link: str | None = None
    server: str | None = None
    deadline: str | None = None
    edge_costs: Path | None = None
    server_costs: Path | None = None
    against: Path | None = None

    @property
    def is_open(self) -> bool:
        """Whether some of the device, the link and the server is left to guess."""
        return None in (self.device, self.link, self.server)

    @property
    def said(self) -> list[str]:
        """The options that were given."""
        named = {
            "--device": self.device,
            "--link": self.link,
            "--server": self.server,
            "--deadline": self.deadline,
            "--edge-costs": self.edge_costs,
            "--server-costs": self.server_costs,
            "--against": self.against,
        }
        return [name for name, value in named.items() if value is not None]


def bundle_facts(bundle: Bundle, around: Around) -> BundleFacts:
    """The bundle's own plan, or the best one where it has none or a deadline is asked for.

    Raises `SpecError` for a device, link or server that is not known.
    """
    from presplit.bundle import read
    from presplit.plan.scenario import scenario
    from presplit.report.bundle_page import BundleFacts

    deadline = around.deadline
    asked = wished(
        bundle,
        **_where(bundle.plan, around),
        deadline_s=deadline and units.number(deadline, units.SECONDS, "--deadline"),
    )
    link = _link(asked.pop("link"))
    device, server = _device(asked.pop("device")), _device(asked.pop("server"))
    where: dict[str, Any] = {"device": device, "link": link, "server": server}
    costs: dict[str, Any] = {
        "edge_costs": read_costs(around.edge_costs),
        "server_costs": read_costs(around.server_costs),
    }
    place = f"On {device.name} with {server.name} behind {link.name}"
    try:
        found = scenario(bundle, **where, **costs)
        dense = None if around.against is None else scenario(read(around.against), **where)
        is_new = deadline is not None
        plan, notes = _plan(bundle, found, dense, where | costs, asked, is_new=is_new)
        table = _table(bundle, where | costs, asked)
    except (BundleError, PlanError) as error:
        known = bundle.plan
        return BundleFacts(bundle, known, bundle.table, None, place, link, str(error))
    is_guessed = plan.planned_for is None and around.is_open
    if is_guessed:
        notes = [f"{place} is a guess: {UNKNOWN_PLACE}", *notes]
    return BundleFacts(bundle, plan, table, found, place, link, notes=notes, is_guessed=is_guessed)


def _where(own: Plan | None, around: Around) -> dict[str, Any]:
    """The device, the link and the server: what was said, or what the plan was made for."""
    said = {"device": around.device, "link": around.link, "server": around.server}
    known = own.planned_for if own is not None else None
    if known is None:
        return said
    return {name: getattr(known, name) if value is None else value for name, value in said.items()}


def _device(given: str | Device) -> Device:
    return device_from(given) if isinstance(given, str) else given


def _link(given: str | Link) -> Link:
    return link_from(given) if isinstance(given, str) else given


def _plan(
    bundle: Bundle,
    found: Scenario,
    dense: Scenario | None,
    around: dict[str, Any],
    asked: dict[str, Any],
    *,
    is_new: bool,
) -> tuple[Plan, list[str]]:
    from presplit.plan import search

    own = bundle.plan
    if own is None or is_new:
        why = "It is the best for the deadline that was asked for, not the bundle's own."
        if own is None:
            why = "The bundle has no plan: this is what presplit plan would find."
        plan = search(bundle, **around, **asked)
        return (plan if dense is None else _beside(plan, found, dense)), [why]
    if own.gateway is not None:
        return own, ["The plan has a gateway: its parts are not shown."]
    return _here(own, found, dense)


def _here(own: Plan, found: Scenario, dense: Scenario | None) -> tuple[Plan, list[str]]:
    """The bundle's plan with what is expected of it here, if that is not what it says itself."""
    from presplit.plan.parts import block_of

    block = block_of(found, own)
    mean_s = float(block.mean_s[0])
    if own.expected is not None and abs(own.expected.mean_s - mean_s) <= NEAR * mean_s:
        return (own if dense is None else _beside(own, found, dense)), []
    expected = block.plans(np.array([0]), deadline_s=own.deadline_s)[0].expected
    here = _beside(msgspec.structs.replace(own, expected=expected), found, dense)
    return here, [_made_for(own, found)]


def _made_for(own: Plan, found: Scenario) -> str:
    """For what else than is shown the plan was made, and how to see it as it was planned."""
    start, known = "The bundle's plan was made for other times than those shown", own.planned_for
    if known is None:
        return (
            f"{start}: say --device, --link, --server and the costs that it was made with to see "
            "it as it was planned."
        )
    here = {"edge": found.edge, "server": found.server}
    missing = [
        f"--{name}-costs those measured on {words}"
        for name, words in known.measured.items()
        if name in here and here[name].how != "measured"
    ]
    if missing:
        return f"{start}: give as {' and as '.join(missing)} to see it as it was planned."
    return f"{start}: it was planned {known.words}."


def _beside(plan: Plan, found: Scenario, dense: Scenario | None) -> Plan:
    """The plan beside what one would do without a planner, with ``dense`` too if it is given."""
    from presplit.plan.beside import ways

    assert plan.expected is not None, "what is evaluated has an estimate"
    others = ways(found, deadline_s=plan.deadline_s, dense=dense)
    beside = {name: each.expected for name, each in others.items() if each.expected is not None}
    expected = msgspec.structs.replace(plan.expected, beside=beside)
    return msgspec.structs.replace(plan, expected=expected)


def _table(bundle: Bundle, around: dict[str, Any], asked: dict[str, Any]) -> PlanTable | None:
    """The bundle's table, or what an edge would be given; None where there is no such plan."""
    if bundle.table is not None:
        return bundle.table
    try:
        return table_for(bundle, around, asked)
    except PlanError:
        return None
