"""``presplit init``: a spec and a net for one's own data, which it has looked at."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, show
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.train.data.look import Look

SPEC, MODEL = "spec.toml", "model.py"
SHOWN = 20
"""Classes that are listed."""


def init(
    data: Annotated[
        str,
        typer.Argument(
            help="Images or sounds in a folder for each class (or a .zip of them), a .npz, a .csv, "
            "or a data set's name; without one, digits as an example."
        ),
    ] = "digits",
    out: Annotated[Path, typer.Option(help="Folder for both files; made if there is none.")] = Path(
        "."
    ),
    json: Json = False,
) -> None:
    """Look at your data, and write spec.toml and model.py for it.

    The spec trains as it is: presplit train spec.toml. Each line of it says what it does. Files
    that cannot be read are named and left out. Nothing is written over.
    """
    from presplit.cli.starting import model_text, slug, spec_text
    from presplit.core.spec import read_spec
    from presplit.train.data.look import look

    files = out / SPEC, out / MODEL
    for file in files:
        if file.exists():
            raise SpecError(f"{file} is there already; --out FOLDER puts a new one elsewhere")
    found = look(data.rstrip("/") or data)
    source = _source(data.rstrip("/") or data, out, is_named=found.is_named)
    word = f"{files[1]}:make"
    name = slug(found.data.name)
    _write(files[0], spec_text(found, name, source, word))
    _write(files[1], model_text(found))
    read_spec(files[0])
    show(
        facts(found, files),
        "\n".join([*told(found), f"Written: {files[0]} and {files[1]}.", _next(files[0])]),
        as_json=json,
    )


def _next(spec: Path) -> str:
    return f"Next: presplit train {quote(str(spec))}"


def _source(data: str, out: Path, *, is_named: bool) -> str:
    """What the spec calls the data: a path as it was said, if the spec lies where it was said."""
    if is_named or out.resolve() == Path.cwd():
        return data
    return str(Path(data).resolve())


def _write(file: Path, text: str) -> None:
    """Write a file that is not there; raises `SpecError` if it cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise SpecError(f"{file}: cannot be written ({error.strerror})") from error


def facts(found: Look, files: tuple[Path, Path]) -> dict[str, Any]:
    """What was found and written, for programs."""
    return {
        "spec": str(files[0]),
        "model": str(files[1]),
        "data": found.data.name,
        "kind": found.kind,
        "shape": list(found.shape),
        "classes": {name: {"train": a, "test": b} for name, (a, b) in found.counts.items()},
        "unevenness": found.unevenness,
        "left_out": list(found.data.left_out),
    }


def told(found: Look) -> list[str]:
    """What was found, for people."""
    from presplit.cli.console import shortened
    from presplit.cli.starting import UNEVEN
    from presplit.core.tables import columns_of, table

    counts = list(found.counts.items())
    rows = [{"class": name, "train": str(a), "test": str(b)} for name, (a, b) in counts[:SHOWN]]
    many = f"{len(found.data.train):,} {found.kind} to train with, {len(found.data.test):,} to test"
    lines = [
        f"{found.data.name}: {many} with, {len(counts)} classes.",
        table(rows, columns_of(rows)),
    ]
    if len(counts) > SHOWN:
        lines.append(f"and {len(counts) - SHOWN} more classes")
    if found.sizes:
        (w, h), (wide, high) = found.sizes
        sizes = f"{w} x {h}" if (w, h) == (wide, high) else f"from {w} x {h} to {wide} x {high}"
        brought = f"; the net sees them at {found.size} x {found.size}" if found.size else ""
        lines.append(f"Images are of {sizes} pixels{brought}.")
    if found.unevenness >= UNEVEN:
        lines.append(
            f"Classes are uneven, {found.unevenness:.0f} to 1: the spec says what can be done."
        )
    bad = found.data.left_out
    if bad:
        lines.append(f"{len(bad)} bad files, which the spec leaves out (skip_bad = true):")
        lines += [f"  {sentence}" for sentence in shortened(bad)]
    return lines
