"""``presplit report``: what a run, a sweep or a bundle is, as one HTML file to look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import OWN_CODE, Json, show
from presplit.core.errors import (
    DataError,
    GraphError,
    MissingLibrary,
    PresplitError,
    SpecError,
)

if TYPE_CHECKING:
    from presplit.cli.reporting import Around
    from presplit.report.run_facts import Made, RunFacts
    from presplit.train.runs import Run

REPORT = "report.html"
DEVICE = "raspberry-pi-4"
"""Whose energy is estimated where nobody names a device; presplit plan begins with it too."""
NEWER = ("per_class", "confusion", "calibration", "curve", "samples")
"""What results of older runs lack, and is found by judging the run again."""


def report(
    what: Annotated[
        Path, typer.Argument(help="A run directory, a sweep's directory, or a bundle directory.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write it; default: report.html in the directory, BUNDLE.html beside a "
            "bundle."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help=OWN_CODE)] = None,
    measure: Annotated[
        bool,
        typer.Option(
            help="Of a run: time its net beside the dense parent, where that is not known yet; "
            "some seconds."
        ),
    ] = True,
    device: Annotated[
        str | None,
        typer.Option(
            help="The device, as in presplit plan: of a bundle the edge's, of a run the one whose "
            "energy is estimated."
        ),
    ] = None,
    link: Annotated[
        str | None, typer.Option(help="Of a bundle: the link, as in presplit plan.")
    ] = None,
    server: Annotated[str | None, typer.Option(help="Of a bundle: the server's profile.")] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="Of a bundle: show the best plan for this deadline, not its own: 50ms."),
    ] = None,
    edge_costs: Annotated[
        Path | None, typer.Option(help="Of a bundle: costs measured on the device.")
    ] = None,
    server_costs: Annotated[
        Path | None, typer.Option(help="Of a bundle: costs measured on the server.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Of a bundle: the bundle of a dense net to compare with."),
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML file that shows a run, a sweep or a bundle.

    It needs no network, reads well on a phone, in print and in the dark, and can be sent on as it
    is. The net of a run is timed here beside its dense parent. Times in the report of a bundle are
    for a device, a link and a server: what is not said here is taken from [plan] of its spec.
    """
    from presplit.cli.reporting import Around

    kind = kind_of(what)
    around = Around(device, link, server, deadline, edge_costs, server_costs, against)
    _refuse_others(what, kind, around, model, measure=measure)
    found: dict[str, Any] = {}
    if kind == "run":
        path, notes, found = _of_run(what, out, model, device, measure=measure)
    elif kind == "bundle":
        path, notes = _of_bundle(what, out, around)
    else:
        path, notes = _of_sweep(what, out), []
    size = path.stat().st_size
    result = {"report": str(path), "kind": kind, "bytes": size, "notes": notes, **found}
    lines = [*notes, f"Report: {path} ({size / 1e3:.0f} kB); open it in a browser."]
    show(result, "\n".join(lines), as_json=json)


def _refuse_others(
    what: Path, kind: str, around: Around, model: str | None, *, measure: bool
) -> None:
    """Raise `SpecError` for an option that belongs to another kind of directory."""
    of_bundle = [name for name in around.said if (kind, name) != ("run", "--device")]
    if kind != "bundle" and of_bundle:
        raise SpecError(f"{', '.join(of_bundle)}: belongs to a bundle, and {what} is a {kind}")
    if kind != "run" and model is not None:
        raise SpecError(f"--model: belongs to a run, and {what} is a {kind}")
    if kind != "run" and not measure:
        raise SpecError(f"--no-measure: belongs to a run, and {what} is a {kind}")


def kind_of(what: Path) -> str:
    """Whether a directory is a run, a sweep or a bundle, by its files; raises `DataError`."""
    if (what / "sweep.json").is_file():
        return "sweep"
    if (what / "manifest.json").is_file():
        return "bundle"
    if (what / "spec.json").is_file() and (what / "result.json").is_file():
        return "run"
    if (what / "unfinished" / "spec.json").is_file():
        raise DataError(f"{what}: this run is not finished; presplit train --resume finishes it")
    if not what.exists():
        raise DataError(f"{what}: there is no such directory")
    raise DataError(
        f"{what}: expected the directory of a run (spec.json, result.json), of a sweep "
        "(sweep.json) or of a bundle (manifest.json)"
    )


def _of_run(
    what: Path, out: Path | None, model: str | None, device: str | None, *, measure: bool
) -> tuple[Path, list[str], dict[str, Any]]:
    import msgspec

    from presplit.profiles import device_from
    from presplit.report.run_costs import energy_of
    from presplit.report.run_facts import read_run_facts
    from presplit.report.run_page import run_highlights, run_lead, run_sections, run_title
    from presplit.report.sections import write_report

    facts = read_run_facts(what)
    planned = facts.spec.plan.device if facts.spec.plan else None
    facts = dataclasses.replace(facts, device=device_from(device or planned or DEVICE))
    facts = _looked_into(facts, model, measure=measure)
    path = write_report(
        out or what / REPORT,
        title=run_title(facts),
        lead=run_lead(facts),
        facts=run_highlights(facts),
        sections=run_sections(facts),
        footer=f"Made by presplit report {what}.",
    )
    notes = [sentence for sentence in (facts.unknown, facts.untimed) if sentence]
    timed = None if facts.timed is None else msgspec.to_builtins(facts.timed)
    joules = energy_of(facts)
    energy = None
    if joules is not None and facts.device is not None:
        energy = {"device": facts.device.name, "energy_j": joules[0], "dense_j": joules[1]}
    return path, notes, {"timed": timed, "energy": energy}


def _of_bundle(what: Path, out: Path | None, around: Around) -> tuple[Path, list[str]]:
    from presplit.bundle import read
    from presplit.cli.reporting import bundle_facts
    from presplit.report.bundle_page import bundle_highlights, bundle_lead, bundle_sections
    from presplit.report.sections import write_report

    facts = bundle_facts(read(what), around)
    path = write_report(
        out or what.with_name(f"{what.resolve().name}.html"),
        title=f"Bundle {facts.bundle.manifest.name}",
        lead=bundle_lead(facts),
        facts=bundle_highlights(facts),
        sections=bundle_sections(facts),
        footer=f"Made by presplit report {what}.",
    )
    return path, [*facts.notes, *([facts.unknown] if facts.unknown else [])]


def _of_sweep(what: Path, out: Path | None) -> Path:
    from presplit.lab.sweep import read_found
    from presplit.report.fronts import write_sweep

    return write_sweep(out or what / REPORT, read_found(what).to_builtins())


def _looked_into(facts: RunFacts, model: str | None, *, measure: bool) -> RunFacts:
    """The facts with what building the run's net shows; where it cannot be built, with the reason.

    A net of the user's own needs the user's word; the files of the run are shown without it.
    """
    from presplit.cli.own_model import aside, run_of
    from presplit.core.progress import doing

    try:
        with doing("building the net and reading its data"):
            run = run_of(facts.directory, model)
        with aside(), doing("counting the net's layers"):
            made = _made(run)
        result = facts.result
        if any(key not in result for key in NEWER):
            with aside(), doing("judging the net on its test set"):
                result = _judged(run)
    except (MissingLibrary, DataError, GraphError, SpecError) as error:
        if model is not None:
            raise
        return dataclasses.replace(facts, unknown=str(error))
    return _timed(dataclasses.replace(facts, made=made, result=result), run, model, measure=measure)


def _timed(facts: RunFacts, run: Run, model: str | None, *, measure: bool) -> RunFacts:
    """The facts with what an answer takes here, measured unless that is known or not wanted."""
    from presplit.cli.own_model import aside, trusted
    from presplit.core.processor import processor
    from presplit.lab.against_dense import time_run

    known = facts.timed
    if known is not None and (known.processor == processor() or not measure):
        return facts
    if not measure:
        return dataclasses.replace(facts, untimed="Its time was not measured (--no-measure).")
    try:
        with aside():
            found = time_run(run, facts.directory, trusted(model))
    except PresplitError as error:
        return dataclasses.replace(facts, untimed=f"Its time could not be measured: {error}.")
    return dataclasses.replace(facts, timed=found)


def _judged(run: Run) -> dict[str, Any]:
    from presplit.train import runs

    return runs.judge(run)


def _made(run: Run) -> Made:
    from presplit.report.pictures import Connections
    from presplit.report.run_facts import Layer, Made
    from presplit.train import runs

    found = runs.about(run)
    layers = [
        Layer(
            row.name,
            f"{row.n_in} → {row.n_out}",
            row.pattern,
            row.weights,
            round(row.weights / row.density),
            row.macs,
            round(row.macs / row.density),
        )
        for row in found.layers
    ]
    sparse = [
        Connections(name, pattern, family) for name, (pattern, family) in found.patterns.items()
    ]
    return Made(found.net, found.segments, layers, sparse)
