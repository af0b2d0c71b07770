"""Runs side by side on the same test set: what differs in their specs, and whether they do.

Two nets that answer the same samples are compared pair by pair: what counts are the samples that
one of them alone has right (`presplit.lab.paired`).
That a difference is not seen says nothing of how small it is; its interval does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.core.errors import BundleError, DataError, context
from presplit.core.sections import Spec
from presplit.core.shares import interval
from presplit.lab.paired import chance, difference_interval
from presplit.lab.sweep.found import SWEEP, read_found
from presplit.lab.sweep.task import kept_in

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Floats
    from presplit.train.data import Dataset, Samples
    from presplit.train.runs import Run

SURE = 0.05
"""Two nets are told apart where chance alone does as much in at most this share of cases."""
FINAL = "final"
BATCH = 256

Own = Callable[[str], object]
Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Side:
    """One net: what it is, what it costs, and which test samples each of its exits has right.

    ``macs``: of an answer at each exit. ``bytes``: of the exported pieces. ``routed``: what early
    exits with thresholds give, as ``result.json`` has it, if there is such. ``data``: what tells
    one test set from another.
    """

    name: str
    spec: Spec
    hits: Mapping[str, Hits]
    weights: int
    macs: Mapping[str, int]
    bytes: int
    routed: Sequence[Mapping[str, Any]]
    data: tuple[str, str]

    def to_builtins(self) -> dict[str, Any]:
        """What ``--json`` says of it: accuracies with 95 % intervals (Wilson) of ``n`` samples."""
        return {
            "name": self.name,
            "data": self.spec.data.name,
            "accuracy": {name: _accuracy(own) for name, own in self.hits.items()},
            "weights": self.weights,
            "macs": dict(self.macs),
            "bytes": self.bytes,
            "thresholds": list(self.routed),
        }


@dataclass(frozen=True)
class Pair:
    """A net against the first one on the same samples, by their last exits.

    ``gains``: samples that it alone has right, ``losses``: that the first alone has right.
    ``difference`` of accuracy, with its 95 % interval; ``p``: how often chance alone gives as many.
    """

    name: str
    first: str
    samples: int
    gains: int
    losses: int
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_told_apart(self) -> bool:
        """Whether these samples tell the two apart."""
        return self.p <= SURE

    def to_builtins(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**vars(self), "told_apart": self.is_told_apart}


def sides(paths: Sequence[Path], own: Own | None = None) -> list[Side]:
    """The nets at ``paths``: runs, bundles, and the finished runs of sweeps.

    ``own`` gives a net of one's own, as for `presplit.train.runs.build`. Raises `DataError` for a
    path that is none of these.
    """
    from presplit.train import runs

    found: list[Path] = []
    for path in paths:
        if (path / SWEEP).is_file():
            rows = read_found(path).rows
            found += [path / row.run for row in rows if row.state == "finished"]
        else:
            found.append(path)
    data: dict[bytes, Dataset] = {}

    def loaded(spec: Spec) -> Dataset:
        key = msgspec.json.encode(spec.data)
        if key not in data:
            data[key] = runs.loaded(spec.data)
        return data[key]

    return [_side(path, loaded, own) for path in found]


def pair(side: Side, first: Side) -> Pair | None:
    """``side`` against ``first``; None if they were tested on other samples."""
    if not any(one == other for one, other in zip(side.data, first.data, strict=True)):
        return None
    one, other = side.hits[FINAL], first.hits[FINAL]
    gains, losses, samples = int((one & ~other).sum()), int((other & ~one).sum()), len(one)
    difference = (gains - losses) / samples
    low, high = difference_interval(gains, losses, samples)
    p = chance(gains, losses)
    return Pair(side.name, first.name, samples, gains, losses, difference, low, high, p)


def _side(path: Path, loaded: Callable[[Spec], Dataset], own: Own | None) -> Side:
    from presplit.bundle.files import MANIFEST

    if (path / MANIFEST).is_file():
        return _of_bundle(path, loaded)
    return _of_run(path, loaded, own)


def _of_run(path: Path, loaded: Callable[[Spec], Dataset], own: Own | None) -> Side:
    from presplit.core.spec import read_spec
    from presplit.train import evaluate, runs

    file = runs.spec_file(path)
    if file is None or file.parent == path / runs.UNFINISHED:
        raise DataError(
            f"{path}: neither a finished run nor a bundle nor a sweep; presplit train makes runs"
        )
    run = runs.read_run(path, own, data=loaded(read_spec(file)))
    test = run.data.test
    macs, stored = _costs(path, run)
    result = _result(path) or runs.judge(run)
    return Side(
        str(path),
        run.spec,
        _hits(run.exit_names, evaluate(run.model, test), test.y),
        result["weights"],
        macs,
        stored,
        result["thresholds"],
        _prints(run.spec, test),
    )


def _costs(path: Path, run: Run) -> tuple[Mapping[str, int], int]:
    """The MACs at each exit, and the exported bytes; a sweep has written them down already."""
    from presplit.train import runs

    kept = kept_in(path)
    if kept is not None:
        return kept.exit_macs, kept.bytes
    pieces, macs = runs.pieces_of(run)
    return macs, pieces.nbytes


def _result(path: Path) -> dict[str, Any] | None:
    """What the run's directory says that it is worth."""
    from presplit.train.runs.directory import RESULT, at

    try:
        return msgspec.json.decode(at(path, RESULT).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return None


def _of_bundle(path: Path, loaded: Callable[[Spec], Dataset]) -> Side:
    from presplit.bundle import read

    bundle = read(path)
    if bundle.manifest.spec is None:
        raise BundleError(
            f"{path}: it was made of an ONNX file and does not say which data it is of; compare "
            "bundles that were exported from runs"
        )
    with context(str(path)):
        spec = msgspec.convert(bundle.manifest.spec, Spec)
    data = loaded(spec)
    test = (data.padded(spec.data.pad_to) if spec.data.pad_to else data).test
    parts = [*bundle.manifest.segments, *bundle.manifest.exits.values()]
    names = [exit_.name for exit_ in bundle.net.exits]
    return Side(
        str(path),
        spec,
        _hits(names, _logits(bundle, test.x), test.y),
        sum(part.weights for part in parts),
        _macs(bundle),
        sum(bundle.manifest.files[part.file].bytes for part in parts),
        (),
        _prints(spec, test),
    )


def _logits(bundle: Bundle, x: Floats) -> Floats:
    """Logits ``(exits, n, classes)`` of the whole bundle."""
    from presplit.runtime.engines.onnxruntime import Engine

    early = [exit_.name for exit_ in bundle.net.exits[:-1]]
    whole = bundle.runnable(0, bundle.net.last, exits=early)
    engine = Engine(whole.onnx, threads=1)
    found = [engine.run({whole.input: x[at : at + BATCH]}) for at in range(0, len(x), BATCH)]
    names = [whole.logits[exit_.name] for exit_ in bundle.net.exits]
    return np.stack([np.concatenate([each[name] for each in found]) for name in names])


def _hits(names: Sequence[str], logits: Floats, y: npt.NDArray[np.int64]) -> dict[str, Hits]:
    return {name: own.argmax(-1) == y for name, own in zip(names, logits, strict=True)}


def _accuracy(hits: Hits) -> dict[str, float]:
    share, samples = float(hits.mean()), len(hits)
    low, high = interval(share, samples)
    return {"share": share, "low": low, "high": high, "n": samples}


def _prints(spec: Spec, test: Samples) -> tuple[str, str]:
    """What tells a test set from another: where it is from, and its samples, with their labels.

    Samples that are only prepared otherwise (padded, of another size) are the same by the first.
    """
    source = f"{spec.data.name} {hashlib.sha256(test.y.tobytes()).hexdigest()}"
    flat_x = test.x.reshape(len(test.x), -1)
    used = int(np.flatnonzero(flat_x.any(0)).max(initial=0)) + 1
    samples = hashlib.sha256(np.ascontiguousarray(flat_x[:, :used]).tobytes() + test.y.tobytes())
    return source, samples.hexdigest()


def _macs(bundle: Bundle) -> dict[str, int]:
    """The MACs of an answer at each exit, those of the exits before it included."""
    manifest, found, heads = bundle.manifest, dict[str, int](), 0
    for exit_ in bundle.net.exits:
        heads += manifest.exits[exit_.name].macs if exit_.name in manifest.exits else 0
        found[exit_.name] = heads + sum(part.macs for part in manifest.segments[: exit_.after])
    return found
