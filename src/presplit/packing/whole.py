"""A net in pieces, joined again and run: all of it at once, or a tail from any boundary.

Batches are so small that all boundaries of a batch together stay below `AT_ONCE_BYTES`, so that a
net for photographs is packed on a small machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from presplit import graph
from presplit.core.encoding import NOTHING, Seen
from presplit.core.tensors import INPUT, boundary_name, logits_name
from presplit.core.types import Floats, Net
from presplit.packing.session import Session

AT_ONCE_BYTES = 4 * 2**20
"""What the boundaries of one batch may hold together."""
MOST_AT_ONCE = 64
"""Samples in one batch, at most."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """A net in pieces, and the fragments that enter and leave each boundary.

    ``outputs[k]``: at which place of the graph's outputs the exit stands that runs as number k;
    ``rounding``: the coarsest relative step of the numbers that the net computes in. The graph
    itself is not kept, because it holds all weights once more.
    """

    net: Net
    fragments: graph.Fragments
    outputs: tuple[int, ...]
    rounding: float

    @classmethod
    def of(cls, row: graph.Row) -> Pieces:
        """``row`` cut at every boundary."""
        outputs = tuple(row.graph.outputs.index(name) for name in row.logits)
        return cls(row.net, graph.cut(row), outputs, row.graph.rounding)

    @property
    def last(self) -> int:
        """Number of the last boundary, the logits."""
        return self.net.last

    @property
    def nbytes(self) -> int:
        """What the pieces take where they are stored."""
        parts = [*self.fragments.segments, *self.fragments.exits.values()]
        return sum(len(part.onnx) for part in parts)

    @property
    def exits(self) -> list[str]:
        """The tensors with the logits of every exit, in the order in which they run."""
        early = [logits_name(exit_.name) for exit_ in self.net.exits[:-1]]
        return [*early, boundary_name(self.last, self.last)]

    @property
    def at_once(self) -> int:
        """Samples in one batch."""
        sample = sum(boundary.nbytes for boundary in self.net.boundaries)
        return max(1, min(MOST_AT_ONCE, AT_ONCE_BYTES // sample))

    def leave(self, number: int) -> bytes:
        """The fragment that makes boundary ``number`` an output."""
        left = graph.leave(number, self.net.boundaries[number], last=self.last)
        return self.fragments.leave[number] + left

    def whole(self, *, boundaries: bool) -> list[bytes]:
        """The model of all pieces, with every exit and, if wanted, every boundary as outputs."""
        left = range(1, self.last + 1) if boundaries else [self.last]
        parts = [*self.fragments.segments, *self.fragments.exits.values()]
        pieces = [piece.onnx for piece in parts]
        return [*self._entry(0), *pieces, *map(self.leave, left)]

    def tail(self, start: int) -> list[bytes]:
        """The model from boundary ``start`` to the logits, entered in float32."""
        pieces = [piece.onnx for piece in self.fragments.segments[start:]]
        return [*self._entry(start), *pieces, self.leave(self.last)]

    def head(self, stop: int) -> list[bytes]:
        """The model from the input to boundary ``stop``, entered and left in float32."""
        pieces = [piece.onnx for piece in self.fragments.segments[:stop]]
        return [*self._entry(0), *pieces, self.leave(stop)]

    def _entry(self, start: int) -> list[bytes]:
        boundary = self.net.boundaries[start]
        entry = graph.entry(start, boundary, "float32", (), last=self.last)
        return [self.fragments.header, entry, self.fragments.enter[start]]


def batches(x: Floats, size: int) -> Iterator[Floats]:
    """``x`` in batches of ``size``."""
    for start in range(0, len(x), size):
        yield x[start : start + size]


def observe(pieces: Pieces, x: Floats) -> tuple[list[Seen], list[Floats]]:
    """What is seen at every boundary for the samples ``x``, and the logits of every exit.

    The logits are float32 ``(n, classes)``, one array for each exit in the order in which they run.
    """
    session = Session(pieces.whole(boundaries=True))
    seen = [NOTHING] * (pieces.last + 1)
    logits: list[list[Floats]] = [[] for _ in pieces.exits]
    for batch in batches(x, pieces.at_once):
        found = session.run({INPUT: batch})
        values = [batch, *(found[boundary_name(k, pieces.last)] for k in range(1, pieces.last + 1))]
        seen = [old | Seen.of(value) for old, value in zip(seen, values, strict=True)]
        for rows, name in zip(logits, pieces.exits, strict=True):
            rows.append(found[name])
    return seen, [np.concatenate(rows) for rows in logits]


def boundary_values(pieces: Pieces, number: int) -> Session:
    """What gives boundary ``number`` (from 1 on) of the inputs, as output of that name alone."""
    return Session(pieces.head(number))


def answers_of(pieces: Pieces, x: Floats) -> list[Floats]:
    """The logits of every exit for the samples ``x``, as `observe` gives them."""
    session = Session(pieces.whole(boundaries=False))
    found = [session.run({INPUT: batch}) for batch in batches(x, pieces.at_once)]
    return [np.concatenate([each[name] for each in found]) for name in pieces.exits]
