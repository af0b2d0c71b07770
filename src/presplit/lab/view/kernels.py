"""Which operator of a net each kernel of the engine belongs to.

Bundles name what is inside a piece after it (`presplit.graph.cut`), so a kernel that an engine made
of several operators is found by the last tensor that it gives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.tensors import boundary_name, logits_name
from presplit.core.types import Net
from presplit.graph.listing import Operator
from presplit.runtime.engines.profile import Kernel

Array = npt.NDArray[np.float64]
Piece = tuple[str, int]
"""A segment or an exit, and its number."""
FAR = 6
"""Operators that an engine makes one of, at most."""


@dataclass(frozen=True)
class Shown:
    """An operator with its piece and what it takes here.

    ``seconds`` is None where the engine computes it together with ``within``, the number of another
    operator. A change of layout that the engine adds is an operator without a node.
    """

    operator: Operator
    piece: Piece
    seconds: float | None
    within: int | None = None


@dataclass(frozen=True, eq=False)
class Placed:
    """All operators, and float64 ``(segments, runs)`` and ``(early exits, runs)`` seconds."""

    operators: tuple[Shown, ...]
    segment_s: Array
    exit_s: Array


def placed(
    listed: Sequence[Operator], kernels: Sequence[Kernel], net: Net, whole_s: float
) -> Placed:
    """The operators ``listed`` with the times of ``kernels``, which together take ``whole_s``.

    What a profile adds to each kernel is thereby taken off again.
    """
    pieces = _pieces(listed, net)
    kept = [number for number, piece in enumerate(pieces) if piece is not None]
    runs = len(kernels[0].seconds) if kernels else 1
    sums = sum((kernel.seconds for kernel in kernels), np.zeros(runs))
    factor = whole_s / max(float(np.median(sums)), 1e-9)
    # A neighbour that takes the processor away is in some of the runs, and not what is looked for.
    quiet = np.sort(np.argsort(sums)[: max(1, runs * 8 // 10)])
    segment_s, exit_s = np.zeros((net.last, len(quiet))), np.zeros((len(net.exits) - 1, len(quiet)))
    took: dict[int, float] = {}
    within: dict[int, int] = {}
    added: list[Shown] = []
    makers = {name: number for number in kept for name in listed[number].outputs}
    nodes = {listed[number].node: number for number in kept if listed[number].node}
    for place, kernel in enumerate(kernels):
        end = _operator_of(kernel, nodes, makers)
        piece = pieces[end] if end is not None else _near(kernels, place, nodes, makers, pieces)
        if piece is None:
            continue
        seconds = kernel.seconds[quiet] * factor
        (segment_s if piece[0] == "segment" else exit_s)[piece[1]] += seconds
        if end is None:
            added.append(Shown(_layout(kernel), piece, float(seconds.mean())))
            continue
        start, between = _first(kernel.kind, end, listed, makers, pieces)
        took[start] = took.get(start, 0.0) + float(seconds.mean())
        within |= {number: start for number in between}
    _join(kept, listed, makers, pieces, took, within)
    order = {number: place for place, number in enumerate(kept)}
    shown = [
        Shown(
            listed[number],
            pieces[number] or ("segment", 0),
            took.get(number),
            order.get(within[number]) if number in within and number not in took else None,
        )
        for number in kept
    ]
    return Placed((*shown, *added), segment_s, exit_s)


def _pieces(listed: Sequence[Operator], net: Net) -> list[Piece | None]:
    """The piece of each operator; None for what only enters the net."""
    exits = {exit_.name: number for number, exit_ in enumerate(net.exits[:-1])}
    ends = {boundary_name(k, net.last): ("segment", k - 1) for k in range(1, net.last + 1)}
    ends |= {logits_name(name): ("exit", number) for name, number in exits.items()}
    found: list[Piece | None] = []
    for one in listed:
        piece = next((ends[name] for name in one.outputs if name in ends), None)
        for name in (one.node, *one.outputs):
            piece = piece or _named(name, exits)
        found.append(piece)
    return found


def _named(name: str, exits: dict[str, int]) -> Piece | None:
    """The piece that a name begins with.

    >>> _named("segment_03/relu", {}), _named("exit_early/1", {"early": 0}), _named("relu", {})
    (('segment', 3), ('exit', 0), None)
    """
    prefix, slash, _ = name.partition("/")
    if not slash:
        return None
    if found := re.fullmatch(r"segment_(\d+)", prefix):
        return "segment", int(found[1])
    exit_ = prefix.removeprefix("exit_")
    return ("exit", exits[exit_]) if exit_ in exits else None


def _operator_of(kernel: Kernel, nodes: dict[str, int], makers: dict[str, int]) -> int | None:
    """The operator that a kernel is named after: by its node, or by the tensor that it gives.

    Fusing puts words around a node's name: ``fused segment_00/0``.
    """
    number = nodes.get(kernel.name, makers.get(kernel.name))
    if number is None and (inside := re.search(r"(segment_\d+|exit_[^/ ]+)/\d+", kernel.name)):
        return nodes.get(inside[0])
    return number


def _near(
    kernels: Sequence[Kernel],
    place: int,
    nodes: dict[str, int],
    makers: dict[str, int],
    pieces: Sequence[Piece | None],
) -> Piece | None:
    """The piece of a kernel that no operator is named after: that of what comes next to it."""
    order = [*range(place + 1, len(kernels)), *range(place - 1, -1, -1)]
    if "Output" in kernels[place].kind:  # it brings back the layout of what was before it
        order = [*range(place - 1, -1, -1), *range(place + 1, len(kernels))]
    for other in order:
        number = _operator_of(kernels[other], nodes, makers)
        if number is not None:
            return pieces[number]
    return None


def _first(
    kind: str,
    end: int,
    listed: Sequence[Operator],
    makers: dict[str, int],
    pieces: Sequence[Piece | None],
) -> tuple[int, list[int]]:
    """The operator that gave a kernel its kind, and those after it that the kernel computes too."""
    wanted = kind.removeprefix("Fused")
    waiting: list[tuple[int, list[int]]] = [(end, [])]
    for _ in range(FAR):
        following: list[tuple[int, list[int]]] = []
        for number, after in waiting:
            if listed[number].kind == wanted:
                return number, after
            before = [makers[name] for name in listed[number].inputs if name in makers]
            following += [(one, [number, *after]) for one in before if pieces[one] == pieces[end]]
        waiting = following
    return end, []


def _join(
    kept: Sequence[int],
    listed: Sequence[Operator],
    makers: dict[str, int],
    pieces: Sequence[Piece | None],
    took: dict[int, float],
    within: dict[int, int],
) -> None:
    """Operators that no kernel is named after are in the kernel of what they read last."""
    for number in kept:
        if number in took or number in within:
            continue
        before = [makers[name] for name in listed[number].inputs if name in makers]
        same = [one for one in before if pieces[one] == pieces[number]]
        if same:
            latest = max(same)
            within[number] = within.get(latest, latest)


def _layout(kernel: Kernel) -> Operator:
    """A kernel that has no operator of its own: a change of layout, or several fused into one."""
    return Operator("", kernel.kind, (), (), (), 0, 0, 0)
