"""``presplit plan``: find where to cut, when exits may answer and how the cut travels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, read_costs, say, show


def plan(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    device: Annotated[
        str | None, typer.Option(help="Profile of the edge device; default raspberry-pi-4.")
    ] = None,
    link: Annotated[str | None, typer.Option(help="Profile of the link; default wifi.")] = None,
    server: Annotated[
        str | None, typer.Option(help="Profile of the server; default server-cpu.")
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option(help="p99 of the answers must be within so many seconds.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Held-out accuracy that may be lost; default 0.005."),
    ] = None,
    edge_costs: Annotated[
        Path | None, typer.Option(help="Costs measured on the device (presplit measure).")
    ] = None,
    server_costs: Annotated[Path | None, typer.Option(help="Costs measured on the server.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Put the plan into the bundle.")] = False,
    json: Json = False,
) -> None:
    """Search all splits, thresholds and codecs; compare with all on the edge and all on the server.

    What is not said here is taken from [plan] of the spec that the bundle was made from.
    """
    import msgspec

    from presplit.bundle import read, write_plan
    from presplit.core.spec import Planning
    from presplit.plan import baselines, explain, search

    found = read(bundle)
    wished = msgspec.convert((found.manifest.spec or {}).get("plan") or {}, Planning)
    device, link, server = device or wished.device, link or wished.link, server or wished.server
    deadline_s = wished.deadline_s if deadline_s is None else deadline_s
    drop = wished.max_accuracy_drop if max_accuracy_drop is None else max_accuracy_drop
    costs = (read_costs(edge_costs), read_costs(server_costs))
    names = {
        "device": device or "raspberry-pi-4",
        "link": link or "wifi",
        "server": server or "server-cpu",
    }
    situation = {**names, "edge_costs": costs[0], "server_costs": costs[1]}
    best = search(found, deadline_s=deadline_s, max_accuracy_drop=drop, **situation)  # type: ignore[arg-type]
    beside = baselines(found, deadline_s=deadline_s, **situation)  # type: ignore[arg-type]
    if save:
        write_plan(found, best)
    result = {
        "plan": msgspec.to_builtins(best),
        "baselines": {n: msgspec.to_builtins(p) for n, p in beside.items()},
    }
    show(result, explain(best, net=found.net, baselines=beside), as_json=json)
    if save:
        alone = best.split == found.net.last
        served = (
            f"presplit run {bundle} SAMPLES"
            if alone
            else f"presplit serve {bundle}, and presplit run {bundle} SAMPLES --server HOST:PORT"
        )
        say(f"The plan is in {bundle}. Next: {served}")
