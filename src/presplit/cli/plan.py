"""``presplit plan``: find where to cut, when exits may answer and how the cut travels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, read_costs, say, show


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    device: Annotated[str, typer.Option(help="Profile of the edge device.")] = "raspberry-pi-4",
    link: Annotated[str, typer.Option(help="Profile of the link.")] = "wifi",
    server: Annotated[str, typer.Option(help="Profile of the server.")] = "server-cpu",
    deadline_s: Annotated[float | None, typer.Option(help="p99 of the answers must be within so many seconds.")] = None,
    max_accuracy_drop: Annotated[float, typer.Option(min=0, max=1, help="Held-out accuracy that may be lost.")] = 0.005,
    edge_costs: Annotated[Path | None, typer.Option(help="Costs measured on the device (presplit measure).")] = None,
    server_costs: Annotated[Path | None, typer.Option(help="Costs measured on the server.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Put the plan into the bundle.")] = False,
    json: Json = False,
) -> None:
    """Search all splits, thresholds and codecs; compare with all on the edge and all on the server."""
    import msgspec

    from presplit.bundle import read, write_plan
    from presplit.plan import baselines, explain, search

    found = read(bundle)
    costs = (read_costs(edge_costs), read_costs(server_costs))
    situation = {"device": device, "link": link, "server": server, "edge_costs": costs[0], "server_costs": costs[1]}
    best = search(found, deadline_s=deadline_s, max_accuracy_drop=max_accuracy_drop, **situation)  # type: ignore[arg-type]
    beside = baselines(found, deadline_s=deadline_s, **situation)  # type: ignore[arg-type]
    if save:
        write_plan(found, best)
    result = {"plan": msgspec.to_builtins(best), "baselines": {n: msgspec.to_builtins(p) for n, p in beside.items()}}
    show(result, explain(best, net=found.net, baselines=beside), as_json=json)
    if save:
        say(f"The plan is in {bundle}. Next: presplit serve {bundle}, and presplit run {bundle} --server HOST:PORT")
