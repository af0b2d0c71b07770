"""The tails that any server can host, as plain ONNX files, and the check of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from presplit import graph
from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.encoding import Encoding, Native
from presplit.core.errors import GraphError, SpecError
from presplit.core.tensors import INPUT, boundary_name
from presplit.core.types import Boundary, Floats
from presplit.packing.agree import TOLERANCE, relative_difference
from presplit.packing.session import Session

MAX_BATCH = 64
"""Samples in one batch, at most, as our own server takes."""
CHECKED = 3
"""Samples on which a tail is compared: one alone, and all at once."""


@dataclass(frozen=True)
class Tail:
    """A portable tail: from boundary ``split``, entered by ``codec``, computed in ``form``.

    ``dtype`` and ``shape`` (without the batch) are those of its input, ``boundary``; its output,
    ``logits``, is float32 ``(batch, classes)``.
    """

    name: str
    split: int
    codec: str
    form: str
    dtype: str
    shape: tuple[int, ...]
    classes: int
    boundary: Boundary
    encoding: Encoding

    @property
    def output(self) -> str:
        """What its output is called."""
        return boundary_name(0, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of one sample's input."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def portable(
    bundle: Bundle, *, splits: Collection[int] = (), codecs: Collection[str] = ()
) -> list[Tail]:
    """The tails of ``bundle`` that any server can host, of these ``splits`` and ``codecs`` alone.

    Without either, all of them. Raises `SpecError` for one that the bundle does not have.
    """
    last, offered = bundle.net.last, {name for port in bundle.manifest.ports for name in port.entry}
    for split in splits:
        if not 0 <= split < last:
            raise SpecError(f"a tail starts at a boundary in 0..{last - 1}, got {split}")
    for codec in codecs:
        if codec not in offered:
            raise SpecError(
                f"the bundle has no codec {codec!r} that any server can host; there are: "
                f"{', '.join(sorted(offered))}"
            )
    found = [tail for tail in _tails(bundle) if not splits or tail.split in splits]
    found = [tail for tail in found if not codecs or tail.codec in codecs]
    if not found:
        raise SpecError("no tail is left: none of the codecs is offered at any of the boundaries")
    return found


def _tails(bundle: Bundle) -> Iterator[Tail]:
    """Every portable tail, by boundary, codec and form."""
    net = bundle.net
    for split, port in enumerate(bundle.manifest.ports[: net.last]):
        boundary = net.boundaries[split]
        for codec in port.entry:
            encoding = port.encodings[codec]
            assert not isinstance(encoding, Native), "what a graph decodes is not native"
            for form in bundle.forms:
                yield Tail(
                    bundle.manifest.model_name(split, codec, form),
                    split,
                    codec,
                    form,
                    encoding.dtype,
                    encoding.shape(boundary),
                    net.exits[-1].classes,
                    boundary,
                    encoding,
                )


def model_of(bundle: Bundle, tail: Tail) -> bytes:
    """``tail`` as one ONNX file, written in one piece and checked by ONNX itself."""
    joined = bundle.runnable(tail.split, bundle.net.last, codec=tail.codec, form=tail.form)
    return graph.in_one_piece(joined.onnx)


class Checking:
    """Compares tails, in plain ONNX Runtime, with what a server of ours computes.

    Ours decodes in front of the engine; the float32 tail that it runs is kept from one comparison
    to the next, since tails come by boundary and form.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._kept: tuple[tuple[int, str], Session] | None = None

    def check(self, tail: Tail, onnx: bytes) -> float:
        """The largest relative difference of ``onnx`` from the bundle's own tail.

        Raises `GraphError` if it is more than float32 sums in another order explain.
        """
        session, values = Session(onnx), self._values(tail)
        codec = CODECS.find(tail.codec)
        codes = codec.encode(values, tail.encoding)
        if codes is None:  # such values cannot be carried, zeros can
            values = np.zeros_like(values)
            codes = codec.encode(values, tail.encoding)
        assert codes is not None, "every codec carries zeros"
        own, decoded = self._own(tail), codec.decode(codes, tail.encoding, tail.boundary.shape)
        most = 0.0
        for batch in (slice(0, 1), slice(0, CHECKED)):
            found = session.run({INPUT: codes[batch]})[tail.output]
            expected = own.run({INPUT: decoded[batch]})[tail.output]
            most = max(most, relative_difference(found, expected))
        if not most <= TOLERANCE:
            raise GraphError(
                f"{tail.name}: as plain ONNX it differs from the bundle's own tail by {most:.2g} "
                f"(relative), expected at most {TOLERANCE:.0e}; this is a fault of presplit's"
            )
        return most

    def _own(self, tail: Tail) -> Session:
        start = (tail.split, tail.form)
        if self._kept is None or self._kept[0] != start:
            self._kept = None  # before the next is made: each holds all weights
            runnable = self._bundle.runnable(tail.split, self._bundle.net.last, form=tail.form)
            self._kept = (start, Session(runnable.onnx))
        return self._kept[1]

    def _values(self, tail: Tail) -> Floats:
        """Values to compare on, float32 ``(CHECKED, *shape)``: noise, or zeros for whole inputs."""
        shape = (CHECKED, *tail.boundary.shape)
        if tail.split == 0 and self._bundle.manifest.whole_input:
            return np.zeros(shape, np.float32)  # any other number may be no id of the net's
        return np.random.default_rng(tail.split).normal(size=shape).astype(np.float32)
