"""What a run's net is made of: its boundaries, what each piece costs, which connections exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from presplit.core.types import Net, Pattern
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.add_exits import in_pieces
from presplit.train.nets.summary import Summary, summary
from presplit.train.runs.build import Run

Cost = tuple[int, int]
"""Multiply-accumulates of one sample, weights."""


@dataclass(frozen=True)
class About:
    """What `about` found.

    ``net`` with the costs of its ``segments`` and its early ``exits``; ``layers``: every layer with
    weights; ``patterns``: those of the sparse ones, each with the name of its family.
    """

    net: Net
    segments: tuple[Cost, ...]
    exits: Mapping[str, Cost]
    layers: Summary
    patterns: Mapping[str, tuple[Pattern, str]]


def about(run: Run) -> About:
    """What the net of ``run`` is made of; it costs one export to ONNX.

    Raises `GraphError` if the net cannot be exported.
    """
    example = torch.from_numpy(run.train.x[:1].copy())
    row, pieces = in_pieces(run.model, example)
    return About(
        row.net,
        tuple((piece.macs, piece.weights) for piece in pieces.segments),
        {name: (piece.macs, piece.weights) for name, piece in pieces.exits.items()},
        summary(run.model, example),
        {
            name: (layer.pattern, layer.family)
            for name, layer in run.model.named_modules()
            if isinstance(layer, SparseLayer)
        },
    )
