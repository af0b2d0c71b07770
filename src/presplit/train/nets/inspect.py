"""A look at a net before any training.

It shows its layers, where it can be cut, where exits can hang, what a density saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from presplit.core.errors import GraphError, PatternError
from presplit.core.types import Net
from presplit.train.nets.add_exits import in_pieces, places_of
from presplit.train.nets.calling import answer, kind_of
from presplit.train.nets.copying import bare_copy, exportable
from presplit.train.nets.decide import decide
from presplit.train.nets.exits import MultiExit, taps
from presplit.train.nets.sparsify import applied
from presplit.train.nets.summary import Summary, summary

Cost = tuple[int, int]
"""Multiply-accumulates of one sample, weights."""


@dataclass(frozen=True)
class Survey:
    """What `survey` found.

    ``layers``: every layer with weights, its multiplications counted; ``shapes``: what each that
    ran gives for one sample. ``net`` with the costs of its ``segments`` and ``exits``: where it can
    be cut. ``taps``: the submodules that are boundaries, so that exits can hang there;
    ``recommended``: those where "auto" would hang exits. ``sparse``: the layers after `sparsify`,
    or None with the reason in ``refused``.
    """

    name: str
    layers: Summary
    shapes: Mapping[str, tuple[int, ...]]
    net: Net
    segments: tuple[Cost, ...]
    exits: Mapping[str, Cost]
    taps: tuple[str, ...]
    recommended: tuple[str, ...]
    sparse: Summary | None
    refused: str


def survey(
    model: object, shape: Sequence[int], *, density: float = 0.25, nearest: bool = False
) -> Survey:
    """What the classifier ``model`` is made of and could become.

    ``model`` takes float32 samples of ``shape``.

    ``density`` (0..1] and ``nearest``: as in `sparsify`. The model stays as it is, nothing is
    trained. It costs one export to ONNX. Raises `GraphError` if ``model`` is no module, does not
    take such samples or cannot be exported.

    >>> from presplit.train.zoo import mlp
    >>> found = survey(mlp([64, 64, 64, 10]), (64,))
    >>> found.taps, [row.weights for row in found.layers]
    (('relu1', 'relu2'), [4096, 4096, 640])
    >>> [row.weights for row in found.sparse or ()]
    [1024, 1024, 640]
    """
    example = torch.zeros(1, *shape)
    model = exportable(model, example)
    layers = summary(model, example)
    row, pieces = in_pieces(model, example)
    inner = model.model if isinstance(model, MultiExit) else model
    names = {name for name, _ in inner.named_modules()}
    sparse, refused = None, ""
    try:
        decided = decide(model, density=density, nearest=nearest)
        sparse = summary(applied(bare_copy(model), decided), example, decided=decided)
    except (GraphError, PatternError) as error:
        refused = str(error)
    return Survey(
        name=kind_of(model),
        layers=layers,
        shapes=_shapes(model, layers, example),
        net=row.net,
        segments=tuple((piece.macs, piece.weights) for piece in pieces.segments),
        exits={name: (piece.macs, piece.weights) for name, piece in pieces.exits.items()},
        taps=tuple(
            boundary.name for boundary in row.net.boundaries[1:-1] if boundary.name in names
        ),
        recommended=tuple(places_of(row, pieces, names)),
        sparse=sparse,
        refused=refused,
    )


def _shapes(model: nn.Module, layers: Summary, example: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """What each layer that runs gives for one sample."""
    with taps(model, [row.name for row in layers]) as seen, torch.no_grad():
        answer(model, example)
    return {name: tuple(value.shape[1:]) for name, value in seen.items()}
