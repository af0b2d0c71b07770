"""`pack`: an ONNX classifier and samples become a checked bundle, cut at every boundary."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit import graph
from presplit.bundle import Bundle, as_input
from presplit.codecs import USUAL
from presplit.core.errors import GraphError, InputError, SpecError, context
from presplit.core.memory import give_back
from presplit.core.plans import Plan
from presplit.core.preparation import Preparation, preparation
from presplit.core.protocols import ExitPolicy
from presplit.core.sections import NAME_WORDS
from presplit.core.spec import NAME_PATTERN
from presplit.core.types import Floats
from presplit.packing.agree import Reference, agree, of_file
from presplit.packing.assemble import NO_FORMS, About, Forms, assemble
from presplit.packing.carried import PLAIN, Carried, carry, chosen, unmeasured
from presplit.packing.crossing import cross
from presplit.packing.evidence import Evidence, judge
from presplit.packing.int8 import INT8, in_int8
from presplit.packing.probabilities import probabilities
from presplit.packing.whole import Pieces, observe
from presplit.policies import EXITS

Labels = npt.NDArray[np.int64]
Run = Callable[[Floats], Sequence[Floats]]


def pack(
    source: str | Path | bytes | Any,
    path: str | Path | None = None,
    *,
    samples: npt.NDArray[Any] | None = None,
    labels: Labels | None = None,
    outputs: Sequence[str] = (),
    exit_names: Sequence[str] | None = None,
    policy: str = "confidence",
    forms: Sequence[str] = (PLAIN,),
    name: str | None = None,
    classes: Sequence[str] = (),
    codecs: Sequence[str] = USUAL,
    plan: Plan | None = None,
    spec: Mapping[str, Any] | None = None,
    prepare: Preparation | Sequence[str] | None = None,
    versions: Mapping[str, str] | None = None,
    reference: tuple[str, Run] | None = None,
    probe: Floats | None = None,
) -> Bundle:
    """The bundle of the ONNX classifier ``source``, written to ``path``; one that is there goes.

    ``source``: a file, its bytes, or an `onnx.ModelProto`; one output for each exit, the net's own
    logits last, called by ``exit_names``. ``outputs`` names those to keep, where the file has
    others too; what gives probabilities, as files of scikit-learn do, is taken by its logarithm,
    and classes are called as in the file unless ``classes`` says it. ``path``: default
    ``MODEL.bundle`` beside the file. ``samples``: ``(n, *shape)``, finite, float32 or bytes
    (`presplit.bundle.as_input`), held out of the training set; they give the ranges of the
    boundaries. With ``labels``, int64 ``(n,)``, or the names ``(n,)`` that the file itself gives
    its classes, they are also the evidence from which plans are made, for each exit by the rule
    ``policy`` and for each of ``codecs``; without samples only codecs that need no range are
    offered, and what they cost is not known. float32 is always among them. ``forms`` with "int8" in
    it asks for the net in int8 too, for which it needs samples. A net that cannot be quantised, or
    not without changing more than 5 % of its answers, keeps float32 alone, and its manifest says
    why (``refused_forms``). ``prepare`` says what an image file goes through before the net takes
    it, also in the words of `presplit.core.preparation.preparation`. ``reference``: what to compare
    with instead of the file in ONNX Runtime: its name and what gives the logits of every output for
    a batch; ``probe`` are then samples to compare on where ``samples`` are not given.

    The pieces are compared with the reference, at batch 1 and at a larger batch, before anything
    is written. Raises `GraphError` if the graph cannot be read or cut, if pieces differ from it, or
    if samples of one batch depend on each other; `InputError` for samples or labels that do not
    fit; `SpecError` for a codec that does not exist; `BundleError` if nothing can be written.
    """
    where = str(source) if isinstance(source, str | Path) else ""
    if path is None and not where:
        raise InputError("path: say where the bundle goes; only a file has a place beside it")
    target = Path(path) if path is not None else Path(where).with_suffix(".bundle")
    score, offered = EXITS.find(policy), chosen(codecs)
    wanted = _wanted(forms, samples)
    called = _called(name or _name(where))
    shares = () if reference else probabilities(source, outputs)
    read = graph.read(source, outputs=outputs, probabilities=shares)  # it names the file itself
    with context(where) if where else contextlib.nullcontext():
        row = graph.row(read, exit_names)
        pieces, input_name, input_type = Pieces.of(row), row.graph.input, row.graph.input_type
        given = row if INT8 in wanted else None
        kept = row.graph.outputs
        del read, row  # the graph holds all weights once more
        shape = pieces.net.boundaries[0].shape
        how = prepare if isinstance(prepare, Preparation) else _said(prepare, shape)
        is_whole = np.dtype(input_type).kind in "iu"
        x = None if samples is None else _fitting(samples, shape, whole=is_whole)
        if not classes and reference is None:
            classes = graph.classes_of(source, pieces.net.exits[-1].classes)
            labels = None if labels is None else _as_places(labels, classes)
        y = None if labels is None else _labelled(labels, x, pieces.net.exits[-1].classes)
        compared = x if x is not None else _noise(shape, input_type) if probe is None else probe
        if reference is None:
            whole = graph.load(source, outputs=outputs, probabilities=shares)
            theirs = of_file(whole, input_name=input_name, outputs=kept)
            del whole
        else:
            theirs = Reference(reference[0], reference[1])
        del source
        give_back()
        agree(pieces, theirs, compared)
        del theirs  # a session holds all weights once more
        give_back()
        measured = _Measured(unmeasured(pieces, offered))
        if x is not None:
            measured = _measure(given, pieces, (x, y), offered, (policy, score))
    about = About(
        name=called,
        versions=versions or {"onnx": importlib.metadata.version("onnx")},
        classes=classes,
        plan=plan,
        spec=spec,
        whole_input=is_whole or (x is not None and _is_whole(x)),
        preparation=how,
    )
    return assemble(
        target,
        pieces,
        measured.carried,
        about,
        forms=measured.forms,
        evidence=measured.evidence,
        labels=y,
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """What samples show: of codecs, of forms and, with labels, of exits in each form."""

    carried: Carried
    forms: Forms = NO_FORMS
    evidence: Mapping[str, Evidence] | None = None


def _measure(
    row: graph.Row | None,
    pieces: Pieces,
    held: tuple[Floats, Labels | None],
    codecs: Sequence[str],
    rule: tuple[str, ExitPolicy],
) -> _Measured:
    """What the samples ``held`` with their labels show; ``row`` is given if int8 is wanted."""
    (x, y), (policy, score) = held, rule
    seen, logits = observe(pieces, x)
    answers, found = logits[-1].argmax(-1), {PLAIN: logits}
    forms = NO_FORMS
    if row is not None:
        try:
            made = in_int8(row, pieces, seen, x, logits)
        except GraphError as error:
            forms = replace(NO_FORMS, refused={INT8: str(error)})
        else:
            forms = replace(NO_FORMS, made={INT8: made.pieces})
            seen, found[INT8] = made.same_codes(seen), list(made.logits)
    carried = carry(pieces, seen, x, answers, codecs, judged=y is not None)
    if y is None:
        return _Measured(carried, forms)
    evidence = {form: judge(policy, score, each, y) for form, each in found.items()}
    if forms.made:
        crossed = cross({PLAIN: pieces, **forms.made}, carried, x, answers)
        forms = replace(forms, crossed=crossed)
    return _Measured(carried, forms, evidence)


def _said(words: Sequence[str] | None, shape: tuple[int, ...]) -> Preparation | None:
    """What ``words`` say of images for a net that takes this ``shape``; None if nothing is said."""
    return preparation(words, shape) if words else None


def _wanted(forms: Sequence[str], samples: npt.NDArray[Any] | None) -> set[str]:
    """``forms``, each of a name that there is, float32 among them; int8 needs ``samples``."""
    wanted = set(forms)
    if PLAIN not in wanted or wanted - {PLAIN, INT8}:
        raise SpecError(
            f"forms: expected {PLAIN}, which is always there, and {INT8} if wanted, got "
            f"{', '.join(map(str, forms)) or 'none'}"
        )
    if INT8 in wanted and samples is None:
        raise InputError(
            f"forms: {INT8} needs samples, which show what its codes must reach over; give samples"
        )
    return wanted


def _fitting(samples: npt.NDArray[Any], shape: tuple[int, ...], *, whole: bool) -> Floats:
    """``samples``, at least one, of this shape and finite, as float32."""
    x = as_input(np.asarray(samples), whole=whole)
    if x.ndim < 1 or not len(x) or x.shape[1:] != shape:
        wanted = ", ".join(map(str, shape))
        raise InputError(
            f"samples: expected float32 of shape (n, {wanted}), at least one, got {x.dtype} of "
            f"shape {x.shape}"
        )
    if not np.isfinite(x).all():
        raise InputError("samples: expected finite values, got some that are not")
    return x


def _is_whole(x: Floats) -> bool:
    """True for whole numbers that are no scaled bytes."""
    return bool(x.max() > 1 and (x == np.rint(x)).all())


def _labelled(labels: Labels, x: Floats | None, classes: int) -> Labels:
    """``labels``, one for each sample, in 0..classes-1."""
    if x is None:
        raise InputError("labels: they need the samples that they are of; give samples too")
    y = np.asarray(labels)
    if y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise InputError(
            f"labels: expected whole numbers of shape ({len(x)},), got {y.dtype} of shape {y.shape}"
        )
    if y.min() < 0 or y.max() >= classes:
        raise InputError(f"labels: expected classes in 0..{classes - 1}, got {y.min()}..{y.max()}")
    return y.astype(np.int64)


def _as_places(labels: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[Any]:
    """``labels`` as places among ``classes``, if they are those names; else as they are."""
    given = np.asarray(labels)
    if not classes or given.ndim != 1 or given.dtype.kind not in "iuU":
        return given
    places = {name: place for place, name in enumerate(classes)}
    names = [str(each) for each in given.tolist()]
    strange = sorted({name for name in names if name not in places})
    if strange:
        raise InputError(
            f"labels: expected names of the file's classes, {', '.join(classes[:10])}, got "
            f"{strange[0]!r}"
        )
    return np.array([places[name] for name in names], np.int64)


def _noise(shape: tuple[int, ...], kind: str) -> Floats:
    """Samples where none were given: seeded, evenly spread over 0..1.

    A net that takes bytes gets 0..255, and one that takes other whole numbers 0 and 1, which are
    the first rows of a table that it may look up.
    """
    random = np.random.default_rng(0)
    if kind == "uint8":
        return random.integers(0, 256, size=(16, *shape)).astype(np.float32)
    if "int" in kind:
        return random.integers(0, 2, size=(16, *shape)).astype(np.float32)
    return random.random((16, *shape), dtype=np.float32)


def _called(name: str) -> str:
    """``name``, which becomes part of the name that a server hosts."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(f"name: {NAME_WORDS}, got {name!r}")
    return name


def _name(where: str) -> str:
    """What a net is called by its file."""
    return re.sub(r"[^a-z0-9]+", "-", Path(where).stem.lower()).strip("-")[:63] or "model"
