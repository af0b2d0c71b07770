"""The nets of the demo: how both are trained, and the bundles that they become."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presplit.core.errors import BundleError, PresplitError
from presplit.core.progress import about
from presplit.core.shelf import Shelf

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.spec import Spec
    from presplit.core.types import Floats
    from presplit.train.data import Samples
    from presplit.train.runs import Run

TOLERANCE = 1e-4
"""Largest difference of logits between torch and the joined segments.

It is relative to the largest logit.
"""


CODECS = ("float32", "int8", "int4", "png")
"""What is tried at every boundary: more of them take longer."""


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
    tail: int
    layers: Mapping[str, float]
    streams: int
    outage_run_s: float
    """How long the images of the last way take to come, as a camera gives them."""
    max_drop: float
    images: int | None = None
    """How many test images are answered unless it is said; all if None."""
    timed: int = 40
    """How many images a way answers that keeps all on the edge: each takes the same time."""
    measured_s: float = 2.5
    """How long the parts of our net are measured for the server."""


DIGITS = Settings(
    name="digits",
    epochs=16,
    batch=32,
    rate=5e-3,
    exit="stem",
    width=32,
    bottleneck=8,
    tail=260,
    layers={"block1.conv": 0.25, "block2.conv": 0.25, "block4.conv": 0.2},
    streams=3,
    outage_run_s=8.0,
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
    tail=96,
    layers={"block1.conv": 0.25, "block2.conv": 0.25, "block3.conv": 0.5, "block4.conv": 0.125},
    streams=6,
    outage_run_s=25.0,
    max_drop=0.001,
    images=2000,
)
DEMOS = Shelf("data set of the demo", {one.name: one for one in (DIGITS, MNIST)})
"""The data sets that the demo knows."""


def train(
    settings: Settings, seed: int, out: Path, tell: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train both nets into run directories; give their results."""
    tell(
        f"[1/5] training on {settings.name}: a dense net, then a predefined-sparse one with an "
        f"early exit after {settings.exit}"
    )
    results: dict[str, dict[str, Any]] = {}
    for name, spec in _specs(settings, seed).items():
        results[name] = _trained(name, spec, out, tell)
    return results["dense"], results["sparse"]


def sparse_bundle(
    settings: Settings, out: Path, seed: int, tell: Callable[[str], None]
) -> tuple[Bundle, Floats]:
    """The bundle of the sparse net and the test images: those in ``out``, or made anew."""
    import numpy as np

    from presplit.bundle import read
    from presplit.train import runs

    path, images = out / f"{settings.name}.bundle", out / "test.npy"
    with contextlib.suppress(BundleError, OSError, ValueError):
        found = read(path), np.load(images, allow_pickle=False)
        tell(f"      the net is there: {path}")
        return found
    tell(f"      training on {settings.name}: a predefined-sparse net with an early exit")
    _trained("sparse", _specs(settings, seed)["sparse"], out, tell)
    run = runs.read_run(out / "sparse")
    np.save(images, run.data.test.x)
    return _export(run, path), run.data.test.x


def _trained(name: str, spec: Spec, out: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Train one net; give its result."""
    from presplit.train import runs

    with about(f"training the {name} net"):
        net = runs.train(spec, out / name, replace=True)
    final = 100 * net["accuracy"]["final"]
    tell(f"      {name}: {net['weights']:,} weights, {final:.2f} % on the test set")
    return net


def _specs(settings: Settings, seed: int) -> dict[str, Spec]:
    """The two specs of the demo."""
    from presplit.core.spec import spec_from

    common = {
        "seed": seed,
        "data": {"name": settings.name},
        "model": {
            "kind": "cnn",
            "width": settings.width,
            "bottleneck": settings.bottleneck,
            "tail": settings.tail,
        },
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
class Ready:
    """What the ways need: both bundles, files of images, their labels, what was held out."""

    dense: Bundle
    ours: Bundle
    images: Path
    some: Path
    labels: Sequence[int]
    held_out: Samples


def bundles(
    settings: Settings, out: Path, images: int | None, tell: Callable[[str], None]
) -> Ready:
    """Export both nets, check the sparse one, put test images into files."""
    import numpy as np

    from presplit.train import runs

    tell("[2/5] exporting to ONNX, in float32 and int8, cutting at every boundary")
    trained = {name: runs.read_run(out / name) for name in ("dense", "sparse")}
    dense = _export(trained["dense"], out / f"{settings.name}-dense.bundle")
    ours = _export(trained["sparse"], out / f"{settings.name}.bundle")
    run = trained["sparse"]
    samples = run.data.test.take(slice(0, images))
    np.save(out / "test.npy", samples.x)
    np.save(out / "some.npy", samples.x[: settings.timed])
    worst = agreement(ours, run.model, samples.x)
    tell(
        f"[3/5] torch and the segments, joined at every split, agree to {worst:.1e} of the largest "
        "logit"
    )
    files = out / "test.npy", out / "some.npy"
    return Ready(dense, ours, *files, samples.y.tolist(), run.held_out)


def _export(run: Run, path: Path) -> Bundle:
    """The bundle of a run, in both forms."""
    import msgspec

    from presplit.train import export

    return export(
        run.model,
        run.held_out,
        path,
        name=path.stem,
        labels=run.data.labels,
        codecs=CODECS,
        forms=("float32", "int8"),
        spec=msgspec.to_builtins(run.spec),
    )


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
