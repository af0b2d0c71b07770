"""``presplit inspect``: the boundaries of a bundle or an ONNX model, and what each segment costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, show

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Net


def inspect(
    model: Annotated[Path, typer.Argument(help="MODEL.onnx or a bundle directory.")],
    json: Json = False,
) -> None:
    """List boundaries, bytes at each, multiply-accumulates and weights of each segment."""
    if model.is_dir():
        from presplit.bundle import read

        facts = describe(read(model))
    else:
        facts = _describe_onnx(model)
    show(facts, text(facts), as_json=json)


def describe(bundle: Bundle) -> dict[str, Any]:
    """What ``inspect`` says of a bundle."""
    manifest = bundle.manifest
    costs = [(part.macs, part.weights) for part in manifest.segments]
    exits = {name: (part.macs, part.weights) for name, part in manifest.exits.items()}
    sizes = [
        {codec: encoding.nbytes(boundary) for codec, encoding in port.encodings.items()}
        for port, boundary in zip(manifest.ports, bundle.net.boundaries, strict=True)
    ]
    return {"name": manifest.name, "hash": manifest.model_hash, **_facts(bundle.net, costs, exits, sizes)}


def _describe_onnx(path: Path) -> dict[str, Any]:
    from presplit import graph

    row = graph.row(graph.read(path))
    pieces = graph.cut(row)
    costs = [(piece.macs, piece.weights) for piece in pieces.segments]
    exits = {name: (piece.macs, piece.weights) for name, piece in pieces.exits.items()}
    return {"name": path.stem, **_facts(row.net, costs, exits, [{} for _ in row.net.boundaries])}


def _facts(
    net: Net, costs: list[tuple[int, int]], exits: dict[str, tuple[int, int]], sizes: list[dict[str, int]]
) -> dict[str, Any]:
    """One row for each boundary: what is before it, its bytes, and the segment that follows."""
    rows: list[dict[str, Any]] = []
    smallest = None
    for number, boundary in enumerate(net.boundaries):
        natural = smallest is not None and boundary.nbytes < smallest and number < net.last
        smallest = boundary.nbytes if smallest is None else min(smallest, boundary.nbytes)
        macs, weights = costs[number] if number < net.last else (None, None)
        hangs = [e.name for e in net.exits if e.after == number]
        rows.append(
            {
                "boundary": number,
                "name": boundary.name,
                "shape": list(boundary.shape),
                "bytes": boundary.nbytes,
                "codec_bytes": sizes[number],
                "bottleneck": natural,
                "exits": hangs,
                "next_macs": macs,
                "next_weights": weights,
            }
        )
    return {
        "boundaries": rows,
        "exits": {name: {"macs": macs, "weights": weights} for name, (macs, weights) in exits.items()},
        "macs": sum(macs for macs, _ in costs) + sum(macs for macs, _ in exits.values()),
        "weights": sum(weights for _, weights in costs) + sum(weights for _, weights in exits.values()),
    }


def text(facts: dict[str, Any]) -> str:
    """The facts as a table for people."""
    from presplit.core import units
    from presplit.report.tables import Column, table

    columns = (
        Column("boundary", "boundary"),
        Column("name", "name", str, text=True),
        Column("shape", "shape", lambda shape: " x ".join(map(str, shape)), text=True),
        Column("bytes", "float32", units.data),
        Column("int8", "int8", lambda size: "" if size is None else units.data(size)),
        Column("next_macs", "MACs to the next", lambda n: "" if n is None else units.count(n)),
        Column("next_weights", "weights", lambda n: "" if n is None else units.count(n)),
        Column("note", "", str, text=True),
    )
    rows = [
        {
            **row,
            "int8": row["codec_bytes"].get("int8"),
            "note": ", ".join(
                [*(f"exit {name}" for name in row["exits"]), *(["bottleneck"] if row["bottleneck"] else [])]
            ),
        }
        for row in facts["boundaries"]
    ]
    exits = [
        f"exit {name}: {units.count(cost['macs'])} MACs, {units.count(cost['weights'])} weights of its own"
        for name, cost in facts["exits"].items()
    ]
    total = f"{facts['name']}: {units.count(facts['macs'])} MACs, {units.count(facts['weights'])} weights in all"
    return "\n".join([total, "", table(rows, columns), *([""] if exits else []), *exits])
