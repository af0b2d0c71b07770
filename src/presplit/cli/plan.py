"""``presplit plan``: find where to cut, when exits may answer and how the cut travels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli import completing, options
from presplit.cli.following import again, using
from presplit.cli.options import Json, fallback_named, read_costs, show
from presplit.core import units
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.link import Link
    from presplit.core.plans import PlanTable
    from presplit.core.times import Times

MOMENTARY = ("reliability", "max_energy_j")
"""Limits that depend on the conditions of a moment, so that a table cannot promise them."""
TIERS = ("gateway", "uplink", "gateway_costs")
"""What a second split needs; a table is of one."""


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.devices,
            help="Edge device: a profile, a .json file, or macs=2G,power=3; default "
            "raspberry-pi-4.",
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.links,
            help="Link: a profile, a .json file, or up=3M,rtt=40ms; default wifi.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.devices, help="Profile of the server; default server-cpu."
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="When answers must be there: 50ms, 0.05.")
    ] = None,
    reliability: Annotated[
        str | None,
        typer.Option(help="How many answers must be there by then: 99.9%, 0.99 (default)."),
    ] = None,
    min_accuracy: Annotated[str | None, typer.Option(help="The least accuracy: 95%, 0.95.")] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="Accuracy that may be lost against the net's own classifier: a share, "
            "or points with %; default 0.5%."
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="How sure the promise of accuracy must be, or none to believe the "
            "held-out samples as they are; default 0.95."
        ),
    ] = None,
    max_energy: Annotated[
        str | None, typer.Option(help="Mean energy of a sample on the device: 3mJ.")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Weights on the device: 2MB.")] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Mean bytes that a sample sends: 500B.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.fallbacks,
            help="What the device may run where no server answers: none, exit, or deepest (done "
            "where its memory holds the whole net).",
        ),
    ] = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.devices,
            help="A gateway behind the link, as --device: the net is cut twice.",
        ),
    ] = None,
    uplink: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.links, help="The gateway's link to the server, as --link."
        ),
    ] = None,
    edge_costs: Annotated[
        Path | None, typer.Option(help="Costs measured on the device (presplit measure).")
    ] = None,
    server_costs: Annotated[Path | None, typer.Option(help="Costs measured on the server.")] = None,
    gateway_costs: Annotated[
        Path | None, typer.Option(help="Costs measured on the gateway.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="The bundle of a dense net to compare with.")
    ] = None,
    server_load: Annotated[
        float | None, typer.Option(min=0, help="Requests a second that the server gets in all.")
    ] = None,
    server_workers: Annotated[int, typer.Option(min=1, help="Workers that serve them.")] = 1,
    front: Annotated[
        bool, typer.Option("--front", help="List every plan that no other beats in everything.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="List the plans that an edge may change between.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Put the plan, and the table if asked, into the bundle.")
    ] = False,
    json: Json = False,
) -> None:
    """Search all splits, exits, thresholds, codecs and forms; compare with not splitting.

    What is not said here is taken from [plan] of the spec that the bundle was made from.
    """
    import msgspec

    from presplit.bundle import read, write_plan
    from presplit.plan import baselines, explain, search

    found = read(bundle)
    asked = wished(
        found,
        device=device,
        link=link,
        server=server,
        deadline_s=_read(deadline, units.SECONDS, "--deadline"),
        reliability=_read(reliability, units.SHARES, "--reliability"),
        min_accuracy=_read(min_accuracy, units.SHARES, "--min-accuracy"),
        max_drop=_read(max_drop, units.SHARES, "--max-drop"),
        confidence=_sure(confidence),
        max_energy_j=_read(max_energy, units.JOULES, "--max-energy"),
        max_memory_bytes=_read(max_memory, units.BYTES, "--max-memory"),
        max_up_bytes=_read(max_bytes, units.BYTES, "--max-bytes"),
        fallback=fallback_named(fallback),
    )
    around: dict[str, Any] = {
        **{name: asked.pop(name) for name in ("device", "link", "server")},
        "edge_costs": read_costs(edge_costs),
        "server_costs": read_costs(server_costs),
        "gateway": gateway,
        "uplink": uplink,
        "gateway_costs": read_costs(gateway_costs),
    }
    if table and gateway is not None:
        raise SpecError("--table is of plans with one split: leave out --gateway and --uplink")
    around["queue"] = queue(found, around, server_load, server_workers)
    best = search(found, **around, **asked, against=None if against is None else read(against))
    result: dict[str, Any] = {"plan": msgspec.to_builtins(best)}
    beside = baselines(found, **around, deadline_s=asked.get("deadline_s"))
    result["baselines"] = {name: msgspec.to_builtins(other) for name, other in beside.items()}
    text = explain(best, net=found.net)
    if front:
        result["front"], shown = listed_front(found, around, asked)
        text += f"\n\n{shown}"
    rows = None
    if table:
        rows = table_for(found, around, asked)
        result["table"], shown = listed_table(rows, around["link"])
        text += f"\n\n{shown}"
    if save:
        write_plan(found, best, table=rows)
        text += f"\n\nThe plan is in {bundle}."
    text += f"\nNext: {using(found, best) if save else again(options.given, '--save')}"
    show(result, text, as_json=json)


def queue(found: Bundle, around: dict[str, Any], load_per_s: float | None, workers: int) -> Times:
    """What a request waits for: as if each were for the whole net, in its slowest form."""
    from presplit.core.times import NOTHING
    from presplit.plan import wait
    from presplit.plan.scenario import scenario

    if load_per_s is None:
        return NOTHING
    server = scenario(found, **around).server
    service_s = max(parts.tail_s[0].mean_s for parts in server.forms.values())
    return wait(load_per_s=load_per_s, service_s=service_s, workers=workers)


def listed_front(found: Bundle, around: dict[str, Any], asked: dict[str, Any]) -> tuple[Any, str]:
    """The front, as it is for programs and for people."""
    import msgspec

    from presplit.plan import front
    from presplit.plan.explain import compared, named

    plans = front(found, **around, deadline_s=asked.get("deadline_s"))
    shown = {f"{number}. {named(p)}": p.expected for number, p in enumerate(plans, 1) if p.expected}
    return [msgspec.to_builtins(each) for each in plans], compared(shown)


def table_for(found: Bundle, around: dict[str, Any], asked: dict[str, Any]) -> PlanTable:
    """The table for an edge, under those limits that do not depend on the conditions."""
    from presplit.plan import table

    kept = {name: value for name, value in asked.items() if name not in MOMENTARY}
    here = {name: value for name, value in around.items() if name not in TIERS}
    return table(found, **here, **kept)


def listed_table(rows: PlanTable, link: str | Link) -> tuple[Any, str]:
    """The table, as it is for programs and for people."""
    import msgspec

    from presplit.plan.envelope import turns
    from presplit.plan.explain import told_table
    from presplit.profiles import link_from

    known = link_from(link) if isinstance(link, str) else link
    return msgspec.to_builtins(rows), told_table(rows, turns(rows, known))


def wished(bundle: Bundle, **said: Any) -> dict[str, Any]:
    """What was said, completed by [plan] of the bundle's spec and by the defaults."""
    import msgspec

    from presplit.core.spec import Planning

    spec = (bundle.manifest.spec or {}).get("plan") or {}
    wishes = msgspec.structs.asdict(msgspec.convert(spec, Planning))
    found = {name: value for name, value in wishes.items() if value is not None}
    found |= {name: value for name, value in said.items() if value is not None}
    if found.get("confidence") == "none":
        found["confidence"] = None
    default = {"device": "raspberry-pi-4", "link": "wifi", "server": "server-cpu"}
    return {**default, **found}


def _read(text: str | None, of: Any, option: str) -> float | None:
    return None if text is None else units.number(text, of, option)


def _sure(text: str | None) -> float | str | None:
    return text if text in (None, "none") else units.number(text, units.SHARES, "--confidence")
