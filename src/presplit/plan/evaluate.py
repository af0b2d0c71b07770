"""Every plan of the grid, evaluated: what each is expected to take, to cost and to get right.

A plan's times come from `presplit.core.cost`, its shares and its accuracy from held-out scores: a
sample leaves at the first exit whose score reaches its threshold; otherwise the net's own
classifier answers, on the server or at the end of the edge. Only the shares depend on the
thresholds, so the formula is asked once for each split, codec and set of exits in use, and the
thresholds are weighed all at once.

The thresholds of an exit are quantiles of its own held-out scores, from the lowest (everything
leaves there) to the highest, and "never" (the exit answers nothing). What is left out: codecs are
taken to cost no accuracy and no time, links to have no jitter and no loss, servers to have no
queue.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core import cost
from presplit.core.errors import PlanError
from presplit.core.types import Estimate, Floats, Plan
from presplit.plan.scenario import BYTES_PER_WEIGHT, Situation

LEVELS = 21
"""Thresholds tried for each exit, besides "never": one every 5 % of its held-out samples."""
MOST_COMBINATIONS = 12_000
"""At most so many combinations of thresholds.

Nets with more than three early exits get fewer levels for each.
"""
MOST_EXITS = 12
"""At most so many early exits: the search tries every subset of them."""

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """Plans that differ in nothing but the values of their thresholds.

    ``thresholds`` is ``(plans, exits)`` in the order of ``exits``; every other array is
    ``(plans,)``.
    """

    split: int
    codec: str
    exits: tuple[str, ...]
    head_bytes: int
    thresholds: Floats
    mean_s: Array
    p50_s: Array
    p99_s: Array
    accuracy: Array
    edge_share: Array
    up_bytes: Array
    energy_j: Array
    macs: Array

    def plan(self, row: int, *, policy: str, how: str, deadline_s: float | None) -> Plan:
        """The plan in ``row``, with what is expected of it."""
        expected = Estimate(
            mean_s=float(self.mean_s[row]),
            p50_s=float(self.p50_s[row]),
            p99_s=float(self.p99_s[row]),
            accuracy=float(self.accuracy[row]),
            edge_share=float(self.edge_share[row]),
            up_bytes=float(self.up_bytes[row]),
            energy_j=float(self.energy_j[row]),
            macs=float(self.macs[row]),
            how=how,
        )
        thresholds = {
            name: float(self.thresholds[row, column]) for column, name in enumerate(self.exits)
        }
        return Plan(self.split, thresholds, self.codec, policy, deadline_s, expected)


def evaluate(found: Situation) -> Iterator[Block]:
    """Every plan of the grid, split by split, exits in use by exits in use, codec by codec."""
    if len(found.early) > MOST_EXITS:
        raise PlanError(
            f"the search takes at most {MOST_EXITS} early exits, this net has {len(found.early)}"
        )
    grids = _grids(found)
    for split in range(found.net.last + 1):
        count = sum(exit_.after <= split for exit_ in found.early)
        shares, correct = _leaving(found, grids[:count])
        # Nothing travels at the last boundary, so there is one codec to speak of: the plain one.
        codecs = {"float32": 0} if split == found.net.last else found.payload_bytes[split]
        for used in itertools.chain.from_iterable(
            itertools.combinations(range(count), r) for r in range(count + 1)
        ):
            # The last index of each axis of `shares` and `correct` is "never"; the others are the
            # grid's thresholds.
            sizes = enumerate(len(grid) for grid in grids[:count])
            part = tuple(slice(0, size) if e in used else slice(size, None) for e, size in sizes)
            columns = np.stack([shares[where][part].ravel() for where in (*used, -1)], axis=1)
            values = np.array(list(itertools.product(*(grids[e] for e in used))), dtype=np.float32)
            for codec, payload_bytes in codecs.items():
                yield _block(
                    found, split, codec, payload_bytes, used, values, columns, correct[part].ravel()
                )


def _grids(found: Situation) -> list[Floats]:
    """The thresholds to try for each early exit.

    They rise, are different, and each is the score of a held-out sample.
    """
    count = len(found.early)
    levels = (
        LEVELS if count == 0 else min(LEVELS, max(1, int(MOST_COMBINATIONS ** (1 / count)) - 1))
    )
    ranks = np.ceil(np.linspace(0, 1, levels) * (found.scores.shape[1] - 1)).astype(np.int64)
    rising: Floats = np.sort(found.scores[:count], axis=1)[:, ranks]
    return [np.array(sorted(set(row.tolist())), dtype=np.float32) for row in rising]


def _leaving(found: Situation, grids: Sequence[Floats]) -> tuple[list[Array], Array]:
    """Where samples leave and how many are answered correctly, for all thresholds at once.

    The thresholds are taken in all combinations.

    All arrays have one axis for each of the first ``len(grids)`` exits, indexed by its threshold,
    "never" last. The first result is the share that leaves at each of these exits and, last, the
    share that stays to the end; the second is the accuracy.
    """
    shape = tuple(len(grid) + 1 for grid in grids)
    samples = found.scores.shape[1]
    # A sample reaches the thresholds 0..level-1 of an exit, so it stays there under threshold t if
    # level <= t.
    levels = np.zeros((len(grids), samples), dtype=np.int64)
    for e, grid in enumerate(grids):
        levels[e] = grid.searchsorted(found.scores[e], side="right")

    def staying(count: int, weights: Counts) -> Counts:
        """The weight of the samples that leave at none of the first ``count`` exits.

        A cumulative histogram.
        """
        if count == 0:
            return weights.sum(keepdims=True).reshape((1,) * len(shape))
        total = np.zeros(shape[:count], dtype=np.int64)
        np.add.at(total, tuple(levels[:count]), weights)
        for axis in range(count):
            total = total.cumsum(axis)
        return total.reshape(shape[:count] + (1,) * (len(shape) - count))

    ones = np.ones(samples, dtype=np.int64)
    hits = found.hits.astype(np.int64)
    leave = [
        np.broadcast_to(staying(e, ones) - staying(e + 1, ones), shape) for e in range(len(grids))
    ]
    correct = sum(
        (staying(e, hits[e]) - staying(e + 1, hits[e]) for e in range(len(grids))),
        np.zeros(shape, np.int64),
    )
    correct = correct + staying(len(grids), hits[-1])
    return [part / samples for part in (*leave, staying(len(grids), ones))], correct / samples


def _block(
    found: Situation,
    split: int,
    codec: str,
    payload_bytes: int,
    used: tuple[int, ...],
    thresholds: Floats,
    shares: Array,
    accuracy: Array,
) -> Block:
    """The plans with these exits in ``used``.

    ``shares`` is ``(plans, used exits + 1)``: who leaves where.
    """
    names = tuple(found.early[e].name for e in used)
    # The outcomes' times, energies and bytes do not depend on the shares, so any will do here.
    outcomes = cost.outcomes(
        found.net,
        split=split,
        leaves=dict.fromkeys(names, 0.0),
        edge=found.edge,
        server=found.server,
        link=found.link,
        payload_bytes=payload_bytes,
    )
    seconds = np.array([outcome.seconds for outcome in outcomes])
    return Block(
        split=split,
        codec=codec,
        exits=names,
        head_bytes=_head_bytes(found, split, names),
        thresholds=thresholds,
        mean_s=shares @ seconds,
        p50_s=_quantile(seconds, shares, 0.5),
        p99_s=_quantile(seconds, shares, 0.99),
        accuracy=accuracy,
        edge_share=np.ones(len(shares)) if split == found.net.last else 1 - shares[:, -1],
        up_bytes=shares @ np.array([outcome.up_bytes for outcome in outcomes]),
        energy_j=shares @ np.array([outcome.joules for outcome in outcomes]),
        macs=shares @ _edge_macs(found, split, names),
    )


def _quantile(seconds: Array, shares: Array, q: float) -> Array:
    """`presplit.core.cost.quantile` for many plans.

    It gives ``(plans,)`` from ``(outcomes,)`` and ``(plans, outcomes)``.
    """
    order = np.argsort(seconds, kind="stable")
    reached = shares[:, order].cumsum(axis=1) >= q - 1e-12
    return seconds[order][reached.argmax(axis=1)]


def _edge_macs(found: Situation, split: int, names: tuple[str, ...]) -> Array:
    """Multiply-accumulates on the edge for a sample, by where it leaves.

    There is one number for each exit in ``names`` and, last, one for a sample that leaves at none.
    """
    macs = cost.edge_macs(
        found.net,
        split=split,
        used=names,
        segment_macs=found.segment_macs,
        exit_macs=found.exit_macs,
    )
    return np.array(macs)


def _head_bytes(found: Situation, split: int, names: tuple[str, ...]) -> int:
    """Bytes of the weights that the edge holds, also of those that only hold an answer."""
    held = cost.holding_exit(found.net, split, names)
    reached = split if held is None else max(split, found.net.exits[held].after)
    exits = [e for e, exit_ in enumerate(found.net.exits) if exit_.name in names or e == held]
    return BYTES_PER_WEIGHT * (
        sum(found.segment_weights[:reached]) + sum(found.exit_weights[e] for e in exits)
    )
