"""``presplit inspect``: where a model can be cut, and what each part costs.

The model is a bundle, an ONNX model or a user's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.following import using
from presplit.cli.options import Json, OutputNames, show
from presplit.cli.own_model import (
    aside,
    is_word,
    load,
    shape_of,
    sizes_of,
    survey_facts,
    survey_text,
)
from presplit.core.errors import BundleError, SpecError, context

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Net


def inspect(
    model: Annotated[
        str,
        typer.Argument(help="MODEL.onnx, a bundle directory, or your own model as module:factory."),
    ],
    input: Annotated[
        str | None,
        typer.Option(help="Your own model: the shape of one float32 sample, as 3,32,32."),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(help="Your own model: show what this density would save; default 0.25."),
    ] = None,
    nearest: Annotated[
        bool,
        typer.Option(
            "--nearest",
            help="Your own model: where a layer cannot have exactly the density, it takes the "
            "nearest that it can.",
        ),
    ] = False,
    output: OutputNames = [],
    json: Json = False,
) -> None:
    """List boundaries, bytes at each, multiply-accumulates and weights of each segment.

    Of your own model, before any training: its layers, where exits can hang, what a density would
    save too. The module is imported from the working folder, or from its own as in
    models/cats.py:make, and its code runs; a factory takes no arguments and gives a
    torch.nn.Module.
    """
    if is_word(model):
        if output:
            raise SpecError(f"--output belongs to MODEL.onnx, got {model}")
        wanted = 0.25 if density is None else density
        _inspect_own(model, input, wanted, nearest=nearest, as_json=json)
        return
    if input is not None or density is not None or nearest:
        raise SpecError(
            "--input, --density and --nearest belong to your own model as module:factory, got "
            f"{model}"
        )
    path = Path(model)
    if path.is_dir():
        from presplit.bundle import read

        if output:
            raise SpecError(f"--output belongs to MODEL.onnx, got the bundle {model}")
        bundle = read(path)
        facts, after = describe(bundle), f"presplit plan {quote(str(path))}"
        if bundle.plan is not None:
            after = using(bundle, bundle.plan)
    else:
        named = "".join(f" --output {quote(name)}" for name in output)
        facts = _describe_onnx(path, output)
        after = f"presplit export --from {quote(str(path))}{named}"
    show(facts, f"{text(facts)}\nNext: {after}", as_json=json)


def _inspect_own(
    word: str, sample: str | None, density: float, *, nearest: bool, as_json: bool
) -> None:
    if not 0 < density <= 1:
        raise SpecError(f"--density: expected a share above 0 and at most 1, got {density}")
    shape = shape_of(sample)
    from presplit.train.nets.inspect import survey

    with context(word), aside():
        found = survey(load(word), shape, density=density, nearest=nearest)
    facts = _facts(found.net, list(found.segments), dict(found.exits), sizes_of(found))
    facts = survey_facts(found, facts, shape, density)
    after = f"Next: presplit train --model {quote(word)} --data FOLDER, of samples of that shape"
    show(facts, f"{survey_text(facts)}\n{after}", as_json=as_json)


def describe(bundle: Bundle) -> dict[str, Any]:
    """What ``inspect`` says of a bundle."""
    import msgspec

    manifest = bundle.manifest
    costs = [(part.macs, part.weights) for part in manifest.segments]
    exits = {name: (part.macs, part.weights) for name, part in manifest.exits.items()}
    sizes = [
        {codec: _bytes(bundle, number, codec) for codec in port.encodings}
        for number, port in enumerate(manifest.ports)
    ]
    facts = _facts(bundle.net, costs, exits, sizes)
    for row, port in zip(facts["boundaries"], manifest.ports, strict=True):
        row["refused"] = dict(port.refused)
    return {
        "name": manifest.name,
        "hash": manifest.model_hash,
        **facts,
        "forms": _forms(bundle),
        "refused_forms": dict(manifest.refused_forms),
        "preparation": msgspec.to_builtins(manifest.preparation),
        "plan": msgspec.to_builtins(manifest.plan),
    }


def _forms(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """What each form weighs in bytes, and how often its own answers are right if that is known."""
    manifest = bundle.manifest
    parts = {"float32": [*manifest.segments, *manifest.exits.values()]}
    parts |= {name: list(form.parts) for name, form in manifest.forms.items()}
    judged = manifest.validation.marks if manifest.validation else {}
    return {
        name: {
            "bytes": sum(manifest.files[part.file].bytes for part in pieces),
            "accuracy": float(bundle.evidence(name)[1][-1].mean()) if name in judged else None,
        }
        for name, pieces in parts.items()
    }


def _bytes(bundle: Bundle, number: int, codec: str) -> float | None:
    """Bytes of one sample, the mean where they vary; None where that was not measured."""
    with contextlib.suppress(BundleError):
        return bundle.payload_bytes(number, codec)
    return None


def _describe_onnx(path: Path, outputs: Sequence[str]) -> dict[str, Any]:
    from presplit import graph

    read = graph.read(path, outputs=outputs)
    with context(str(path)):
        row = graph.row(read)
        pieces = graph.cut(row)
    costs = [(piece.macs, piece.weights) for piece in pieces.segments]
    exits = {name: (piece.macs, piece.weights) for name, piece in pieces.exits.items()}
    return {"name": path.stem, **_facts(row.net, costs, exits, [{} for _ in row.net.boundaries])}


def _facts(
    net: Net,
    costs: list[tuple[int, int]],
    exits: dict[str, tuple[int, int]],
    sizes: Sequence[Mapping[str, float | None]],
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
        "exits": {
            name: {"macs": macs, "weights": weights} for name, (macs, weights) in exits.items()
        },
        "macs": sum(macs for macs, _ in costs) + sum(macs for macs, _ in exits.values()),
        "weights": sum(weights for _, weights in costs)
        + sum(weights for _, weights in exits.values()),
    }


def text(facts: dict[str, Any]) -> str:
    """The facts as a table for people."""
    from presplit.core import units
    from presplit.core.tables import Column, table

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
                [
                    *(f"exit {name}" for name in row["exits"]),
                    *(["bottleneck"] if row["bottleneck"] else []),
                ]
            ),
        }
        for row in facts["boundaries"]
    ]
    exits = [
        f"exit {name}: {units.count(cost['macs'])} MACs "
        f"({100 * cost['macs'] / max(1, facts['macs']):.1f} % of all), "
        f"{units.count(cost['weights'])} weights of its own"
        for name, cost in facts["exits"].items()
    ]
    total = (
        f"{facts['name']}: {units.count(facts['macs'])} MACs, "
        f"{units.count(facts['weights'])} weights in all"
    )
    refused = [
        f"boundary {row['boundary']} is not sent as {codec}: {why}"
        for row in facts["boundaries"]
        for codec, why in row.get("refused", {}).items()
    ]
    images = _of_images(facts.get("preparation"))
    notes = [*exits, *refused, *_of_forms(facts), *images, *_of_plan(facts.get("plan"))]
    return "\n".join([total, "", table(rows, columns), *([""] if notes else []), *notes])


def _of_forms(facts: dict[str, Any]) -> list[str]:
    """What there is to say of forms, where any besides float32 was asked for."""
    from presplit.core import units

    found: list[str] = []
    for name, form in facts.get("forms", {}).items():
        right = "" if form["accuracy"] is None else f", {form['accuracy']:.2%} right when held out"
        found.append(f"form {name}: {units.data(form['bytes'])}{right}")
    refused = [
        f"form {name} is not there: {why}" for name, why in facts.get("refused_forms", {}).items()
    ]
    return [*found, *refused] if len(found) > 1 or refused else []


def _of_plan(raw: dict[str, Any] | None) -> list[str]:
    """What the bundle's plan does, and what it was made for."""
    if raw is None:
        return []
    import msgspec

    from presplit.core import units
    from presplit.core.plans import Plan
    from presplit.plan.explain import named

    plan = msgspec.convert(raw, Plan)
    words = [f"plan: {named(plan)}"]
    if plan.planned_for is not None:
        words.append(f"made to run {plan.planned_for.words}")
    if plan.deadline_s is not None:
        words.append(f"deadline {units.seconds(plan.deadline_s)}")
    if plan.expected is not None:
        words.append(f"{units.seconds(plan.expected.mean_s)} on average")
    return [", ".join(words)]


def _of_images(how: dict[str, Any] | None) -> list[str]:
    """What an image file goes through before the net takes it, where that is known."""
    if how is None:
        return []
    words = [f"{key}={value}" for key, value in how.items() if value not in (None, (), [], False)]
    return [f"images are prepared: {' '.join(words)}"]
