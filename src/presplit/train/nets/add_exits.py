"""Hanging early exits on a model.

They hang after the submodules that the user names, or where they are expected to pay most.

How much an exit answers is not known before training. `"auto"` takes it that an exit after a share
``c`` of the net's multiplications is sure of a share ``sqrt(c)`` of the samples (in BranchyNet,
arXiv 1709.01686, and in our MNIST and CIFAR-10 nets early exits answer more than that), and picks
the places with the lowest expected cost of an answer. One exit then hangs where about a third of
the multiplications are done.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from presplit import graph
from presplit.core.errors import GraphError, context
from presplit.train.layers.convolution import Convolution, SparseConv1d
from presplit.train.nets.calling import answer, check_logits, device_of, evaluating
from presplit.train.nets.copying import bare_copy, exportable
from presplit.train.nets.exits import ExitClassifier, MultiExit, Pool, taps
from presplit.train.nets.paths import uncertain_exits
from presplit.train.nets.sparsify import sparsify
from presplit.train.nets.to_onnx import to_onnx

PLACES = 8
"""The convolution of an exit sees means over at most so many places a side.

A map is large where exits are early: on the first one of a ResNet-8, 32 x 32, a convolution of an
exit takes as long as all that the net did before, and no share of early answers wins that back.
"""
MOST = 2
"""Exits that "auto" hangs on a net."""
LEAST = 0.1
"""An exit comes after this share of the net's multiplications at least.

Before, features are too plain to classify.
"""
WORTH = 0.03
"""A further exit must lower the expected cost of an answer by this share.

The share is that of the net's multiplications.
"""


def add_exits(
    model: nn.Module,
    after: str | Sequence[str],
    *,
    classes: int | None = None,
    example: Tensor | None = None,
    pool: int = 3,
    hidden: int | Sequence[int] = 0,
    density: float | None = None,
) -> MultiExit:
    """``model`` (a copy) with an early exit after each named submodule, in the order they run.

    ``after="auto"`` hangs one or two exits where they are expected to pay most (see the head of
    this file). ``classes`` are those that the model gives for the ``example``, or those of its last
    linear layer, if not given. An exit pools its tap to ``pool`` places a side and classifies them,
    which costs next to nothing. With ``hidden`` a 3x3 convolution to so many channels comes first
    (one number, or one for each exit, 0 where it has none), on means over 8 x 8 places (64 in time;
    a linear layer, where the tap has neither): an exit of 64 channels after 64 others takes 2.4
    million multiplications, a quarter of them with ``density=1/4``. `exit_macs` tells what an
    answer costs, `summary` the exits' share. ``density`` makes these layers sparse, or, if no exit
    has one, the classifiers. With an ``example`` input ``(batch, ...)``, which "auto", ``hidden``
    and ``density`` need, the exits get their sizes at once, and places are refused at which the net
    cannot be cut; otherwise `fit` does both before it trains. The copy is without what only wraps
    the model, such as `torch.compile`. Raises `GraphError` for a name that the model does not have,
    a place that cannot be cut, and a model that does not run the example.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> [tuple(logits.shape) for logits in add_exits(net, after=["1"])(torch.ones(5, 8))]
    [(5, 3), (5, 3)]
    """
    if example is None and (after == "auto" or hidden or density is not None):
        raise GraphError(
            "after='auto', hidden and density need an example input to see the shapes: give "
            "example="
        )
    model = bare_copy(model)
    if example is None:
        return MultiExit(model, _classifiers(model, after, classes or _last_size(model), pool))
    example = example.to(device_of(model))
    own = check_logits(model, example)[-1]
    if after == "auto" and "auto" not in dict(model.named_modules()):
        after = places(model, example)
    heads = _classifiers(model, after, classes or own.shape[1], pool)
    widths = _widths(hidden, list(heads))
    if any(widths):
        with taps(model, list(heads)) as seen, evaluating(model):
            answer(model, example)
        for (name, head), width in zip(list(heads.items()), widths, strict=True):
            if width:
                heads[name] = nn.Sequential(*_hidden(seen[name], width, head), head)
    net = MultiExit(model, heads)
    net.heads.to(own)
    net.materialise(example)
    check_places(net, example)
    if density is not None:
        for number, head in enumerate(net.heads):
            if any(widths) and not widths[number]:
                continue
            net.heads[number] = sparsify(head, layers={_first_layer(head): density})
    return net


def _classifiers(
    model: nn.Module, after: str | Sequence[str], classes: int, pool: int
) -> dict[str, nn.Module]:
    """A classifier for each place; raises `GraphError` for names that are wrong."""
    names = dict(model.named_modules())
    after = [after] if isinstance(after, str) else after
    for name in after:
        if not name or name not in names:
            raise GraphError(
                f"no submodule is called {name!r}; there are: {', '.join(n for n in names if n)}"
            )
    if len(set(after)) != len(after):
        raise GraphError(f"each exit needs its own submodule, got {list(after)}")
    return {
        name: ExitClassifier(classes, pool=pool, over_time=_has_time(model, names[name]))
        for name in after
    }


def _widths(hidden: int | Sequence[int], after: Sequence[str]) -> list[int]:
    """The channels of each exit's hidden layer, 0 for none."""
    widths = [*hidden] if isinstance(hidden, Sequence) else [hidden] * len(after)
    if len(widths) != len(after) or not all(isinstance(k, int) and k >= 0 for k in widths):
        raise GraphError(
            "hidden: expected a number of channels, 0 for none, or one for each exit after "
            f"{list(after)}, got {hidden}"
        )
    return widths


def _last_size(model: nn.Module) -> int:
    """The outputs of the net's last linear layer."""
    sizes = [getattr(layer, "out_features", None) for layer in model.modules()]
    for size in reversed(sizes):
        if isinstance(size, int):
            return size
    raise GraphError(
        f"{type(model).__name__} has no linear layer to tell the number of classes: give classes= "
        "or example="
    )


def check_places(net: MultiExit, example: Tensor) -> None:
    """Raise `GraphError` unless ``net`` can be cut wherever an exit hangs.

    ``example``: float ``(batch, ...)``. It costs a run of a few samples, and an export only where
    such a run does not tell.
    """
    with torch.autocast(example.device.type, enabled=False):  # what is exported is in float32
        try:
            uncertain = uncertain_exits(net, example)
        except GraphError:  # what the run cannot follow, the export may
            uncertain = list(net.after)
        if uncertain:
            with context(f"exit after {' or '.join(map(repr, uncertain))}"):
                in_pieces(net, example)


def places(model: nn.Module, example: Tensor, *, most: int = MOST) -> list[str]:
    """The submodules after which exits are expected to pay most, in the order they run.

    There are at most ``most``, and at least one.

    Only places that all of the net passes through, so that it can be cut there. ``example``: float
    ``(batch, ...)``. Raises `GraphError` if the net has no such place between its input and its
    logits.

    >>> import torch
    >>> from presplit.train.zoo import resnet8
    >>> places(resnet8(width=8), torch.zeros(1, 3, 32, 32))
    ['block1', 'block2']
    """
    found = places_of(
        *in_pieces(model, example), {name for name, _ in model.named_modules()}, most=most
    )
    if not found:
        raise GraphError(
            f"{type(model).__name__} has no submodule through which all of it passes: name the "
            "places"
        )
    return found


def places_of(
    row: graph.Row, pieces: graph.Fragments, names: Collection[str], *, most: int = MOST
) -> list[str]:
    """`places` of a net that is exported and cut already; ``names`` are its submodules.

    Empty if there is no place.
    """
    done = list(itertools.accumulate(piece.macs for piece in pieces.segments))
    known: dict[str, float] = {}
    for number, macs in enumerate(done[:-1], start=1):
        place = _submodule_at(row, number, names)
        if place and 0 < macs < done[-1]:
            known.setdefault(place, macs / done[-1])
    found = {name: share for name, share in known.items() if share >= LEAST} or known
    choices = [
        min(itertools.combinations(found, count), key=lambda c: _expected(c, found))
        for count in range(1, most + 1)
        if count <= len(found)
    ]
    chosen = choices[0] if choices else ()
    for more in choices[1:]:
        if _expected(chosen, found) - _expected(more, found) > WORTH:
            chosen = more
    return list(chosen)


def _submodule_at(row: graph.Row, number: int, names: Collection[str]) -> str:
    """The submodule whose output is boundary ``number``, or nothing.

    If a function made the boundary, such as `torch.nn.functional.relu`, it is the submodule whose
    output the function read, as long as nothing was multiplied between: to cut there costs the
    same.
    """
    if row.net.boundaries[number].name in names:
        return row.net.boundaries[number].name
    node = row.graph.producer[row.tensors[number]]
    while graph.count_macs(row.graph, [node]) == 0:
        read = [name for name in graph.needs(node) if name in row.graph.live]
        if len(read) != 1 or read[0] == row.tensors[number - 1]:
            break
        before = row.graph.producer[read[0]]
        place = graph.label(before)
        is_left = not f"{graph.label(node)}.".startswith(f"{place}.")
        if place in names and is_left and row.graph.batch_first(read[0]) is not None:
            return place
        node = before
    return ""


def exit_macs(model: nn.Module, example: Tensor) -> list[int]:
    """Multiply-accumulates of one answer at each exit of ``model``, those before it included.

    Exits are in their order, and all multiply-accumulates count, wherever they are computed.
    ``example``: float ``(batch, ...)``.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> exit_macs(add_exits(net, ["1"]), torch.zeros(1, 8))
    [192, 256]
    """
    row, pieces = in_pieces(model, example)
    order = model.exit_names if isinstance(model, MultiExit) else None
    return macs_at_exits(row, pieces, order)


def macs_at_exits(
    row: graph.Row, pieces: graph.Fragments, order: Sequence[str] | None = None
) -> list[int]:
    """`exit_macs` of a net in ``pieces``, whose exits are asked in that ``order``."""
    done = [0, *itertools.accumulate(piece.macs for piece in pieces.segments)]
    heads = {name: piece.macs for name, piece in pieces.exits.items()}
    after = {exit_.name: exit_.after for exit_ in row.net.exits}
    asked = tuple(order or after)
    until = itertools.accumulate(
        (done[after[name]] for name in asked), max
    )  # exits may be asked in any order
    before = itertools.accumulate(heads.get(name, 0) for name in asked)
    return [net + spent for net, spent in zip(until, before, strict=True)]


def in_pieces(model: nn.Module, example: Tensor) -> tuple[graph.Row, graph.Fragments]:
    """The boundaries of ``model``, wherever it is, and what lies between them.

    ``example``: float ``(batch, ...)``.

    Raises `GraphError` if it cannot be exported.
    """
    here = exportable(model, example)
    names = model.exit_names if isinstance(model, MultiExit) else None
    row = graph.row(graph.read(to_onnx(here, example.cpu())), names)
    return row, graph.cut(row)


def _expected(names: Sequence[str], shares: dict[str, float]) -> float:
    """Expected cost of an answer, as a share of the net's.

    An exit after a share c of the net is taken to be sure of sqrt(c) of the samples.
    """
    cost, still_open, before = 0.0, 1.0, 0.0
    for share in (*(shares[name] for name in names), 1.0):
        cost += still_open * (share - before)
        still_open, before = 1 - math.sqrt(share), share
    return cost


def _has_time(model: nn.Module, tapped: nn.Module) -> bool:
    """Whether a tap of three axes ends with time, as convolutions leave it, not with features."""
    if any(isinstance(part, nn.LayerNorm | nn.MultiheadAttention) for part in tapped.modules()):
        return False
    return any(isinstance(part, nn.Conv1d | SparseConv1d) for part in model.modules())


def _hidden(tap: Tensor, width: int, head: nn.Module) -> list[nn.Module]:
    """A layer from the tap to ``width`` features, normalised, ReLU; maps are made small before."""
    if tap.ndim == 4:
        return [
            Pool(PLACES),
            nn.Conv2d(tap.shape[1], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    if tap.ndim == 3 and isinstance(head, ExitClassifier) and head.over_time:
        return [
            Pool(PLACES**2),
            nn.Conv1d(tap.shape[1], width, 3, padding=1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
    return [nn.Linear(tap.shape[-1], width), nn.ReLU()]


def _first_layer(head: nn.Module) -> str:
    """The name of the layer of ``head`` that reads the tap."""
    return next(
        name for name, part in head.named_modules() if isinstance(part, nn.Linear | Convolution)
    )
