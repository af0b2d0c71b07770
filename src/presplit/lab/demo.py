"""The main job once through, for real: train, cut, answer five ways, break the server.

Three processes besides this one: the tail server, a shaped link, and an edge that never loads
torch. Numbers in the table are what those processes did, not what was planned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.core.errors import PresplitError
from presplit.core.shelf import Shelf
from presplit.lab.stage import Breaking, Stage

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.link import Link
    from presplit.core.plans import Plan
    from presplit.core.spec import Spec
    from presplit.core.types import Floats
    from presplit.train import Epoch

TOLERANCE = 1e-4
"""Largest difference of logits between torch and the joined segments.

It is relative to the largest logit.
"""


@dataclass(frozen=True)
class Settings:
    """What differs between the demo's data sets.

    It is how to train, and how fast images come while the server is broken.
    """

    name: str
    epochs: int
    batch: int
    rate: float
    exit: str
    """The submodule that the early exit follows."""
    width: int
    bottleneck: int
    layers: Mapping[str, float]
    streams: int
    outage_run_s: float
    """How long the images of the last way take to come, as a camera gives them."""
    max_drop: float


DIGITS = Settings(
    name="digits",
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
)
MNIST = Settings(
    name="mnist",
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
)
DEMOS = Shelf("data set of the demo", {one.name: one for one in (DIGITS, MNIST)})
"""The data sets that the demo knows."""

CUT = "bottleneck"
"""The submodule after which the net is cut."""
WAYS = ("edge", "server", "split", "split+exit", "split+exit+outage")
KILLED, RESTARTED = 0.28, 0.5
"""When in the last way's run, as shares of it, the server is killed and started again."""


@dataclass(frozen=True)
class Shown:
    """What one demo did.

    ``rows``: one for each of `WAYS`, as `presplit.report.page.WAYS` shows them. ``answers`` are
    those of the last way; ``broken`` is when its server was killed and when it listened again, in
    seconds after the first answer.
    """

    data: str
    link: Link
    deadline_s: float
    dense: Mapping[str, Any]
    sparse: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    answers: Sequence[Mapping[str, Any]]
    asked: int
    broken: tuple[float, float]
    seconds: float

    @property
    def lost(self) -> int:
        """How many images got no answer in the outage."""
        return self.asked - len({answer["sample"] for answer in self.answers})

    @property
    def longest_s(self) -> float:
        """What the longest answer in the outage took."""
        return max(answer["elapsed_s"] for answer in self.answers)

    def to_builtins(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "dense_accuracy": self.dense["accuracy"]["final"],
            "dense_weights": self.dense["weights"],
            "sparse_weights": self.sparse["weights"],
            "table": list(self.rows),
            "outage": {
                "lost": self.lost,
                "longest_s": self.longest_s,
                "deadline_s": self.deadline_s,
            },
        }


def show(
    settings: Settings,
    out: Path,
    *,
    link: Link,
    deadline_s: float,
    seed: int = 0,
    images: int | None = None,
    tell: Callable[[str], None] = print,
) -> Shown:
    """Run the whole demo in the directory ``out``, with the first ``images`` of the test set.

    ``tell`` is given a line for people at each step. Raises `PresplitError` if the joined segments
    do not compute what the trained net does, or a process fails.
    """
    began = time.monotonic()
    dense, sparse = _train(settings, seed, out, tell)
    ready = _bundle(settings, out, images, tell)
    plans = _plans(ready.bundle, ready.threshold, deadline_s)
    asked, seconds = len(ready.labels), settings.outage_run_s
    mbit, round_trip_ms = link.up_bps / 1e6, link.rtt_s * 1e3
    tell(
        f"[4/5] answering {asked} images five ways over {mbit:g} Mbit/s with {round_trip_ms:g} ms "
        "round trip"
    )
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    with Stage(ready.bundle, link, streams=settings.streams) as stage:
        for way, plan in plans.items():
            breaking = None
            if way == WAYS[-1]:
                breaking = Breaking(asked / seconds, KILLED * seconds, RESTARTED * seconds)
            answers = stage.answer(plan, ready.images, breaking=breaking)
            row = _row(way, ready, plan, answers)
            rows.append(row)
            tell(f"      {way}: {100 * row['accuracy']:.2f} %, p50 {1e3 * row['p50_s']:.2f} ms")
        broken = stage.broken
    took_s = time.monotonic() - began
    tell(f"[5/5] done in {took_s:.0f} s")
    return Shown(
        settings.name, link, deadline_s, dense, sparse, rows, answers, asked, broken, took_s
    )


def _train(
    settings: Settings, seed: int, out: Path, tell: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train both nets into run directories; give their results."""
    from presplit.train import runs

    tell(
        f"[1/5] training on {settings.name}: a dense net, then a predefined-sparse one with an "
        f"early exit after {settings.exit}"
    )
    results: dict[str, dict[str, Any]] = {}
    for name, spec in _specs(settings, seed).items():
        progress = _progress(name, settings.epochs, tell)
        results[name] = runs.train(spec, out / name, on_epoch=progress)
        net, final = results[name], 100 * results[name]["accuracy"]["final"]
        tell(f"      {name}: {net['weights']:,} weights, {final:.2f} % on the test set")
    return results["dense"], results["sparse"]


def _progress(name: str, epochs: int, tell: Callable[[str], None]) -> Callable[[Epoch], None]:
    """Say about five times how a training is going."""

    def note(epoch: Epoch) -> None:
        if epoch.number % max(1, epochs // 5) == 0:
            seen = f"validation {100 * epoch.accuracy[-1]:.2f} %, {epoch.seconds:.1f} s an epoch"
            tell(f"      {name}, epoch {epoch.number} of {epochs}: {seen}")

    return note


def _specs(settings: Settings, seed: int) -> dict[str, Spec]:
    """The two specs of the demo."""
    from presplit.core.spec import spec_from

    common = {
        "seed": seed,
        "data": {"name": settings.name},
        "model": {"kind": "cnn", "width": settings.width, "bottleneck": settings.bottleneck},
        "training": {"epochs": settings.epochs, "batch": settings.batch, "rate": settings.rate},
    }
    sparse = {
        "sparsity": {"family": "grouped", "layers": dict(settings.layers)},
        "exits": {"after": [settings.exit]},
    }
    return {
        "dense": spec_from({"name": f"{settings.name}-dense", **common}),
        "sparse": spec_from({"name": settings.name, **common, **sparse}),
    }


@dataclass(frozen=True)
class _Ready:
    """What the five ways need: a bundle, a file of images with their labels, a threshold."""

    bundle: Bundle
    images: Path
    labels: Sequence[int]
    threshold: float


def _bundle(
    settings: Settings, out: Path, images: int | None, tell: Callable[[str], None]
) -> _Ready:
    """Export and check the sparse net, put test images into a file, choose the exit's threshold."""
    import msgspec
    import numpy as np

    from presplit.train import choose_thresholds, evaluate, export, runs

    run = runs.read_run(out / "sparse")
    tell("[2/5] exporting to ONNX, cutting at every boundary")
    bundle = export(
        run.model,
        run.held_out,
        out / f"{settings.name}.bundle",
        name=settings.name,
        labels=run.data.labels,
        spec=msgspec.to_builtins(run.spec),
    )
    samples = run.data.test.take(slice(0, images))
    np.save(out / "test.npy", samples.x)
    worst = agreement(bundle, run.model, samples.x)
    tell(
        f"[3/5] torch and the segments, joined at every split, agree to {worst:.1e} of the largest "
        "logit"
    )
    chosen = choose_thresholds(
        evaluate(run.model, run.held_out), run.held_out.y, max_drop=settings.max_drop
    )
    return _Ready(bundle, out / "test.npy", samples.y.tolist(), chosen.thresholds[0])


def agreement(bundle: Bundle, model: Any, images: Floats) -> float:
    """The largest difference of logits, relative to the largest logit.

    Torch is compared with the segments joined at every split, every exit included. (The exported
    graph as it was before it was cut is compared by every export.) Raises `PresplitError` beyond
    `TOLERANCE`.
    """
    import numpy as np

    from presplit.train import evaluate
    from presplit.train.data import Samples

    x = images[:64]
    own = evaluate(model, Samples(x, np.zeros(len(x), np.int64)))
    names = [exit_.name for exit_ in bundle.net.exits]
    worst = 0.0
    for split in range(bundle.net.last + 1):
        found = _joined(bundle, split, x)
        for name, expected in zip(names, own, strict=True):
            worst = max(worst, float(np.abs(found[name] - expected).max()))
    worst /= max(1.0, float(np.abs(own).max()))
    if not worst <= TOLERANCE:  # also where it is no number
        raise PresplitError(f"torch and the joined segments differ by {worst:.2g} (relative)")
    return worst


def _joined(bundle: Bundle, split: int, x: Floats) -> dict[str, Floats]:
    """Logits of every exit, from two engines that meet at ``split``."""
    from presplit.runtime.engines.onnxruntime import Engine

    found: dict[str, Floats] = {}
    values, last = x, bundle.net.last
    for start, stop in ((0, split), (split, last)):
        if start == stop:
            continue
        early = [one.name for one in bundle.net.exits[:-1] if start < one.after <= stop]
        model = bundle.runnable(start, stop, exits=early)
        outputs = Engine(model.onnx).run({model.input: values})
        found |= {name: outputs[logits] for name, logits in model.logits.items()}
        if model.boundary is not None:
            values = outputs[model.boundary]
    return found


def _plans(bundle: Bundle, threshold: float, deadline_s: float) -> dict[str, Plan]:
    """The plan of each way.

    Raw images are sent in 8 bits a pixel, which loses at most half a step.
    """
    from presplit.core.plans import Plan

    names = [boundary.name for boundary in bundle.net.boundaries]
    cut = max(number for number, name in enumerate(names) if name.startswith(CUT))
    early = {bundle.net.exits[0].name: threshold}
    with_exit = Plan(cut, early, codec="int8", deadline_s=deadline_s)
    return {
        "edge": Plan(bundle.net.last, deadline_s=deadline_s),
        "server": Plan(0, codec="int8", deadline_s=deadline_s),
        "split": Plan(cut, codec="int8", deadline_s=deadline_s),
        "split+exit": with_exit,
        "split+exit+outage": with_exit,
    }


def _row(way: str, ready: _Ready, plan: Plan, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table, from what the edge process said."""
    count = len(answers)
    elapsed = sorted(answer["elapsed_s"] for answer in answers)
    hits = sum(int(one["label"]) == ready.labels[int(one["sample"])] for one in answers)
    sure_macs, asked_macs = _macs(ready.bundle, plan)
    macs = [sure_macs if answer["why"] == "confident" else asked_macs for answer in answers]
    return {
        "way": way,
        "accuracy": hits / count,
        "edge_share": sum(answer["where"] == "edge" for answer in answers) / count,
        "p50_s": elapsed[math.ceil(0.5 * count) - 1],
        "p99_s": elapsed[math.ceil(0.99 * count) - 1],
        "up_bytes": sum(answer["up_bytes"] for answer in answers) / count,
        "edge_macs": sum(macs) / count,
    }


def _macs(bundle: Bundle, plan: Plan) -> tuple[int, int]:
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
    return found[0], found[-1]
