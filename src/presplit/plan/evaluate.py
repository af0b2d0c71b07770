"""Every plan of the grid, evaluated: what each is expected to take, to cost and to get right.

A plan's times come from `presplit.core.cost`, its shares and its accuracy from held-out scores: a
sample leaves at the first exit whose score reaches its threshold; otherwise the net's own
classifier answers, on the server or at the end of the edge. Only the shares depend on the
thresholds, so the formula is asked once for each split, codec and set of exits in use, and the
thresholds are weighed all at once.

The thresholds of an exit are quantiles of its own held-out scores, from the lowest (everything
leaves there) to the highest, and "never" (the exit answers nothing). What a codec costs in accuracy
is what the bundle measured. What is left out: links have no jitter and no loss, servers no queue.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core import cost
from presplit.core.errors import PlanError
from presplit.core.plans import Estimate, Plan
from presplit.core.routing import Weighed, grid, weigh
from presplit.core.types import Floats
from presplit.plan.scenario import BYTES_PER_WEIGHT, Scenario

LEVELS = 21
"""Thresholds tried for each exit, besides "never": one every 5 % of its held-out samples."""
MOST_COMBINATIONS = 12_000
"""At most so many combinations of thresholds.

Nets with more than three early exits get fewer levels for each.
"""
MOST_EXITS = 12
"""At most so many early exits: the search tries every subset of them."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Block:
    """Plans that differ in nothing but the values of their thresholds.

    ``thresholds`` is ``(plans, exits)`` in the order of ``exits``; every other array is
    ``(plans,)``.
    """

    split: int
    codec: str
    exits: tuple[str, ...]
    all_edge: bool
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
            all_edge=self.all_edge,
        )
        thresholds = {
            name: float(self.thresholds[row, column]) for column, name in enumerate(self.exits)
        }
        return Plan(
            self.split,
            thresholds,
            self.codec,
            policy,
            deadline_s=deadline_s,
            expected=expected,
        )


def evaluate(found: Scenario) -> Iterator[Block]:
    """Every plan of the grid: split by split, codec by codec, exits in use by exits in use."""
    if len(found.early) > MOST_EXITS:
        raise PlanError(
            f"the search takes at most {MOST_EXITS} early exits, this net has {len(found.early)}"
        )
    grids = _grids(found)
    for split in range(found.net.last + 1):
        count = sum(exit_.after <= split for exit_ in found.early)
        # Nothing travels at the last boundary, so there is one codec to speak of: the plain one.
        alone = split == found.net.last
        codecs = {"float32": 0} if alone else found.payload_bytes[split]
        for codec, payload_bytes in codecs.items():
            scores, values = found.scores[:count], found.values(split, codec)
            weighed = weigh(scores, np.vstack([values[:count], values[-1:]]), grids[:count])
            for used in _subsets(count):
                yield _block(found, split, codec, payload_bytes, used, grids[:count], weighed)


def _grids(found: Scenario) -> list[Floats]:
    """The thresholds to try for each early exit."""
    count = len(found.early)
    levels = LEVELS
    if count:
        levels = min(LEVELS, max(1, int(MOST_COMBINATIONS ** (1 / count)) - 1))
    return [grid(found.scores[number], levels) for number in range(count)]


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Every set of early exits that may be in use, out of the first ``count``."""
    for size in range(count + 1):
        yield from itertools.combinations(range(count), size)


def _block(
    found: Scenario,
    split: int,
    codec: str,
    payload_bytes: float,
    used: tuple[int, ...],
    grids: Sequence[Floats],
    weighed: Weighed,
) -> Block:
    """The plans that use the exits ``used``: all combinations of their thresholds."""
    names = tuple(found.early[e].name for e in used)
    # The last index of each axis is "never"; the others are the grid's thresholds.
    part = tuple(
        slice(0, len(rising)) if e in used else slice(len(rising), None)
        for e, rising in enumerate(grids)
    )
    shares = np.stack([weighed.shares[where][part].ravel() for where in (*used, -1)], axis=1)
    outcomes = cost.outcomes(
        found.net,
        split=split,
        used=names,
        edge=found.edge,
        server=found.server,
        link=found.link,
        codec=codec,
        payload_bytes=payload_bytes,
    )
    expected = cost.expect(outcomes, shares)
    return Block(
        split=split,
        codec=codec,
        exits=names,
        all_edge=split == found.net.last,
        head_bytes=_head_bytes(found, split, names),
        thresholds=np.array(list(itertools.product(*(grids[e] for e in used))), dtype=np.float32),
        mean_s=expected.mean_s,
        p50_s=expected.p50_s,
        p99_s=expected.p99_s,
        accuracy=np.clip(weighed.right[part].ravel(), 0, 1),
        edge_share=np.ones(len(shares)) if split == found.net.last else 1 - shares[:, -1],
        up_bytes=expected.up_bytes,
        energy_j=expected.joules,
        macs=shares @ _edge_macs(found, split, names),
    )


def _edge_macs(found: Scenario, split: int, names: tuple[str, ...]) -> Array:
    """Multiply-accumulates on the edge of a sample that leaves at each exit in ``names``.

    The last number is that of a sample that leaves at none.
    """
    macs = cost.edge_macs(
        found.net,
        split=split,
        used=names,
        segment_macs=found.segment_macs,
        exit_macs=found.exit_macs,
    )
    return np.array(macs)


def _head_bytes(found: Scenario, split: int, names: tuple[str, ...]) -> int:
    """Bytes of the weights that the edge holds, those that only serve to hold an answer too."""
    held = cost.holding_exit(found.net, split, names)
    reached = split if held is None else max(split, found.net.exits[held].after)
    exits = [e for e, exit_ in enumerate(found.net.exits) if exit_.name in names or e == held]
    weights = sum(found.segment_weights[:reached]) + sum(found.exit_weights[e] for e in exits)
    return BYTES_PER_WEIGHT * weights
