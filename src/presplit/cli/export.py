"""``presplit export``: a trained run becomes a bundle, cut at every boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, show


def export(
    run: Annotated[Path, typer.Argument(help="A run directory of presplit train.")],
    out: Annotated[Path | None, typer.Option(help="Bundle directory; default RUN/NAME.bundle.")] = None,
    json: Json = False,
) -> None:
    """Export a run: one ONNX graph with all exits, checked against torch, cut at every boundary."""
    import msgspec

    from presplit.cli.inspect import describe, text
    from presplit.train import export as write_bundle
    from presplit.train import runs

    found = runs.read_run(run)
    path = out or run / f"{found.spec.name}.bundle"
    bundle = write_bundle(
        found.model,
        found.held_out,
        path,
        name=found.spec.name,
        labels=found.data.labels,
        spec=msgspec.to_builtins(found.spec),
    )
    facts = describe(bundle)
    show(facts, f"{text(facts)}\nBundle: {path}. Next: presplit plan {path}", as_json=json)
