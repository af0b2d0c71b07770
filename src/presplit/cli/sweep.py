"""``presplit sweep``: a grid of specs with several seeds, trained side by side and compared."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, say, show
from presplit.cli.sweep_text import text
from presplit.core.errors import SpecError, context

if TYPE_CHECKING:
    from presplit.lab.sweep import Found

REPORT = "report.html"


def sweep(
    spec: Annotated[Path, typer.Argument(help="A spec.toml, from which every point starts.")],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V1,V2,...",
            help="A key of the spec and its values, as sparsity.density=1,0.5,0.25; several make "
            "a grid. Density 1 is the dense net.",
        ),
    ] = [],
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each point, with seeds from the spec's own on.")
    ] = 3,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time; they share processors and GPUs.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the sweep; default runs/NAME-sweep.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Your own model as module:factory; its code is imported and runs."),
    ] = None,
    set: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="Change one key of the spec.")
    ] = [],
    max_drop: Annotated[
        float,
        typer.Option(
            help="Early exits: thresholds that lose at most so much accuracy, 0..1, on held-out "
            "samples."
        ),
    ] = 0.005,
    measure: Annotated[
        bool, typer.Option(help="Time every net at the end, all in turn in one process.")
    ] = True,
    engine: Annotated[
        str,
        typer.Option(
            help="local: processes of this machine; ray: the machines of a Ray cluster "
            "(RAY_ADDRESS); here: one after another in this process."
        ),
    ] = "local",
    json: Json = False,
) -> None:
    """Train every point of a grid with several seeds, and compare them with the dense net.

    The same command goes on where it was stopped: what is finished is not trained again. The
    directory holds sweep.json, sweep.csv, points.csv, report.html, and every run.
    """
    from presplit.cli.own_model import trusted
    from presplit.core.spec import assigned, read_tables
    from presplit.lab import sweep as lab
    from presplit.train.runs import laid_on_start

    if not grid:
        raise SpecError(
            "nothing is varied: say what, as --grid sparsity.density=1,0.5,0.25 (presplit train "
            "trains one spec)"
        )
    changes, raw = assigned(set, over=_own(model)), read_tables(spec)
    with context(str(spec)):
        tables = laid_on_start(raw, changes)
        if model is not None:
            tables.pop("model", None)
        tables = assigned(set, over=tables | _own(model))
    settings = lab.Settings(
        seeds, jobs, max_drop, lab.SECONDS_EACH if measure else 0.0, lab.engine_named(engine)
    )
    directory = out or Path("runs") / f"{tables.get('name', 'net')}-sweep"
    with _can_go_on(directory):
        found = lab.sweep(
            tables,
            [lab.axis(text) for text in grid],
            directory,
            settings,
            own=trusted(model),
            command=shlex.join(["presplit", *sys.argv[1:]]),
        )
    report = reported(found, directory)
    written = {**found.to_builtins(), "directory": str(directory), "report": report}
    show(written, text(found, directory, report), as_json=json)
    if found.failed:
        say(failures(found))
        raise typer.Exit(1)


def _own(model: str | None) -> dict[str, Any]:
    """The section that ``--model`` makes."""
    return {} if model is None else {"model": {"kind": "own", "factory": model}}


@contextlib.contextmanager
def _can_go_on(directory: Path) -> Iterator[None]:
    """Say how a sweep that is interrupted is finished."""
    try:
        yield
    except KeyboardInterrupt:
        if directory.is_dir():
            say(f"stopped; the same command goes on with what is in {directory}")
        raise


def reported(found: Found, directory: Path) -> str:
    """Where the report of the sweep is; why there is none, if there is none."""
    from presplit.report.fronts import write_sweep

    return str(write_sweep(directory / REPORT, found.to_builtins()))


def failures(found: Found) -> str:
    """Which runs failed and why, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for row in found.failed:
        reasons.setdefault(row.reason or "", []).append(row.run)
    lines = [f"  {', '.join(runs)}: {reason}" for reason, runs in reasons.items()]
    count = f"{len(found.failed)} of {len(found.rows)}"
    return "\n".join([f"presplit: {count} runs failed; the same command tries them again:", *lines])
