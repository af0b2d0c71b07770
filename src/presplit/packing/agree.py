"""A graph and its pieces compute the same, for one sample and for many.

An edge has one sample at a time, a server may have many. So the net as its owner runs it (torch, or
the file in ONNX Runtime) and the pieces joined again are compared at batch 1 and at a larger batch,
and each with itself; what depends on its batch is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from presplit import graph
from presplit.core.errors import GraphError
from presplit.core.tensors import INPUT
from presplit.core.types import Floats
from presplit.packing.session import Session
from presplit.packing.whole import Pieces

TOLERANCE = 1e-4
"""Largest difference, relative to the largest logit: float32 sums taken in another order."""
ROUNDINGS = 8
"""So many roundings of the coarsest numbers in the net may lie between: an engine computes float16
in float32, and leaves out other roundings in the pieces than in the whole."""
COMPARED = 8
"""Samples of the larger batch, at most; two at least."""
ALONE = 3
"""Of these, so many are also run alone."""


@dataclass(frozen=True)
class Reference:
    """The net as its owner runs it: what it is called, and its logits, one array for each exit.

    The exits are in the order of the graph's outputs. ``batch``: how many samples it takes, if that
    is fixed.
    """

    name: str
    run: Callable[[Floats], Sequence[Floats]]
    batch: int | None = None


def of_file(model: Any, *, input_name: str, outputs: Sequence[str]) -> Reference:
    """The file as it is, an `onnx.ModelProto`, in ONNX Runtime."""
    session = Session(model.SerializeToString(), optimised=False)

    def run(x: Floats) -> list[Floats]:
        found = session.run({input_name: x})
        return [found[name] for name in outputs]

    return Reference("the file", run, graph.fixed_batch(model))


def agree(pieces: Pieces, reference: Reference, x: Floats) -> None:
    """Raise `GraphError` unless pieces and ``reference`` give the same for the samples ``x``.

    ``x``: float32 ``(n, *shape)``; where they are too few, noise of their range joins them.
    """
    step = reference.batch or 1
    # Of a net for photographs a few samples at once are all that a small machine can hold.
    size = step * max(2, math.ceil(min(COMPARED, pieces.at_once) / step))
    x = _enough(x, size)
    _refuse_random(reference, x[:size])
    session = Session(pieces.whole(boundaries=False), optimised=False)
    opened = "" if reference.batch is None else _opened(reference.batch)
    tolerance = max(TOLERANCE, ROUNDINGS * pieces.rounding)

    def joined(batch: Floats) -> list[Floats]:
        try:
            found = session.run({INPUT: batch})
        except GraphError as error:
            cure = opened or f" ({error})"
            raise GraphError(f"its pieces do not take {len(batch)} samples{cure}") from error
        return [found[name] for name in pieces.exits]

    together = joined(x)
    expected = _in_batches(reference, x, size)
    names = [exit_.name for exit_ in pieces.net.exits]
    for name, ours, place in zip(names, together, pieces.outputs, strict=True):
        difference = relative_difference(ours, expected[place])
        if not difference <= tolerance:
            how = f"its pieces differ from {reference.name} at exit {name!r} by {difference:.2g}"
            raise GraphError(f"{how} (relative){opened or _not_finite(expected[place])}")
    for number in range(min(ALONE, size)):
        alone = x[number : number + 1]
        these = [each[number : number + 1] for each in together]
        _same_alone(names, joined(alone), these, tolerance)
        if reference.batch is None:
            there = reference.run(alone)
            among = [each[number : number + 1] for each in expected]
            _same_alone(
                [names[pieces.outputs.index(k)] for k in range(len(names))], there, among, tolerance
            )


def _enough(x: Floats, size: int) -> Floats:
    """``size`` samples: those of ``x``, and noise of their range, since repeats tell nothing."""
    if len(x) >= size:
        return x[:size]
    low, high = float(x.min()), float(x.max())
    shape = (size - len(x), *x.shape[1:])
    noise = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
    if (x == np.rint(x)).all():  # ids, of which there may be none between
        noise = np.rint(noise)
    return np.concatenate([x, noise])


def _refuse_random(reference: Reference, x: Floats) -> None:
    """Raise `GraphError` if the same samples get other logits the second time."""
    step = reference.batch or len(x)
    first, again = reference.run(x[:step]), reference.run(x[:step])
    for one, other in zip(first, again, strict=True):
        if relative_difference(one, other) > TOLERANCE:
            raise GraphError(
                f"{reference.name} gives other logits for the same samples each time: the net "
                "draws random numbers in evaluation; leave that out, or do it in training alone"
            )


def _in_batches(reference: Reference, x: Floats, size: int) -> list[Floats]:
    """What ``reference`` gives for ``x``, in batches that it takes."""
    step = reference.batch or size
    parts = [reference.run(x[start : start + step]) for start in range(0, len(x), step)]
    return [np.concatenate(of_exit) for of_exit in zip(*parts, strict=True)]


def _same_alone(
    names: Sequence[str], alone: Sequence[Floats], among: Sequence[Floats], tolerance: float
) -> None:
    """Raise `GraphError` if a sample alone gets other logits than it gets among others."""
    for name, one, other in zip(names, alone, among, strict=True):
        difference = relative_difference(one, other)
        if not difference <= tolerance:
            raise GraphError(
                f"samples of one batch depend on each other: at exit {name!r} a sample alone gets "
                f"logits that differ by {difference:.2g} (relative) from those that it gets among "
                "others, and on an edge each sample comes alone; a net must not normalise or mix "
                "over its batch in evaluation (BatchNorm's running statistics do not; one scale "
                "for a batch, as DynamicQuantizeLinear has, does)"
            )


def relative_difference(found: Floats, expected: Floats) -> float:
    """The largest difference, relative to the largest value expected.

    Values that are all below 1 may come from larger ones inside, whose rounding they carry: against
    them a difference counts a hundredth, or as if the largest were 1, whichever is more. Infinite
    if the shapes differ.

    >>> relative_difference(np.array([1.0, 4.0]), np.array([1.0, 5.0]))
    0.2
    >>> relative_difference(np.array([1e-5]), np.array([2e-5]))
    0.005
    """
    if found.shape != expected.shape:
        return math.inf
    difference, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if not largest > 0:
        return difference
    return max(difference / max(1.0, largest), difference / largest / 100)


def _opened(batch: int) -> str:
    return f": its batch of {batch} cannot be opened; export the net with a dynamic batch"


def _not_finite(expected: Floats) -> str:
    return "" if np.isfinite(expected).all() else ": it gives values that are not finite"
