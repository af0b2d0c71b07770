"""The int8 form of a net: calibrated on the samples, cut, and refused where it is not the same net.

Source: static quantisation as ONNX Runtime runs it (`presplit.graph.quantise` says how).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from presplit import graph
from presplit.bundle import judged_places
from presplit.core.encoding import NOTHING, Seen
from presplit.core.errors import GraphError
from presplit.core.types import Floats
from presplit.packing.carried import MOST_CHANGED
from presplit.packing.session import Session, optimised
from presplit.packing.whole import Pieces, answers_of, batches

INT8 = "int8"
CALIBRATED_ON = 512
"""Samples, spread evenly, that show the ranges inside of segments; boundaries have seen all."""
TENSORS_A_BOUNDARY = 8
"""Of the tensors whose ranges are seen there may be so many for each boundary."""


@dataclass(frozen=True, eq=False)
class Int8:
    """The int8 form: its pieces, what codes reach over at boundaries, and the logits of exits.

    ``logits``: float32 ``(n, classes)`` for each exit in the order in which they run.
    """

    pieces: Pieces
    ranges: tuple[Seen | None, ...]
    logits: Sequence[Floats]

    def same_codes(self, seen: Sequence[Seen]) -> list[Seen]:
        """``seen`` at the boundaries, widened to what the form's codes reach over.

        A codec that is calibrated on it sends the codes with which the form computes.
        """
        return [
            at if reach is None else replace(at, low=reach.low, high=reach.high)
            for at, reach in zip(seen, self.ranges, strict=True)
        ]


def in_int8(
    row: graph.Row, pieces: Pieces, seen: Sequence[Seen], x: Floats, logits: Sequence[Floats]
) -> Int8:
    """The int8 form of ``row``, whose float32 ``pieces`` have ``seen`` the samples ``x``.

    ``logits``: what those give at every exit. Raises `GraphError` if the net cannot be quantised,
    or if that changes more than `MOST_CHANGED` of its answers.
    """
    model, shown = graph.to_quantise(row, optimised(graph.to_optimise(row)))
    inside = _ranges(shown, row.graph.input, x, max(1, pieces.at_once // TENSORS_A_BOUNDARY))
    inside |= dict(zip(row.tensors, seen, strict=True))
    form, _ = graph.in_int8(row, model, inside, pieces.fragments)
    made = replace(pieces, fragments=form.fragments)
    found = answers_of(made, x)
    changed = int((found[-1].argmax(-1) != logits[-1].argmax(-1)).sum())
    if changed > max(1, MOST_CHANGED * len(x)):
        raise GraphError(f"it changes the answers to {changed} of {len(x)} held-out samples")
    return Int8(made, form.ranges, found)


def _ranges(shown: bytes, given: str, x: Floats, at_once: int) -> dict[str, Seen]:
    """What is seen at every output of the model ``shown`` for some of ``x``, as input ``given``."""
    session = Session(shown, optimised=False)
    places = judged_places(len(x), min(len(x), CALIBRATED_ON))
    seen: dict[str, Seen] = {}
    for batch in batches(x[np.unique(places)], at_once):
        for name, values in session.run({given: batch}).items():
            seen[name] = seen.get(name, NOTHING) | Seen.of(values)
    return seen
