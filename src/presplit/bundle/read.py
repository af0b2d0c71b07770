"""Reading a bundle: everything is checked against the manifest before anything is parsed.

Segments are stored once, each as a fragment of an ONNX model: nodes and weights, without graph
inputs and outputs. The bytes of a protobuf message followed by the bytes of another are the message
in which both are merged (repeated fields are joined, see "Last One Wins" in the Protocol Buffers
encoding guide). So any run of segments, entered by any codec and left at any boundary with any
exits, becomes one complete ONNX model by joining bytes: no ONNX library on the edge, no second copy
of a weight, and one session whatever the split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle.arrays import array_in
from presplit.bundle.files import MANIFEST, MOST_BYTES, SIGNATURE, Folder, opened
from presplit.bundle.fits import PLAIN
from presplit.bundle.manifest import Form, Manifest, Part, Validation
from presplit.bundle.operators import MOST_ELEMENTS, check
from presplit.bundle.sealed import parse_manifest
from presplit.bundle.sign import Statement
from presplit.bundle.trust import Trust
from presplit.core.encoding import Encoding
from presplit.core.errors import BundleError, SpecError, context
from presplit.core.plans import Plan, PlanTable
from presplit.core.tensors import INPUT, boundary_name, logits_name
from presplit.core.types import Floats, Net, Runnable

MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A directory of ONNX segments with its manifest, verified and held in memory.

    `runnable` gives complete ONNX models, ready for an engine, with the names of their tensors.
    """

    path: Path
    manifest: Manifest
    _files: dict[str, bytes]
    statement: Statement | None = field(default=None, compare=False, repr=False)
    """What its signature says, if it was read with trust."""

    @property
    def net(self) -> Net:
        """The net as spoken of."""
        return self.manifest.net

    @property
    def plan(self) -> Plan | None:
        """The plan that the bundle carries, if any."""
        return self.manifest.plan

    @property
    def table(self) -> PlanTable | None:
        """The plans among which an edge may choose while it runs, if the bundle carries any."""
        return self.manifest.table

    def runnable(
        self,
        start: int,
        stop: int,
        *,
        exits: Iterable[str] = (),
        codec: str = "float32",
        form: str = "float32",
    ) -> Runnable:
        """The model from boundary ``start`` to ``stop``, with the early ``exits`` on the way.

        ``codec`` is how the input arrives, ``form`` one of `forms`, in which all of it computes;
        boundaries are float32 outside of the model in any form. With ``start == stop`` only the
        exits are left. Raises `SpecError` for boundaries, exits, codecs or forms that the bundle
        does not have there, or for a native codec, whose payload no graph takes.
        """
        last, named = self.net.last, tuple(dict.fromkeys(exits))
        pieces = self._form(form)
        if not 0 <= start <= stop <= last or (start == stop and not named):
            raise SpecError(
                f"a segment runs from 0 <= start to start < stop <= {last}, got {start}, {stop}"
            )
        port = self.manifest.ports[start]
        if codec not in port.entry:
            there = ", ".join(port.entry)
            if codec in port.encodings:
                raise SpecError(
                    f"{codec!r} is decoded in front of the graph, not by it; enter boundary "
                    f"{start} by one of: {there}"
                )
            raise SpecError(f"boundary {start} has no codec {codec!r}; there are: {there}")
        taken: list[Part] = list(pieces.segments[start:stop])
        taken += [self._early_exit(pieces, name, start, stop) for name in named]
        entry = [pieces.header, port.entry[codec], pieces.enter[start]]
        leave: list[bytes] = []
        if stop > start:
            leave = [pieces.leave[stop], self.manifest.ports[stop].leave]
        files = (self._files[part.file] for part in taken)
        logits = {name: logits_name(name) for name in named}
        if stop == last and stop > start:
            logits[self.net.exits[-1].name] = boundary_name(last, last)
        return Runnable(
            onnx=b"".join([*entry, *files, *leave]),
            input=INPUT,
            boundary=boundary_name(stop, last) if stop > start else None,
            logits=MappingProxyType(logits),
        )

    def pieces(self) -> Iterator[bytes]:
        """Every piece of the net in every form, of which `runnable` joins some."""
        for form in self.forms:
            pieces = self._form(form)
            yield from (pieces.header, *pieces.enter, *pieces.leave)
            yield from (self._files[part.file] for part in pieces.parts)

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which the net computes, float32 first."""
        return (PLAIN, *self.manifest.forms)

    def _form(self, form: str) -> Form:
        """The pieces of ``form``."""
        if form in self.manifest.forms:
            return self.manifest.forms[form]
        if form != PLAIN:
            why = self.manifest.refused_forms.get(form)
            reason = "" if why is None else f"; it was refused: {why}"
            raise SpecError(
                f"the net has no form {form!r}; there are: {', '.join(self.forms)}{reason}"
            )
        own, nothing = self.manifest, (b"",) * (self.net.last + 1)
        return Form(own.header, own.segments, own.exits, nothing, nothing)

    def _early_exit(self, pieces: Form, name: str, start: int, stop: int) -> Part:
        """The piece of the early exit ``name``, which hangs between two boundaries."""
        for exit_ in self.net.exits:
            if exit_.name == name and name in pieces.exits and start <= exit_.after <= stop:
                return pieces.exits[name]
        raise SpecError(f"no exit {name!r} between boundaries {start} and {stop}")

    def segment(
        self, start: int, stop: int, *, exits: Iterable[str] = (), codec: str = "float32"
    ) -> bytes:
        """The bytes of `runnable`."""
        return self.runnable(start, stop, exits=exits, codec=codec).onnx

    def encoding(self, boundary: int, codec: str) -> Encoding:
        """How ``codec`` sends the values at ``boundary``."""
        if not 0 <= boundary <= self.net.last:
            raise SpecError(f"boundary must be in 0..{self.net.last}, got {boundary}")
        found = self.manifest.ports[boundary].encodings
        if codec not in found:
            raise SpecError(
                f"boundary {boundary} has no codec {codec!r}; there are: {', '.join(found)}"
            )
        return found[codec]

    def payload_bytes(self, boundary: int, codec: str) -> float:
        """Bytes of one sample at ``boundary`` by ``codec``: the mean, where they vary.

        Raises `SpecError` for a codec that is not there, `BundleError` where they vary and were not
        measured.
        """
        return self._payload(boundary, codec)[0]

    def payload_p99_bytes(self, boundary: int, codec: str) -> float:
        """What 99 samples in 100 do not exceed; raises as `payload_bytes`."""
        return self._payload(boundary, codec)[1]

    def _payload(self, boundary: int, codec: str) -> tuple[float, float]:
        """Bytes of one sample: the mean and the 99th percentile."""
        fixed = self.encoding(boundary, codec).nbytes(self.net.boundaries[boundary])
        if fixed is not None:
            return float(fixed), float(fixed)
        held = self.manifest.validation
        for way in held.ways if held else ():
            if (way.boundary, way.codec) != (boundary, codec):
                continue
            if way.mean_bytes is not None and way.p99_bytes is not None:
                return way.mean_bytes, way.p99_bytes
        raise BundleError(
            f"{self.path}: how many bytes {codec} needs at boundary {boundary} varies and was not "
            "measured; export it again with labels"
        )

    def evidence(self, form: str = "float32") -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Held-out scores and hits of every exit in ``form``, both ``(exits, samples)``.

        Raises `BundleError` if there are none.
        """
        held = self._validation()
        if form not in held.marks:
            raise BundleError(
                f"{self.path}: no scores in form {form!r} were measured; there are: "
                f"{', '.join(held.marks)}"
            )
        marks, shape = held.marks[form], (len(self.net.exits), held.samples)
        return self.array(marks.scores, "float32", shape), self.array(marks.hits, "bool", shape)

    def worth(
        self, boundary: int, codec: str, form: str = "float32", server_form: str = "float32"
    ) -> npt.NDArray[np.float64]:
        """What the net's own answers are worth where ``boundary`` travels by ``codec``.

        What is before it computes in ``form``, the rest in ``server_form``. float64 ``(samples,)``:
        1 for a right answer, 0 for a wrong one. A way is judged on a part of the samples, whose
        losses stand for those of all: there numbers may lie below 0, and the mean is what counts.
        What it gains is not counted. Raises `BundleError` if this was not measured, which is so
        too where it changes too many answers.
        """
        held = self._validation()
        whole = form if form == server_form else "float32"
        worth = self.evidence(whole)[1][-1].astype(np.float64)
        if codec == "float32" and form == server_form:
            return worth
        rows = {
            (way.boundary, way.codec, way.form, way.server_form): row
            for row, way in enumerate(held.ways)
        }
        way = (boundary, codec, form, server_form)
        if held.carried is None or way not in rows:
            between = "" if way[2:] == (PLAIN, PLAIN) else f" from {form} to {server_form}"
            raise BundleError(
                f"{self.path}: what {codec} costs at boundary {boundary}{between} was not "
                "measured, or changes too many answers; export it again with labels"
            )
        carried = self.array(held.carried, "bool", (len(held.ways), held.judged))
        row = carried[rows[way]].astype(np.float64)
        judged = judged_places(held.samples, held.judged)
        # What a codec gains on so few samples is luck; what it loses stands for all.
        losses = np.minimum(row - worth[judged], 0.0)
        worth[judged] += losses * held.samples / held.judged
        return worth

    def _validation(self) -> Validation:
        """What is known of held-out samples; raises `BundleError` if nothing is."""
        held = self.manifest.validation
        if held is None:
            raise BundleError(
                f"{self.path}: holds no validation scores, so no accuracy can be planned; export "
                "it again with labels"
            )
        return held

    def array(self, name: str, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The array in a file of the bundle, of this dtype and shape."""
        return array_in(self._files[name], dtype, shape, self.path / name)


def judged_places(samples: int, judged: int) -> npt.NDArray[np.int64]:
    """Which of so many samples codecs are judged on: ``judged`` of them, spread evenly.

    >>> judged_places(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return np.linspace(0, samples - 1, judged).round().astype(np.int64)


def read(
    path: str | Path,
    *,
    trust: Trust | None = None,
    strict: bool = False,
    remember: bool = True,
) -> Bundle:
    """Read and verify the bundle in directory ``path``.

    With ``trust`` it must be signed by a key that is pinned there, over these very bytes, and not
    be older than what this device has taken before; that is sure before anything else is looked
    at. What is taken is remembered, unless the caller does so once it has proved the bundle
    (`Trust.remember`). ``strict`` is for bundles of strangers: it refuses operators that run
    others, and files that have other names too. Raises `BundleError` naming the file that is wrong.
    """
    path = Path(path)
    with opened(path) as folder:
        names = folder.names() - {MANIFEST, SIGNATURE}
        raw = folder.read(MANIFEST, most=MAX_MANIFEST_BYTES)
        statement = None
        if trust is not None:
            statement = trust.statement(folder, raw)
        manifest = parse_manifest(raw, path / MANIFEST)
        if trust is not None and statement is not None:
            trust.check(statement, manifest, path)
        contents = _contents(folder, manifest, names)
        if strict:
            _check_names(folder, manifest)
    found = Bundle(path, manifest, contents, statement)
    if strict:
        _check_pieces(found)
    if remember and trust is not None and statement is not None:
        trust.remember(statement, path)
    return found


def _contents(folder: Folder, manifest: Manifest, names: set[str]) -> dict[str, bytes]:
    """The bytes of every file, which are those of which the manifest holds the SHA-256."""
    path = folder.path
    for name in sorted(names ^ set(manifest.files)):
        state = "is missing" if name in manifest.files else "is not in the manifest"
        raise BundleError(f"{path / name}: {state}; copy or export the bundle again")
    total = sum(file.bytes for file in manifest.files.values())
    if total > MOST_BYTES:
        raise BundleError(f"{path}: expected files of at most {MOST_BYTES} bytes, got {total}")
    contents: dict[str, bytes] = {}
    for name, expected in manifest.files.items():
        raw = folder.read(name, most=expected.bytes, exactly=expected.bytes)
        if len(raw) != expected.bytes or hashlib.sha256(raw).hexdigest() != expected.sha256:
            raise BundleError(
                f"{path / name}: damaged: its SHA-256 is not the manifest's; copy or export it "
                "again"
            )
        contents[name] = raw
    return contents


def _check_names(folder: Folder, manifest: Manifest) -> None:
    """Raise `BundleError` if a file of the bundle is also one elsewhere."""
    for name in (MANIFEST, *manifest.files):
        if folder.hard_links(name) > 1:
            raise BundleError(f"{folder.path / name}: has other names too; copy the bundle")


def _check_pieces(bundle: Bundle) -> None:
    """Raise `BundleError` if the net or a way into it holds what is not run for strangers."""
    net = bundle.net
    exits = [exit_.name for exit_ in net.exits[:-1]]
    for boundary in net.boundaries:
        if math.prod(boundary.shape) > MOST_ELEMENTS:
            raise BundleError(f"{bundle.path}: boundary {boundary.name!r} has {boundary.shape}")
    for form in bundle.forms:
        with context(str(bundle.path)):
            check(bundle.runnable(0, net.last, exits=exits, form=form).onnx, strict=True)
    for number, port in enumerate(bundle.manifest.ports):
        with context(f"{bundle.path}: boundary {number}"):
            for piece in (*port.entry.values(), port.leave):
                check(piece, strict=True)
    # Each alone too: joined, the end of one could hide the beginning of the next, and a net that is
    # entered elsewhere than at its beginning would hold what the whole one does not.
    with context(str(bundle.path)):
        for piece in bundle.pieces():
            check(piece, strict=True)


def read_manifest(path: Path) -> Manifest:
    """The verified manifest of the bundle in ``path``, whatever its files hold."""
    with opened(path) as folder:
        raw = folder.read(MANIFEST, most=MAX_MANIFEST_BYTES)
    return parse_manifest(raw, path / MANIFEST)
