"""The manifest and the files of a bundle, from a net in pieces and what is known of it."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import presplit
from presplit import graph
from presplit.bundle import Bundle, digest, write
from presplit.bundle.golden import GOLDEN, golden_input
from presplit.bundle.manifest import FORMAT, Form, Manifest, Marks, Part, Port, Validation, Way
from presplit.codecs import CODECS
from presplit.core.encoding import Native
from presplit.core.errors import GraphError
from presplit.core.plans import Plan
from presplit.core.preparation import Preparation
from presplit.core.types import Floats
from presplit.packing.carried import Carried
from presplit.packing.crossing import Crossing
from presplit.packing.evidence import Evidence
from presplit.packing.whole import Pieces, answers_of


@dataclass(frozen=True)
class About:
    """What a bundle says of itself besides its net.

    ``classes``: their names; ``versions``: of the libraries that made the graph; ``preparation``:
    what an image file goes through.
    """

    name: str
    versions: Mapping[str, str]
    classes: Sequence[str] = ()
    plan: Plan | None = None
    spec: Mapping[str, Any] | None = None
    whole_input: bool = False
    preparation: Preparation | None = None


@dataclass(frozen=True, eq=False)
class Forms:
    """The net in forms besides float32.

    ``made``: its pieces in each; ``refused``: what was asked for and is not there, with the reason;
    ``crossed``: the labels that judged samples get by each way that has one of them in it.
    """

    made: Mapping[str, Pieces]
    refused: Mapping[str, str]
    crossed: Mapping[Crossing, npt.NDArray[np.int64]]


NO_FORMS = Forms({}, {}, {})


def assemble(
    path: str | Path,
    pieces: Pieces,
    carried: Carried,
    about: About,
    *,
    forms: Forms = NO_FORMS,
    evidence: Mapping[str, Evidence] | None = None,
    labels: npt.NDArray[np.int64] | None = None,
) -> Bundle:
    """Write the bundle at ``path``; ``labels`` go with ``evidence``, one for each form.

    Raises `BundleError`.
    """
    net, fragments = pieces.net, pieces.fragments
    own, contents = _form(pieces, "")
    others: dict[str, Form] = {}
    for form, made in forms.made.items():
        others[form], files = _form(made, f".{form}")
        contents |= files
    golden = _golden({"float32": pieces, **forms.made}, whole=about.whole_input)
    contents |= {} if golden is None else {GOLDEN: _npy(golden)}
    validation = None
    if evidence is not None and labels is not None:
        validation, arrays = _validation(carried, forms, evidence, labels)
        contents |= {name: _npy(array) for name, array in arrays.items()}
    manifest = Manifest(
        format=FORMAT,
        name=about.name,
        net=net,
        header=fragments.header,
        segments=own.segments,
        exits=own.exits,
        ports=tuple(_port(pieces, carried, number) for number in range(net.last + 1)),
        files=digest(contents),
        versions={"presplit": presplit.__version__, **about.versions},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        forms=others,
        refused_forms=dict(forms.refused),
        labels=tuple(about.classes),
        validation=validation,
        plan=about.plan,
        spec=dict(about.spec) if about.spec is not None else None,
        whole_input=about.whole_input,
        preparation=about.preparation,
    )
    return write(path, manifest, contents)


def _golden(forms: Mapping[str, Pieces], *, whole: bool) -> Floats | None:
    """What the net says of the golden input, a row for each form; None if it takes no such input.

    A net may look numbers up in tables that are shorter, say.
    """
    rows = list[Floats]()
    for form in ("float32", *sorted(forms.keys() - {"float32"})):
        pieces = forms[form]
        x = golden_input(pieces.net.boundaries[0].shape, whole=whole)[None]
        try:
            rows.append(answers_of(pieces, x)[-1])
        except GraphError:
            return None
    found = np.concatenate(rows).astype(np.float32)
    return found if np.isfinite(found).all() else None


def _validation(
    carried: Carried,
    forms: Forms,
    evidence: Mapping[str, Evidence],
    labels: npt.NDArray[np.int64],
) -> tuple[Validation, dict[str, npt.NDArray[Any]]]:
    """What plans are made from, as the manifest has it, and the arrays of its files."""
    ways = [_way(carried, number, codec) for number, codec in carried.answers]
    ways += [Way(*way) for way in forms.crossed]
    rows = [*carried.answers.values(), *forms.crossed.values()]
    arrays = {"carried.npy": np.stack([each == labels[carried.places] for each in rows])}
    others: dict[str, Marks] = {}
    for form in forms.made:
        others[form] = Marks(f"scores.{form}.npy", f"hits.{form}.npy")
        arrays[others[form].scores] = evidence[form].scores
        arrays[others[form].hits] = evidence[form].hits
    plain = evidence["float32"]
    arrays |= {"scores.npy": plain.scores, "hits.npy": plain.hits}
    held = Validation(
        policy=plain.policy,
        samples=plain.hits.shape[1],
        scores="scores.npy",
        hits="hits.npy",
        carried="carried.npy",
        ways=tuple(ways),
        judged=len(carried.places),
        forms=others,
    )
    return held, arrays


def _form(pieces: Pieces, suffix: str) -> tuple[Form, dict[str, bytes]]:
    """A form as the manifest has it, and its files, whose names have this ``suffix``."""
    fragments = pieces.fragments
    segments = [f"segment-{k:02d}{suffix}.onnx" for k in range(pieces.last)]
    exits = [f"exit-{k:02d}{suffix}.onnx" for k in range(len(fragments.exits))]
    made = (*fragments.segments, *fragments.exits.values())
    parts = [
        Part(name, each.macs, each.weights)
        for name, each in zip([*segments, *exits], made, strict=True)
    ]
    form = Form(
        header=fragments.header,
        segments=tuple(parts[: pieces.last]),
        exits=dict(zip(fragments.exits, parts[pieces.last :], strict=True)),
        enter=fragments.enter,
        leave=fragments.leave,
    )
    return form, {name: each.onnx for name, each in zip([*segments, *exits], made, strict=True)}


def _port(pieces: Pieces, carried: Carried, number: int) -> Port:
    """How boundary ``number`` is entered and left."""
    boundary, entries = pieces.net.boundaries[number], dict[str, bytes]()
    for name, encoding in carried.encodings[number].items():
        steps = CODECS[name].decoder(encoding, boundary.shape)
        if steps is None or isinstance(encoding, Native):
            continue
        entries[name] = graph.entry(
            number,
            boundary,
            encoding.dtype,
            steps,
            last=pieces.last,
            shape=encoding.shape(boundary),
        )
    return Port(
        entry=entries,
        leave=pieces.leave(number),
        encodings=carried.encodings[number],
        refused=carried.refused[number],
    )


def _way(carried: Carried, number: int, codec: str) -> Way:
    """Boundary ``number`` by ``codec``, with its bytes where they vary."""
    sizes = carried.sizes.get((number, codec))
    if sizes is None:
        return Way(number, codec)
    mean, p99 = float(sizes.mean()), float(np.quantile(sizes, 0.99))
    return Way(number, codec, mean_bytes=mean, p99_bytes=p99)


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
