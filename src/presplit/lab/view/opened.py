"""What is looked at: a bundle, or an ONNX model that is cut into a bundle for the time being.

Where nobody said which answers are right, shares of exits are those of the samples at hand, or of
made-up ones, against the net's own answers: times and bytes are then known, accuracy is not.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle, as_input, read
from presplit.bundle.manifest import Marks, Validation, Way
from presplit.bundle.samples import read_array, read_samples
from presplit.codecs import CODECS
from presplit.core.errors import InputError, MissingLibrary, SpecError
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.runtime.engines import DEFAULT, ENGINES

MADE_UP = 64
"""Samples that are made up where none are given."""
USED = 256
"""Of samples without labels, at most so many are answered at opening."""

KNOWN, AGREEMENT, UNKNOWN = "known", "agreement", "unknown"


@dataclass(frozen=True, eq=False)
class Viewed:
    """A bundle with evidence of its exits, and samples that it can be tried on.

    ``accuracy`` says what the evidence is worth: "known" if somebody said what is right,
    "agreement" with the net's own answers on samples that were given, "unknown" on made-up ones.
    ``source`` is what the user named; ``samples``: float32 ``(n, *input)``.
    """

    bundle: Bundle
    samples: Floats
    accuracy: str
    source: str


@contextlib.contextmanager
def open_net(
    path: Path,
    *,
    samples: Path | None = None,
    labels: Path | None = None,
    outputs: Sequence[str] = (),
) -> Generator[Viewed]:
    """The bundle at ``path``, or that of the ONNX model there, which is gone at the end.

    ``samples`` is a ``.npy`` file ``(n, *shape)``, ``labels`` one of classes ``(n,)``; a bundle
    keeps its own evidence. ``outputs`` of a model are those to keep, as in `presplit.graph.read`.
    Raises `BundleError` or `GraphError` for what cannot be read or cut,
    `InputError` for samples that do not fit.
    """
    if labels is not None and samples is None:
        raise SpecError("--labels needs the samples that it names the classes of: give --samples")
    if path.is_dir():
        if outputs:
            raise SpecError(f"--output belongs to MODEL.onnx, got the bundle {path}")
        yield viewed(read(path), str(path), samples=samples)
        return
    if not path.is_file():
        raise SpecError(f"{path}: expected an ONNX model or a bundle directory, got neither")
    with tempfile.TemporaryDirectory(prefix="presplit-view-") as folder:
        bundle = _packed(path, Path(folder), samples, labels, outputs)
        yield viewed(bundle, str(path), samples=samples)


def viewed(bundle: Bundle, source: str, *, samples: Path | None = None) -> Viewed:
    """``bundle``, its evidence completed where nobody said what is right."""
    whole = bundle.manifest.whole_input
    shape = bundle.net.boundaries[0].shape
    given = made_up(shape, whole=whole)
    if samples is not None:
        given = as_input(read_samples(samples), whole=whole)
    if given.shape[1:] != shape or not len(given):
        raise InputError(f"{samples}: expected samples of shape {shape}, got {given.shape[1:]}")
    given = np.ascontiguousarray(given[:USED])
    held = bundle.manifest.validation
    if held is not None and held.samples:
        return Viewed(bundle, given, KNOWN, source)
    accuracy = UNKNOWN if samples is None else AGREEMENT
    return Viewed(with_evidence(bundle, given), given, accuracy, source)


def made_up(shape: tuple[int, ...], *, whole: bool) -> Floats:
    """Seeded samples ``(MADE_UP, *shape)``: 0..1, or 0 and 1 where only whole numbers are taken.

    They differ in brightness and contrast, so that exits are not equally sure of all.
    """
    random = np.random.default_rng(0)
    if whole:
        return random.integers(0, 2, (MADE_UP, *shape)).astype(np.float32)
    noise = random.random((MADE_UP, *shape), dtype=np.float32)
    spread = np.linspace(0, 1, MADE_UP, dtype=np.float32).reshape(-1, *(1 for _ in shape))
    return noise * spread


def with_evidence(bundle: Bundle, samples: Floats) -> Bundle:
    """``bundle`` in memory with the scores of its exits on ``samples``.

    An exit counts as right where it says what the net says. Every codec that is there may be
    planned with: what it changes was not looked at.
    """
    net, score = bundle.net, EXITS.find("confidence")
    marks: dict[str, Marks] = {}
    files: dict[str, bytes] = {}
    for form in bundle.forms:
        model = bundle.runnable(
            0, net.last, exits=[exit_.name for exit_ in net.exits[:-1]], form=form
        )
        engine = ENGINES[DEFAULT](model, 1)
        found = [engine.run({model.input: one[np.newaxis]}) for one in samples]
        logits = [
            np.concatenate([each[model.logits[exit_.name]] for each in found])
            for exit_ in net.exits
        ]
        own = logits[-1].argmax(-1)
        marks[form] = Marks(f"{form}-scores.npy", f"{form}-hits.npy")
        files[marks[form].scores] = _saved(np.stack([score(each) for each in logits]))
        files[marks[form].hits] = _saved(np.stack([each.argmax(-1) == own for each in logits]))
    ways = list(_ways(bundle, samples[0]))
    files["carried.npy"] = _saved(np.ones((len(ways), len(samples)), np.bool_))
    plain = marks.pop("float32")
    held = Validation(
        "confidence",
        len(samples),
        plain.scores,
        plain.hits,
        carried="carried.npy" if ways else None,
        ways=tuple(ways),
        judged=len(samples),
        forms=marks,
    )
    manifest = msgspec.structs.replace(bundle.manifest, validation=held)
    contents = bundle._files  # pyright: ignore[reportPrivateUsage] # what was read and verified
    return Bundle(bundle.path, manifest, {**contents, **files})


def _ways(bundle: Bundle, sample: Floats) -> Generator[Way]:
    """Every way that a boundary can travel, with the bytes that it takes for ``sample``."""
    from presplit.runtime.measuring.probes import boundary_values

    values = boundary_values(bundle, 1, ENGINES[DEFAULT], sample)
    forms = [(mine, theirs) for mine in bundle.forms for theirs in bundle.forms]
    for number, port in enumerate(bundle.manifest.ports[: bundle.net.last]):
        for codec, encoding in port.encodings.items():
            size = None
            if encoding.nbytes(bundle.net.boundaries[number]) is None:
                with contextlib.suppress(MissingLibrary):
                    codes = CODECS.find(codec).encode(values[number], encoding)
                    size = None if codes is None else float(codes.nbytes)
                if size is None:
                    continue
            for form, server_form in forms:
                if codec != "float32" or form != server_form:
                    yield Way(number, codec, form, server_form, mean_bytes=size, p99_bytes=size)


def _packed(
    path: Path, folder: Path, samples: Path | None, labels: Path | None, outputs: Sequence[str]
) -> Bundle:
    """The bundle of the ONNX model at ``path``, in ``folder``."""
    from presplit import graph
    from presplit.packing import pack

    target = folder / "model.bundle"
    if samples is not None:
        y = None if labels is None else read_array(labels, "labels")
        x = read_samples(samples)
        forms = ("float32", "int8")
        return pack(path, target, samples=x, labels=y, outputs=outputs, forms=forms)
    read_model = graph.read(path, outputs=outputs)
    shape = read_model.batch_first(read_model.input) or ()
    whole = np.dtype(read_model.input_type).kind in "iu"
    del read_model
    return pack(path, target, samples=made_up(shape, whole=whole), outputs=outputs)


def _saved(array: npt.NDArray[np.generic]) -> bytes:
    np.save(held := io.BytesIO(), np.ascontiguousarray(array))
    return held.getvalue()
