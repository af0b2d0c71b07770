"""``presplit plan``: find where to cut, when exits may answer and how the cut travels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, read_costs, say, show
from presplit.core import units

if TYPE_CHECKING:
    from presplit.bundle import Bundle


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    device: Annotated[
        str | None, typer.Option(help="Profile of the edge device; default raspberry-pi-4.")
    ] = None,
    link: Annotated[str | None, typer.Option(help="Profile of the link; default wifi.")] = None,
    server: Annotated[
        str | None, typer.Option(help="Profile of the server; default server-cpu.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="When answers must be there: 50ms, 0.05.")
    ] = None,
    reliability: Annotated[
        float | None, typer.Option(help="How many answers must be there by then; default 0.99.")
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
    edge_costs: Annotated[
        Path | None, typer.Option(help="Costs measured on the device (presplit measure).")
    ] = None,
    server_costs: Annotated[Path | None, typer.Option(help="Costs measured on the server.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="The bundle of a dense net to compare with.")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Put the plan into the bundle.")] = False,
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
        reliability=reliability,
        min_accuracy=_read(min_accuracy, units.SHARES, "--min-accuracy"),
        max_drop=_read(max_drop, units.SHARES, "--max-drop"),
        confidence=_sure(confidence),
        max_energy_j=_read(max_energy, units.JOULES, "--max-energy"),
        max_memory_bytes=_read(max_memory, units.BYTES, "--max-memory"),
        max_up_bytes=_read(max_bytes, units.BYTES, "--max-bytes"),
    )
    around: dict[str, Any] = {
        **{name: asked.pop(name) for name in ("device", "link", "server")},
        "edge_costs": read_costs(edge_costs),
        "server_costs": read_costs(server_costs),
        "against": None if against is None else read(against),
    }
    best = search(found, **around, **asked)
    beside = baselines(found, **around, deadline_s=asked.get("deadline_s"))
    if save:
        write_plan(found, best)
    result = {
        "plan": msgspec.to_builtins(best),
        "baselines": {name: msgspec.to_builtins(other) for name, other in beside.items()},
    }
    show(result, explain(best, net=found.net), as_json=json)
    if save:
        alone = best.split == found.net.last
        served = (
            f"presplit run {bundle} SAMPLES"
            if alone
            else f"presplit serve {bundle}, and presplit run {bundle} SAMPLES --server HOST:PORT"
        )
        say(f"The plan is in {bundle}. Next: {served}")


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
