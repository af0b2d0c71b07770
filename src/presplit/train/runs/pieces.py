"""The net of a run as the pieces that a bundle would have, and what they cost."""

from __future__ import annotations

import torch

from presplit.packing.whole import Pieces
from presplit.train.nets.add_exits import in_pieces, macs_at_exits
from presplit.train.runs.build import Run


def pieces_of(run: Run) -> tuple[Pieces, dict[str, int]]:
    """The exported net of ``run``, cut at every boundary, and the MACs of an answer at each exit.

    Raises `GraphError` if it cannot be exported.
    """
    row, fragments = in_pieces(run.model, torch.from_numpy(run.train.x[:1].copy()))
    macs = macs_at_exits(row, fragments, run.exit_names)
    return Pieces.of(row), dict(zip(run.exit_names, macs, strict=True))
