"""``presplit place``: several models on several devices and servers, chosen together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli import options
from presplit.cli.following import again
from presplit.cli.options import Json, show
from presplit.core import units
from presplit.core.errors import PlanError
from presplit.core.tables import Column, table

if TYPE_CHECKING:
    from presplit.core.plans import Plan
    from presplit.plan import Placement


def place(
    site: Annotated[Path, typer.Argument(help="Devices, servers, links and models: .toml, .json.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of search at most.")] = 60.0,
    save: Annotated[
        bool, typer.Option("--save", help="Put each plan into its bundle, where it has just one.")
    ] = False,
    json: Json = False,
) -> None:
    """Choose a plan for every model on every device, and a server for its tail, together."""
    import msgspec

    from presplit.bundle import write_plan
    from presplit.plan import place as placed_in
    from presplit.plan import read_site

    found = placed_in(read_site(site), most_s=seconds)
    plans = _one_each(found) if save else {}
    for bundle, plan in plans.items():
        write_plan(bundle, plan)
    text, after = _told(found), again(options.given, "--save")
    if save:
        text += f"\n\nThe plans are in {', '.join(plans)}."
        after = f"presplit serve {' '.join(map(quote, plans))}"
    show(msgspec.to_builtins(found), f"{text}\nNext: {after}", as_json=json)


def _one_each(found: Placement) -> Mapping[str, Plan]:
    """The plan of each bundle; raises `PlanError` for one that has several."""
    plans: dict[str, Plan] = {}
    for each in found.placed:
        if plans.setdefault(each.bundle, each.plan) != each.plan:
            raise PlanError(
                f"{each.bundle} has plans of its own on several devices, and carries one: copy it "
                "for each device, or leave --save"
            )
    return plans


def _told(found: Placement) -> str:
    """The placement for people."""
    from presplit.plan.explain import named

    plans = [
        {
            "model": each.model,
            "device": each.device,
            "server": each.server or "-",
            "plan": named(each.plan),
            "rate": each.rate_per_s,
            "mean": each.plan.expected.mean_s,
            "p99": each.plan.expected.p99_s,
            "right": each.plan.expected.accuracy,
        }
        for each in found.placed
        if each.plan.expected is not None
    ]
    shown = [
        *(Column(key, key, str, text=True) for key in ("model", "device", "server", "plan")),
        Column("rate", "per s", lambda rate: f"{rate:g}"),
        Column("mean", "mean", units.seconds),
        Column("p99", "p99", units.seconds),
        Column("right", "right", units.percent),
    ]
    machines = [
        {
            "name": each.name,
            "memory": f"{units.data(each.memory_bytes)} of {units.data(each.of_bytes)}",
            "load": f"{units.percent(each.load)} of {units.percent(each.max_load)}",
            "wait": units.seconds(each.wait_s),
        }
        for each in found.machines
    ]
    used = [Column(key, key, str, text=key == "name") for key in ("name", "memory", "load", "wait")]
    sure = "the least there is" if not found.gap else f"within {units.percent(found.gap)} of it"
    return (
        f"{table(plans, shown)}\n\n{table(machines, used)}\n\n"
        f"A request takes {units.seconds(found.mean_s)} and {units.joules(found.energy_j)} of a "
        f"device on average: {sure}, of {found.considered:,} plans to choose from."
    )
