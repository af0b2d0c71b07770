"""``presplit measure``: time every segment and exit on this machine, for planning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from presplit.cli.options import Json, show


def measure(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the costs here, for presplit plan.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A device profile whose watts give the energy.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 200,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    json: Json = False,
) -> None:
    """Measure the time of each segment and exit here, one sample at a time."""
    import msgspec

    from presplit.bundle import read
    from presplit.core import units
    from presplit.core.errors import SpecError
    from presplit.profiles import DEVICES
    from presplit.runtime.measure import measure as time_parts

    found = read(bundle)
    profile = DEVICES.find(device) if device else "this machine"
    costs = time_parts(found, repeats=repeats, threads=threads, device=profile)
    if out:
        try:
            out.write_bytes(msgspec.json.encode(costs) + b"\n")
        except OSError as error:
            raise SpecError(f"{out}: cannot be written ({error.strerror})") from error
    parts = costs.forms["float32"]
    lines = [
        f"boundary {k}: head {units.seconds(head.mean_s)}, tail {units.seconds(tail.mean_s)}"
        for k, (head, tail) in enumerate(zip(parts.head_s, parts.tail_s, strict=True))
    ]
    lines += [
        f"exit {e.name}: {units.seconds(s.mean_s)}"
        for e, s in zip(found.net.exits, parts.exit_s, strict=True)
        if s.mean_s
    ]
    lines.append(f"all: {units.seconds(parts.tail_s[0].mean_s)} on {costs.device}")
    result: dict[str, Any] = msgspec.to_builtins(costs)
    show(result, "\n".join(lines), as_json=json)
