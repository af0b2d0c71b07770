"""The order of a trained dense net's channels in which its patterns keep the most.

A dense net computes the same in any order of its channels, if all that writes and reads them is
reordered together (`presplit.train.nets.axes`). A pattern does not: it keeps the connections that
lie at its places. So a pattern as it is drawn, with its kernels and its speed, keeps more of a
trained net whose channels were put in order first, and nothing is left to do at run time. All
layers around a shortcut share one order: the best for all of them together is looked for.

The orders that keep the most are a quadratic assignment problem. From a few random starts one axis
after the other is given its best order for those that the others have, which is a linear assignment
(`scipy.optimize.linear_sum_assignment`), until nothing is gained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError, library
from presplit.core.types import Pattern
from presplit.train.nets.axes import Axis
from presplit.train.nets.calling import evaluating, exit_logits
from presplit.train.nets.worth import Scores

Order = npt.NDArray[np.int64]
"""Which channel comes to each place."""
STARTS, SWEEPS = 4, 12
LARGE, FEW_SWEEPS = 512, 4
"""A net with an axis of more channels has one start and few sweeps: work grows as their cube."""
LEAST = 1e-4
"""A sweep that gains less than this share of all worth is the last one."""
CLOSE = 1e-3
"""How far logits may move when channels are reordered, as a share of their size."""


def put_in_order(
    model: nn.Module,
    patterns: Mapping[str, Pattern],
    scores: Mapping[str, Scores],
    axes: Mapping[tuple[str, int], Axis],
    samples: Tensor,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Reorder the channels of ``model`` in place, so that ``patterns`` keep the most of ``scores``.

    It computes the same afterwards. Gives the share of each layer's worth that its pattern keeps.
    ``axes``: those of the net (`axes_of`). Raises `GraphError` if the net computes something else
    afterwards.
    """
    ties = [_Tie(patterns[name], scores[name], axes, name) for name in patterns]
    free = list(
        dict.fromkeys(axis for tie in ties for axis in (tie.out, tie.into) if not axis.fixed)
    )
    best = dict[Axis, Order]()
    most = sum(tie.kept(best) for tie in ties)
    random = np.random.default_rng(seed)
    is_large = max((axis.size for axis in free), default=0) > LARGE
    for _ in range(1 if is_large else STARTS):
        orders = {axis: random.permutation(axis.size) for axis in free}
        kept = _improved(ties, free, orders, FEW_SWEEPS if is_large else SWEEPS)
        if kept > most:
            best, most = orders, kept
    _reorder(model, best, samples)
    return {name: tie.kept(best) for name, tie in zip(patterns, ties, strict=True)}


class _Tie:
    """A sparse layer between two axes: its mask by place, its scores by channel."""

    def __init__(
        self, pattern: Pattern, scores: Scores, axes: Mapping[tuple[str, int], Axis], name: str
    ) -> None:
        total = scores.sum()
        self.mask = pattern.mask().astype(np.float64)
        self.scores = scores / total if total else scores
        n_out, n_in = self.mask.shape
        self.out = axes.get((f"{name}.weight", 0), Axis(n_out, fixed=True)).root()
        self.into = axes.get((f"{name}.weight", 1), Axis(n_in, fixed=True)).root()

    def _ordered(self, orders: Mapping[Axis, Order], *, out: bool, into: bool) -> Scores:
        found = self.scores
        if out and self.out in orders:
            found = found[orders[self.out]]
        if into and self.into in orders:
            found = found[:, orders[self.into]]
        return found

    def kept(self, orders: Mapping[Axis, Order]) -> float:
        """The share of the worth that lies where connections exist."""
        return float((self.mask * self._ordered(orders, out=True, into=True)).sum())

    def gain(self, axis: Axis, orders: Mapping[Axis, Order]) -> Scores:
        """``(channel, place)``: what is kept with each channel of ``axis`` at each place."""
        found = np.zeros((axis.size, axis.size))
        if axis is self.into:
            found += self._ordered(orders, out=True, into=False).T @ self.mask
        if axis is self.out:
            found += self._ordered(orders, out=False, into=True) @ self.mask.T
        return found


def _improved(ties: list[_Tie], free: list[Axis], orders: dict[Axis, Order], sweeps: int) -> float:
    """What is kept once no axis alone can be ordered better, or after ``sweeps``.

    Changes ``orders``.
    """
    optimize: Any = library("scipy.optimize", need="choosing connections", extra="train")
    of_axis = {axis: [tie for tie in ties if axis in (tie.out, tie.into)] for axis in free}
    kept = sum(tie.kept(orders) for tie in ties)
    for _ in range(sweeps):
        before = kept
        for axis in free:
            gain = sum(tie.gain(axis, orders) for tie in of_axis[axis])
            channels, places = optimize.linear_sum_assignment(gain, maximize=True)
            trial = {**orders, axis: channels[np.argsort(places)]}
            gained = sum(tie.kept(trial) - tie.kept(orders) for tie in of_axis[axis])
            if gained > 0:  # a layer from an axis to itself may lose
                orders[axis], kept = trial[axis], kept + gained
        if kept - before < LEAST * len(ties):
            break
    return kept


def _reorder(model: nn.Module, orders: Mapping[Axis, Order], samples: Tensor) -> None:
    """Put every value of ``model`` in its axes' orders, and see that nothing has changed."""
    few = samples[:8]
    with evaluating(model), torch.no_grad():
        before = exit_logits(model, few)
        for axis, order in orders.items():
            places = torch.from_numpy(order)
            for name, dimension in axis.values:
                owner, _, leaf = name.rpartition(".")
                value = getattr(model.get_submodule(owner), leaf)
                value.copy_(value.index_select(dimension, places.to(value.device)))
        after = exit_logits(model, few)
    for old, new in zip(before, after, strict=True):
        moved = float((old - new).abs().max())
        if moved > CLOSE * float(old.abs().max()):
            raise GraphError(
                f"reordering the channels of {type(model).__name__} changes what it computes "
                f"(logits move by {moved:.3g}): its code depends on their order; keep connections "
                "drawn"
            )
