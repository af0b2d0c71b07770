"""Hanging early exits on a model.

They hang after the submodules that the user names, or where they are expected to pay most.

How much an exit answers is not known before training. `"auto"` takes it that an exit after a share
``c`` of the net's multiplications is sure of a share ``sqrt(c)`` of the samples (in BranchyNet,
arXiv 1709.01686, and in our MNIST and CIFAR-10 nets early exits answer more than that), and picks
the places with the lowest expected cost of an answer. One exit then hangs where about a third of
the multiplications are done.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from presplit import graph
from presplit.core.errors import GraphError
from presplit.train.nets.calling import evaluating
from presplit.train.nets.exits import ExitClassifier, MultiExit, taps
from presplit.train.nets.sparsify import sparsify
from presplit.train.nets.to_onnx import to_onnx

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
    hidden: int = 0,
    density: float | None = None,
) -> MultiExit:
    """``model`` (a copy) with an early exit after each named submodule, in the order they run.

    ``after="auto"`` hangs one or two exits where they are expected to pay most (see the head of
    this file). ``classes`` is taken from the last linear layer if not given. A head pools its tap
    and classifies it; with ``hidden`` a 3x3 convolution to so many channels comes first (a linear
    layer, where the tap is no image). ``density`` makes the heads sparse, in the first layer at
    least. With an ``example`` input ``(batch, ...)``, which "auto", ``hidden`` and ``density``
    need, the heads get their sizes at once; otherwise at the first call, which `fit` makes before
    it builds an optimiser. Raises `GraphError` for a name that the model does not have.

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
    model = copy.deepcopy(model)
    names = dict(model.named_modules())
    if after == "auto" and "auto" not in names and example is not None:
        after = places(model, example)
    after = [after] if isinstance(after, str) else after
    for name in after:
        if not name or name not in names:
            raise GraphError(
                f"no submodule is called {name!r}; there are: {', '.join(n for n in names if n)}"
            )
    if len(set(after)) != len(after):
        raise GraphError(f"each exit needs its own submodule, got {list(after)}")
    if classes is None:
        sizes = [getattr(m, "out_features", None) for m in names.values()]
        classes = next((size for size in reversed(sizes) if size), None)
    if classes is None:
        raise GraphError(
            f"{type(model).__name__} has no linear layer to tell the number of classes: give "
            "classes="
        )
    heads: dict[str, nn.Module] = {
        name: ExitClassifier(classes, pool=pool, over_time=_has_time(model, names[name]))
        for name in after
    }
    if example is None:
        return MultiExit(model, heads)
    if hidden:
        with taps(model, after) as seen, evaluating(model):
            model(example)
        heads = {
            name: nn.Sequential(*_hidden(seen[name], hidden, heads[name]), heads[name])
            for name in after
        }
    net = MultiExit(model, heads)
    net.materialise(example)
    if density is not None:
        for number, head in enumerate(net.heads):
            net.heads[number] = sparsify(head, layers={_first_layer(head): density})
    return net


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
    found = {
        boundary.name: macs / done[-1]
        for boundary, macs in zip(row.net.boundaries[1:-1], done, strict=False)
        if boundary.name in names and LEAST * done[-1] <= macs < done[-1]
    }
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
    done = [0, *itertools.accumulate(piece.macs for piece in pieces.segments)]
    heads = {name: piece.macs for name, piece in pieces.exits.items()}
    after = {exit_.name: exit_.after for exit_ in row.net.exits}
    order = model.exit_names if isinstance(model, MultiExit) else tuple(after)
    until = itertools.accumulate(
        (done[after[name]] for name in order), max
    )  # exits may be asked in any order
    before = itertools.accumulate(heads.get(name, 0) for name in order)
    return [net + spent for net, spent in zip(until, before, strict=True)]


def in_pieces(model: nn.Module, example: Tensor) -> tuple[graph.Row, graph.Fragments]:
    """The boundaries of ``model``, wherever it is, and what lies between them.

    ``example``: float ``(batch, ...)``.

    Raises `GraphError` if it cannot be exported.
    """
    here = copy.deepcopy(model).cpu().float().eval()
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
    return any(isinstance(part, nn.Conv1d) for part in model.modules())


def _hidden(tap: Tensor, width: int, head: nn.Module) -> list[nn.Module]:
    """A layer from the tap to ``width`` features, normalised, ReLU."""
    if tap.ndim == 4:
        return [
            nn.Conv2d(tap.shape[1], width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    if tap.ndim == 3 and isinstance(head, ExitClassifier) and head.over_time:
        return [
            nn.Conv1d(tap.shape[1], width, 3, padding=1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
    return [nn.Linear(tap.shape[-1], width), nn.ReLU()]


def _first_layer(head: nn.Module) -> str:
    """The name of the layer of ``head`` that reads the tap."""
    return next(
        name for name, part in head.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    )
