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
from presplit.bundle.manifest import FORMAT, Manifest, Part, Port, Validation, Way
from presplit.codecs import CODECS
from presplit.core.encoding import Native
from presplit.core.plans import Plan
from presplit.packing.carried import Carried
from presplit.packing.evidence import Evidence
from presplit.packing.whole import Pieces


@dataclass(frozen=True)
class About:
    """What a bundle says of itself besides its net.

    ``classes``: their names; ``versions``: of the libraries that made the graph.
    """

    name: str
    versions: Mapping[str, str]
    classes: Sequence[str] = ()
    plan: Plan | None = None
    spec: Mapping[str, Any] | None = None
    whole_input: bool = False


def assemble(
    path: str | Path,
    pieces: Pieces,
    carried: Carried,
    about: About,
    *,
    evidence: Evidence | None = None,
    labels: npt.NDArray[np.int64] | None = None,
) -> Bundle:
    """Write the bundle at ``path``; ``labels`` go with ``evidence``. Raises `BundleError`."""
    net, fragments = pieces.net, pieces.fragments
    made = (*fragments.segments, *fragments.exits.values())
    names = [f"segment-{k:02d}.onnx" for k in range(net.last)]
    names += [f"exit-{k:02d}.onnx" for k in range(len(fragments.exits))]
    parts = [Part(name, each.macs, each.weights) for name, each in zip(names, made, strict=True)]
    contents = {name: each.onnx for name, each in zip(names, made, strict=True)}
    validation = None
    if evidence is not None and labels is not None:
        files = {"scores.npy": evidence.scores, "hits.npy": evidence.hits}
        ways = tuple(_way(carried, number, codec) for number, codec in carried.answers)
        rows = [answers == labels[carried.places] for answers in carried.answers.values()]
        files["carried.npy"] = np.stack(rows)
        validation = Validation(
            policy=evidence.policy,
            samples=evidence.hits.shape[1],
            scores="scores.npy",
            hits="hits.npy",
            carried="carried.npy",
            ways=ways,
            judged=len(carried.places),
        )
        contents |= {name: _npy(array) for name, array in files.items()}
    manifest = Manifest(
        format=FORMAT,
        name=about.name,
        net=net,
        header=fragments.header,
        segments=tuple(parts[: net.last]),
        exits=dict(zip(fragments.exits, parts[net.last :], strict=True)),
        ports=tuple(_port(pieces, carried, number) for number in range(net.last + 1)),
        files=digest(contents),
        versions={"presplit": presplit.__version__, **about.versions},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        labels=tuple(about.classes),
        validation=validation,
        plan=about.plan,
        spec=dict(about.spec) if about.spec is not None else None,
        whole_input=about.whole_input,
    )
    return write(path, manifest, contents)


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
    return Way(number, codec, float(sizes.mean()), float(np.quantile(sizes, 0.99)))


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
