"""``presplit demo``: the main job once through, for real.

It trains, cuts, runs split between processes, and breaks the server.

Three processes besides this one: the tail server, a shaped link, and an edge that never loads
torch. Numbers in the table are what those processes did, not what was planned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, say, show
from presplit.core.errors import MissingLibrary, PresplitError, SpecError
from presplit.lab.stage import Stage

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.spec import Spec
    from presplit.core.types import Floats, Link, Plan
    from presplit.train import Epoch

TOLERANCE = 1e-4
"""Largest difference of logits between torch, the whole graph and the joined segments.

It is relative to the largest logit.
"""


@dataclass(frozen=True)
class Settings:
    """What differs between the demo's data sets.

    It is how to train, and how fast images come while the server is broken.
    """

    epochs: int
    batch: int
    rate: float
    exit: str
    """The submodule that the early exit follows."""
    width: int
    bottleneck: int
    layers: dict[str, float]
    streams: int
    outage_run_s: float
    """How long the images of the last way take to come, as a camera gives them."""
    max_drop: float


SETTINGS = {
    "digits": Settings(
        epochs=20,
        batch=32,
        rate=5e-3,
        exit="stem",
        width=32,
        bottleneck=8,
        layers={"block1.conv": 0.25, "block2.conv": 0.25, "block4.conv": 0.125},
        streams=1,
        outage_run_s=9.0,
        max_drop=0.0,
    ),
    "mnist": Settings(
        epochs=4,
        batch=128,
        rate=5e-3,
        exit="block1",
        width=24,
        bottleneck=16,
        layers={"block1.conv": 0.25, "block2.conv": 0.25, "block3.conv": 0.5, "block4.conv": 0.125},
        streams=6,
        outage_run_s=25.0,
        max_drop=0.001,
    ),
}
SLACK_S = 0.01
"""What an answer may take beyond its deadline."""
CUT = "bottleneck"
"""The submodule after which the net is cut."""
WAYS = ("edge", "server", "split", "split+exit", "split+exit+outage")
KILLED, RESTARTED = 0.28, 0.5
"""When in the last way's run, as shares of it, the server is killed and started again."""


def demo(
    data: Annotated[str, typer.Option(help="digits (nothing to download) or mnist.")] = "digits",
    out: Annotated[Path, typer.Option(help="Directory for runs, bundle and report.")] = Path(
        "runs/demo"
    ),
    link: Annotated[
        str, typer.Option(help="Profile of the link between edge and server.")
    ] = "10mbit",
    deadline_s: Annotated[
        float, typer.Option(min=0.02, help="Every answer is given by then, in seconds.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of both trainings.")] = 0,
    images: Annotated[
        int | None, typer.Option(min=10, help="Test images to answer; default all.")
    ] = None,
    json: Json = False,
) -> None:
    """Train dense and sparse, cut, run edge and server five ways over a shaped link.

    The server is killed in the middle.
    """
    from presplit.profiles import LINKS

    if data not in SETTINGS:
        raise SpecError(f"--data: expected one of {', '.join(SETTINGS)}, got {data!r}")
    found_link = LINKS.find(link)
    settings, began = SETTINGS[data], time.monotonic()
    seconds = settings.outage_run_s
    dense, sparse = _train(data, settings, seed, out)
    bundle, test, labels, threshold = _bundle(data, settings, out, images)
    plans = _plans(bundle, threshold, deadline_s)
    rows: list[dict[str, Any]] = []
    rate, round_trip = found_link.up_bps / 1e6, found_link.rtt_s * 1e3
    say(
        f"[4/5] answering {len(test)} images five ways over {rate:g} Mbit/s with {round_trip:g} ms "
        "round trip"
    )
    with Stage(bundle, found_link, streams=settings.streams) as stage:
        for way in WAYS:
            breaking = (
                (len(test) / seconds, KILLED * seconds, RESTARTED * seconds)
                if way == WAYS[-1]
                else None
            )
            answers = stage.answer(plans[way], out / "test.npy", breaking=breaking)
            rows.append(_row(way, bundle, plans[way], answers, labels))
            say(
                f"      {way}: {100 * rows[-1]['accuracy']:.2f} %, p50 "
                f"{1e3 * rows[-1]['p50_s']:.2f} ms"
            )
        outage = _outage(answers, len(test), deadline_s)
        broken = stage.broken
    result = {
        "dense_accuracy": dense["accuracy"]["final"],
        "dense_weights": dense["weights"],
        "sparse_weights": sparse["weights"],
        "table": rows,
        "outage": outage,
    }
    try:
        report = str(
            _report(out, result, answers, broken, data, found_link, time.monotonic() - began)
        )
    except MissingLibrary as missing:
        report = f"none: {missing}"
    say(f"[5/5] done in {time.monotonic() - began:.0f} s")
    show(result, _text(result, report), as_json=json)
    if outage["lost"] or outage["longest_s"] > deadline_s + SLACK_S:
        say("presplit: the promise did not hold: an answer was lost, or later than its deadline")
        raise typer.Exit(1)


def _train(
    data: str, settings: Settings, seed: int, out: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train both nets into run directories; give their results."""
    from presplit.train import runs

    say(
        f"[1/5] training on {data}: a dense net, then a predefined-sparse one with an early exit "
        f"after {settings.exit}"
    )
    results: list[dict[str, Any]] = []
    for name, spec in _specs(data, settings, seed).items():
        results.append(runs.train(spec, out / name, on_epoch=_progress(name, settings.epochs)))
        net, final = results[-1], 100 * results[-1]["accuracy"]["final"]
        say(f"      {name}: {net['weights']:,} weights, {final:.2f} % on the test set")
    return results[0], results[1]


def _progress(name: str, epochs: int) -> Callable[[Epoch], None]:
    """Say about five times how a training is going."""

    def note(epoch: Epoch) -> None:
        if epoch.number % max(1, epochs // 5) == 0:
            seen = f"validation {100 * epoch.accuracy[-1]:.2f} %, {epoch.seconds:.1f} s an epoch"
            say(f"      {name}, epoch {epoch.number} of {epochs}: {seen}")

    return note


def _specs(data: str, settings: Settings, seed: int) -> dict[str, Spec]:
    """The two specs of the demo."""
    from presplit.core.spec import spec_from

    common = {
        "seed": seed,
        "data": {"name": data},
        "model": {"kind": "cnn", "width": settings.width, "bottleneck": settings.bottleneck},
        "training": {"epochs": settings.epochs, "batch": settings.batch, "rate": settings.rate},
    }
    sparse = {
        "sparsity": {"family": "grouped", "layers": settings.layers},
        "exits": {"after": [settings.exit]},
    }
    return {
        "dense": spec_from({"name": f"{data}-dense", **common}),
        "sparse": spec_from({"name": data, **common, **sparse}),
    }


def _bundle(
    data: str, settings: Settings, out: Path, images: int | None
) -> tuple[Bundle, Floats, Sequence[int], float]:
    """Export and check the sparse net, put test images into a file, choose the exit's threshold."""
    import msgspec
    import numpy as np

    from presplit.train import choose_thresholds, evaluate, export, runs

    run = runs.read_run(out / "sparse")
    say("[2/5] exporting to ONNX, cutting at every boundary")
    spec = msgspec.to_builtins(run.spec)
    bundle = export(
        run.model,
        run.held_out,
        out / f"{data}.bundle",
        name=data,
        labels=run.data.labels,
        spec=spec,
    )
    samples = run.data.test.take(slice(0, images))
    np.save(out / "test.npy", samples.x)
    worst = _agreement(bundle, run.model, samples.x)
    say(
        f"[3/5] torch, the whole graph and the joined segments agree to {worst:.1e} of the largest "
        "logit"
    )
    chosen = choose_thresholds(
        evaluate(run.model, run.held_out), run.held_out.y, max_drop=settings.max_drop
    )
    return bundle, samples.x, samples.y.tolist(), chosen.thresholds[0]


def _agreement(bundle: Bundle, model: Any, images: Floats) -> float:
    """The largest difference of logits, relative to the largest logit.

    Torch is compared with the exported graph as it was before it was cut, and with the joined
    segments at every split, every exit included.
    """
    import numpy as np

    from presplit.runtime.engines.onnxruntime import Engine
    from presplit.train import evaluate
    from presplit.train.data import Samples
    from presplit.train.export import to_onnx

    x, last = images[:64], bundle.net.last
    own = evaluate(model, Samples(x, np.zeros(len(x), np.int64)))
    early = bundle.net.exits[0]
    whole = Engine(to_onnx(model, x).SerializeToString()).run({"input": x})
    pairs = [(whole[f"logits_{number}"], own[number]) for number in range(len(own))]
    for split in range(last + 1):
        before, after = ([early.name], []) if early.after <= split else ([], [early.name])
        found: dict[str, Any] = {}
        values = x
        if split > 0:
            found |= Engine(bundle.segment(0, split, exits=before)).run({"boundary": x})
            values = found["logits" if split == last else f"boundary_{split:02d}"]
        if split < last:
            found |= Engine(bundle.segment(split, last, exits=after)).run({"boundary": values})
        pairs += [(found[f"logits.{early.name}"], own[0]), (found["logits"], own[-1])]
    worst = max(float(np.abs(one - other).max()) for one, other in pairs) / max(
        1.0, float(np.abs(own).max())
    )
    if not worst <= TOLERANCE:
        raise PresplitError(
            f"torch, the whole graph and the joined segments differ by {worst:.2g} (relative)"
        )
    return worst


def _plans(bundle: Bundle, threshold: float, deadline_s: float) -> dict[str, Plan]:
    """The plan of each way.

    Raw images are sent in 8 bits a pixel, which loses at most half a step.
    """
    from presplit.core.types import Plan

    last = bundle.net.last
    cut = max(
        k for k, boundary in enumerate(bundle.net.boundaries) if boundary.name.startswith(CUT)
    )
    split = Plan(cut, codec="int8", deadline_s=deadline_s)
    early = Plan(cut, {bundle.net.exits[0].name: threshold}, codec="int8", deadline_s=deadline_s)
    return {
        "edge": Plan(last, deadline_s=deadline_s),
        "server": Plan(0, codec="int8", deadline_s=deadline_s),
        "split": split,
        "split+exit": early,
        "split+exit+outage": early,
    }


def _row(
    way: str, bundle: Bundle, plan: Plan, answers: list[dict[str, Any]], labels: Sequence[int]
) -> dict[str, Any]:
    """One row of the table, from what the edge process said."""
    elapsed = sorted(a["elapsed_s"] for a in answers)
    hits = [answer["label"] == labels[answer["sample"]] for answer in answers]
    count = len(answers)
    macs = _macs(bundle, plan)
    return {
        "way": way,
        "accuracy": sum(hits) / count,
        "edge_share": sum(a["where"] == "edge" for a in answers) / count,
        "p50_s": elapsed[math.ceil(0.5 * count) - 1],
        "p99_s": elapsed[math.ceil(0.99 * count) - 1],
        "up_bytes": sum(a["up_bytes"] for a in answers) / count,
        "edge_macs": sum(macs["sure" if a["why"] == "confident" else "asked"] for a in answers)
        / count,
    }


def _macs(bundle: Bundle, plan: Plan) -> dict[str, int]:
    """What the edge computes for a sample that leaves at the early exit, and one that does not."""
    from presplit.core.cost import edge_macs

    manifest, net = bundle.manifest, bundle.net
    parts = [manifest.exits.get(exit_.name) for exit_ in net.exits]
    found = edge_macs(
        net,
        split=plan.split,
        used=plan.thresholds,
        segment_macs=[part.macs for part in manifest.segments],
        exit_macs=[part.macs if part else 0 for part in parts],
    )
    return {"sure": found[0], "asked": found[-1]}


def _outage(answers: list[dict[str, Any]], asked: int, deadline_s: float) -> dict[str, Any]:
    """What the outage did: answers that never came, and the longest answer."""
    return {
        "lost": asked - len({answer["sample"] for answer in answers}),
        "longest_s": max(answer["elapsed_s"] for answer in answers),
        "deadline_s": deadline_s,
    }


def _report(
    out: Path,
    result: dict[str, Any],
    answers: list[dict[str, Any]],
    broken: tuple[float, float],
    data: str,
    link: Link,
    seconds: float,
) -> Path:
    """Write the HTML report; give its path."""
    from presplit.core import units
    from presplit.report.page import Figure, write_page
    from presplit.report.plots import accuracy_against_bytes, answers_over_time

    outage = result["outage"]
    over_time = answers_over_time(answers, outage=broken, deadline_s=outage["deadline_s"])
    sparse, dense = result["sparse_weights"], result["dense_weights"]
    return write_page(
        out / "report.html",
        title=f"Presplit demo: {data}",
        lead=(
            "One predefined-sparse net with an early exit, cut between an edge and a server, "
            f"{seconds:.0f} s in all."
        ),
        rows=[{**row, "weights": sparse} for row in result["table"]],
        facts={
            f"Dense net, {dense:,} weights": units.percent(result["dense_accuracy"]),
            f"Sparse net, {sparse:,} weights": units.percent(result["table"][0]["accuracy"]),
            "Answers lost in the outage": str(outage["lost"]),
            "Longest answer in the outage": units.seconds(outage["longest_s"]),
            "Deadline": units.seconds(outage["deadline_s"]),
            f"Link, round trip {units.seconds(link.rtt_s)}": f"{link.up_bps / 1e6:g} Mbit/s",
        },
        figures=[
            Figure(
                "Accuracy against bytes",
                "Up and to the left is better.",
                accuracy_against_bytes(result["table"]),
            ),
            Figure(
                "Answers across the outage",
                "The server was killed and started again in the shaded span.",
                over_time,
            ),
        ],
        footer="Made by presplit demo.",
    )


def _text(result: dict[str, Any], report: str) -> str:
    """The table and the outage line, for people."""
    from presplit.core.tables import WAYS as COLUMNS
    from presplit.core.tables import table

    outage = result["outage"]
    rows = [{**row, "weights": result["sparse_weights"]} for row in result["table"]]
    return "\n".join(
        [
            table(rows, COLUMNS),
            "",
            f"Dense net: {100 * result['dense_accuracy']:.2f} % with {result['dense_weights']:,} "
            "weights; "
            f"the sparse net has {result['sparse_weights'] / result['dense_weights']:.3f} of them.",
            f"Outage: {outage['lost']} answers lost; longest answer "
            f"{1e3 * outage['longest_s']:.1f} ms, "
            f"deadline {1e3 * outage['deadline_s']:g} ms.",
            f"Report: {report}",
        ]
    )
