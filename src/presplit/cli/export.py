"""``presplit export``: a trained run, or any ONNX classifier, becomes a bundle.

It is cut at every boundary.

The second way needs no torch: the file is cut as it is, and what is cut is checked against the file
by ONNX Runtime.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, read_array, read_samples, say, show
from presplit.core.errors import BundleError, GraphError, InputError, SpecError, context

if TYPE_CHECKING:
    import numpy as np

    from presplit import graph
    from presplit.bundle import Bundle
    from presplit.core.types import Encoding, Floats

TOLERANCE = 1e-4
"""Largest difference between the file and its pieces, relative to the largest logit.

Float32 sums in another order.
"""
AT_ONCE = 64
"""Samples that run together."""


def export(
    run: Annotated[Path | None, typer.Argument(help="A run directory of presplit train.")] = None,
    onnx: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL.onnx", help="Any ONNX classifier instead of a run."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Bundle directory; default RUN/NAME.bundle or MODEL.bundle.")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="With --from: a .npy file (n, *shape) that gives the ranges for int8."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="With --samples: a .npy file (n,) of classes, from which plans are made."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Cut a run, or an ONNX classifier, at every boundary into a bundle.

    The bundle is checked against torch, or against the file.
    """
    from presplit.cli.inspect import describe, text

    if (run is None) == (onnx is None):
        raise SpecError(
            "expected a run directory or --from MODEL.onnx, got "
            f"{'neither' if run is None else 'both'}"
        )
    if onnx is None and (samples or labels):
        raise SpecError(
            "--samples and --labels belong to --from MODEL.onnx: a run has its own held-out samples"
        )
    if labels and not samples:
        raise SpecError(
            "--labels needs the samples that it names the classes of: give --samples x.npy"
        )
    bundle = _from_run(run, out) if run else _from_onnx(onnx or Path(), out, samples, labels)
    facts = describe(bundle)
    following = "plan" if bundle.manifest.validation else "serve"
    show(
        facts,
        f"{text(facts)}\nBundle: {bundle.path}. Next: presplit {following} {bundle.path}",
        as_json=json,
    )


def _from_run(run: Path, out: Path | None) -> Bundle:
    import msgspec

    from presplit.cli.own_model import aside, load
    from presplit.train import export as write_bundle
    from presplit.train import runs

    with aside():
        found = runs.read_run(run, load)
    name, spec = found.spec.name, msgspec.to_builtins(found.spec)
    path = out or run / f"{name}.bundle"
    policy = found.spec.exits.policy if found.spec.exits else "confidence"
    labels = found.data.labels
    with _replacing(path), aside():
        return write_bundle(
            found.model, found.held_out, path, name=name, labels=labels, policy=policy, spec=spec
        )


def _from_onnx(file: Path, out: Path | None, samples: Path | None, labels: Path | None) -> Bundle:
    """The bundle of an ONNX file.

    Its values are seen on ``samples``, its exits judged by ``labels``.
    """
    import importlib.metadata
    import re

    from presplit import graph
    from presplit.bundle import judge, pack
    from presplit.codecs import CODECS
    from presplit.policies import EXITS

    read = graph.read(file)
    with context(str(file)):
        row = graph.row(read)
        pieces = graph.cut(row)
    x = None if samples is None else _fitting(samples, row.net.boundaries[0].shape)
    classes = {exit_.classes for exit_ in row.net.exits}
    y = None if labels is None or x is None else _classes(labels, len(x), classes)
    plain = [{"float32": CODECS["float32"].calibrate(0, 0)} for _ in row.net.boundaries]
    whole = _Whole(row, pieces, graph.ports(row, plain))
    with context(str(file)):
        whole.check(graph.load(file))
    encodings: list[dict[str, Encoding]]
    evidence = None
    if x is None:
        rangeless = [
            codec for codec in CODECS.values() if codec.calibrate(0, 1) == codec.calibrate(0, 2)
        ]
        encodings = [
            {codec.name: codec.calibrate(0, 1) for codec in rangeless} for _ in row.net.boundaries
        ]
    else:
        ranges, logits = whole.run(x)
        encodings = [
            {name: codec.calibrate(*limits) for name, codec in CODECS.items()} for limits in ranges
        ]
        if y is not None:
            evidence = judge("confidence", EXITS["confidence"], logits, y)
    with context(str(file)):
        ports = graph.ports(row, encodings)
    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:63] or "model"
    versions = {"onnx": importlib.metadata.version("onnx")}
    path = out or file.with_suffix(".bundle")
    with _replacing(path):
        bundle = pack(
            path, row.net, pieces, ports, encodings, name=name, versions=versions, evidence=evidence
        )
    if x is None:
        say("no --samples, so no ranges are known: the bundle has no int8")
    if evidence is None:
        say("no --labels, so no accuracy is known: the bundle can be served and run, not planned")
    return bundle


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[None]:
    """Say that a plan which a bundle at ``path`` carried is gone.

    It was made for what was there before.
    """
    from presplit.bundle import read

    planned = False
    with contextlib.suppress(BundleError):
        planned = read(path).plan is not None
    yield
    if planned:
        say(
            f"{path} carried a plan, made for what was there before; it is gone: presplit plan "
            f"{path} makes another"
        )


class _Whole:
    """All pieces joined into one model that gives every boundary and every exit."""

    def __init__(
        self, row: graph.Row, pieces: graph.Fragments, ports: list[tuple[dict[str, bytes], bytes]]
    ) -> None:
        from presplit.runtime.engines.onnxruntime import Engine

        parts = [*pieces.segments, *pieces.exits.values()]
        leaves = [leave for _, leave in ports[1:]]
        entry = ports[0][0]["float32"]
        self.row = row
        self.engine = Engine(
            b"".join([pieces.header, entry, *(piece.onnx for piece in parts), *leaves])
        )
        self.exits = [f"logits.{exit_.name}" for exit_ in row.net.exits[:-1]] + ["logits"]
        self.boundaries = [name for name in self.engine.outputs if name not in self.exits] + [
            "logits"
        ]

    def check(self, model: Any) -> None:
        """Raise `GraphError` if the pieces do not give what ``model``, the file as it is, gives."""
        import numpy as np

        from presplit import graph
        from presplit.runtime.engines.onnxruntime import Engine

        fixed = graph.fixed_batch(model)
        batch = fixed or 2
        shape = (2 * batch, *self.row.net.boundaries[0].shape)
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        original = Engine(model.SerializeToString())
        halves = [original.run({self.row.graph.input: part}) for part in (x[:batch], x[batch:])]
        cure = (
            ""
            if fixed is None
            else f": its batch of {fixed} cannot be opened; export the net with a dynamic batch"
        )
        try:
            found = self.engine.run({"boundary": x})
        except InputError as error:
            raise GraphError(
                f"its pieces do not take {len(x)} samples{cure or f' ({error})'}"
            ) from error
        for output, exit_ in zip(self.row.logits, self.exits, strict=True):
            expected = np.concatenate([half[output] for half in halves])
            same_shape = found[exit_].shape == expected.shape
            difference = (
                np.abs(found[exit_] - expected).max() / max(1.0, np.abs(expected).max())
                if same_shape
                else 1.0
            )
            if not difference <= TOLERANCE:
                how = f"differ from the whole at output {output!r} by {difference:.2g} (relative)"
                raise GraphError(
                    f"its pieces {how}{cure or ': samples of one batch depend on each other'}"
                )

    def run(self, x: Floats) -> tuple[list[tuple[float, float]], Floats]:
        """The range of every boundary over ``x``, the input first, and the logits.

        The logits are ``(exits, n, classes)``.
        """
        import numpy as np

        ranges = [(float(x.min()), float(x.max()))] + [(np.inf, -np.inf)] * len(self.boundaries)
        logits: list[list[Floats]] = []
        for start in range(0, len(x), AT_ONCE):
            found = self.engine.run({"boundary": x[start : start + AT_ONCE]})
            for k, name in enumerate(self.boundaries, 1):
                low, high = ranges[k]
                ranges[k] = min(low, float(found[name].min())), max(high, float(found[name].max()))
            logits.append([found[name] for name in self.exits])
        return ranges, np.stack([np.concatenate(of_exit) for of_exit in zip(*logits, strict=True)])


def _fitting(path: Path, shape: tuple[int, ...]) -> Floats:
    """The samples in ``path``, at least one, of this shape, all finite."""
    import numpy as np

    x = read_samples(path)
    if not len(x) or x.shape[1:] != shape:
        raise InputError(
            f"{path}: expected at least one sample of shape {shape}, got an array of shape "
            f"{x.shape}"
        )
    if not np.isfinite(x).all():
        raise InputError(f"{path}: expected finite values, got some that are not")
    return x


def _classes(path: Path, count: int, classes: set[int]) -> np.ndarray:
    """The labels in ``path``.

    There is one for each of ``count`` samples, of ``classes``, which all exits must share.
    """
    import numpy as np

    y = read_array(path, "labels")
    if not isinstance(y, np.ndarray):
        raise InputError(f"{path}: expected one array of labels, got an archive of arrays")
    if len(classes) != 1:
        raise InputError(
            f"{path}: exits of different classes ({sorted(classes)}) cannot be judged by one label"
        )
    most = next(iter(classes)) - 1
    if y.dtype.kind not in "iu" or y.shape != (count,):
        raise InputError(
            f"{path}: expected int64 of shape ({count},), got {y.dtype} of shape {y.shape}"
        )
    if y.min() < 0 or y.max() > most:
        raise InputError(f"{path}: expected classes in 0..{most}, got {y.min()}..{y.max()}")
    return y
