"""From a graph in pieces to a bundle: the manifest, one file for each piece, the evidence.

This needs no torch.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import presplit
from presplit.bundle.manifest import FORMAT, Manifest, Part, Port, Validation
from presplit.bundle.read import Bundle
from presplit.bundle.write import digest, write
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Encoding, Floats, Net, Plan


class Piece(Protocol):
    """A segment or an exit as ONNX bytes, with what it costs for one sample."""

    @property
    def onnx(self) -> bytes:
        """Nodes and weights as protobuf bytes."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        ...

    @property
    def weights(self) -> int:
        """Stored weights without biases."""
        ...


class Pieces(Protocol):
    """A net in pieces, as `presplit.graph.cut` gives it."""

    @property
    def header(self) -> bytes:
        """What precedes every model that is joined from pieces."""
        ...

    @property
    def segments(self) -> Sequence[Piece]:
        """One piece for each segment."""
        ...

    @property
    def exits(self) -> Mapping[str, Piece]:
        """One piece for each early exit."""
        ...


@dataclass(frozen=True, eq=False)
class Evidence:
    """How every exit did on held-out samples.

    ``scores`` are float32 and ``hits`` bool, both ``(exits, samples)``.
    """

    policy: str
    scores: Floats
    hits: npt.NDArray[np.bool_]


def judge(
    policy: str, score: ExitPolicy, logits: Floats, labels: npt.NDArray[np.int64]
) -> Evidence:
    """The evidence in ``logits``, by the rule ``score`` that ``policy`` names.

    ``logits`` are ``(exits, samples, classes)``, exits in the order in which they run.

    >>> logits = np.array([[[3, 1]]], np.float32)
    >>> judge("first", lambda of_exit: of_exit[:, 0], logits, np.array([0])).hits.tolist()
    [[True]]
    """
    return Evidence(
        policy, np.stack([score(of_exit) for of_exit in logits]), logits.argmax(-1) == labels
    )


def pack(
    path: str | Path,
    net: Net,
    pieces: Pieces,
    ports: Sequence[tuple[dict[str, bytes], bytes]],
    encodings: Sequence[dict[str, Encoding]],
    *,
    name: str,
    versions: Mapping[str, str],
    evidence: Evidence | None = None,
    labels: Sequence[str] = (),
    plan: Plan | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write the bundle of ``net`` at ``path``.

    ``ports`` and ``encodings``: for each boundary the fragments that enter it by codec and that
    leave it, and what each codec sends there. ``versions`` are those of the libraries that made the
    pieces. Raises `BundleError` as `write`.
    """
    contents = {f"segment-{k:02d}.onnx": piece.onnx for k, piece in enumerate(pieces.segments)}
    contents |= {f"exit-{k:02d}.onnx": piece.onnx for k, piece in enumerate(pieces.exits.values())}
    made = zip(contents, (*pieces.segments, *pieces.exits.values()), strict=True)
    parts = [Part(file, piece.macs, piece.weights) for file, piece in made]
    validation = None
    if evidence is not None:
        validation = Validation(evidence.policy, evidence.hits.shape[1], "scores.npy", "hits.npy")
        contents |= {"scores.npy": _npy(evidence.scores), "hits.npy": _npy(evidence.hits)}
    manifest = Manifest(
        format=FORMAT,
        name=name,
        net=net,
        header=pieces.header,
        segments=tuple(parts[: net.last]),
        exits=dict(zip(pieces.exits, parts[net.last :], strict=True)),
        ports=tuple(
            Port(entry, leave, codes)
            for (entry, leave), codes in zip(ports, encodings, strict=True)
        ),
        files=digest(contents),
        versions={"presplit": presplit.__version__, **versions},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        labels=tuple(labels),
        validation=validation,
        plan=plan,
        spec=dict(spec) if spec is not None else None,
    )
    return write(path, manifest, contents)


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
