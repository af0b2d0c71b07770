"""Every plan of the grid, evaluated: what each is expected to take, to cost and to get right.

A plan's times come from `presplit.core.cost`, its shares and its accuracy from held-out scores: a
sample leaves at the first exit whose score reaches its threshold; otherwise the net's own
classifier answers, on the server or at the end of the edge. Shares depend on the thresholds and the
form of the head alone, so they are weighed once for all codecs and forms of the tail; means,
energy, bytes, accuracy and the probability to be in time are linear in them. Only what is asked for
is composed from distributions.

The thresholds of an exit are quantiles of its own held-out scores, from the lowest (everything
leaves there) to the highest, and "never" (the exit answers nothing). What a codec or a form costs
in accuracy is what the bundle measured.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core import cost
from presplit.core.cost import Outcome
from presplit.core.errors import PlanError
from presplit.core.plans import Estimate, Gateway, Plan
from presplit.core.progress import track
from presplit.core.routing import Cells, grid
from presplit.core.shares import interval
from presplit.core.times import Times, mixed_quantile
from presplit.core.types import Floats
from presplit.plan.scenario import BYTES_PER_WEIGHT, Cut, Scenario

LEVELS = 21
"""Thresholds tried for each exit, besides "never": one every 5 % of its held-out samples."""
MOST_COMBINATIONS = 12_000
"""At most so many combinations of thresholds.

Nets with more than three early exits get fewer levels for each.
"""
MOST_EXITS = 12
"""At most so many early exits: the search tries every subset of them."""

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Further = Callable[[Outcome, Sequence[str]], list[Outcome]]
"""How a sample goes on that leaves the edge, for each of some exits beyond it and, last, none."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Where samples leave and what they get right, for every combination of thresholds.

    All is the same for every split behind the same exits. ``thresholds`` is ``(plans, exits)``,
    "never" is infinite; ``shares`` ``(plans, exits + 1)``, the last those that leave at none;
    ``right`` ``(plans,)``: the share that an exit answers rightly; ``used`` ``(plans,)``: which of
    ``subsets`` (numbers of the exits in use) a plan belongs to.
    """

    cells: Cells
    thresholds: Floats
    shares: Array
    right: Array
    used: Rows
    subsets: tuple[tuple[int, ...], ...]

    def carried(self, values: Array) -> Array:
        """What the samples that leave at no exit add to the share of right answers."""
        staying = self.cells.staying(len(self.cells.shape), values)
        return staying.ravel() / self.cells.samples


@dataclass(frozen=True, eq=False)
class Head:
    """What the edge does under every combination of thresholds, up to one split in one form.

    The arrays are ``(plans,)``: mean seconds, joules and multiplications of a sample; ``ends`` are
    the ways it can end for each of the subsets of exits in use, ``weights_bytes`` what they hold.
    """

    split: int
    form: str
    weights: Weights
    ends: tuple[list[Outcome], ...]
    weights_bytes: tuple[int, ...]
    mean_s: Array
    joules: Array
    macs: Array


@dataclass(frozen=True, eq=False)
class Block:
    """Plans that differ in nothing but their thresholds: a head, and a way to go on from it.

    ``way`` is None where the edge itself computes to the end. What is asked for is computed then;
    every array is ``(plans,)``.
    """

    found: Scenario
    head: Head
    codec: str
    server_form: str
    way: Outcome | None

    @property
    def split(self) -> int:
        """Where the net is cut."""
        return self.head.split

    @property
    def cuts(self) -> tuple[object, ...]:
        """All that tells the block from others with the same form and exits of the head."""
        return (self.split, self.codec, self.server_form)

    @property
    def lossy(self) -> Cut:
        """The cut whose evidence says what the net's own answers are worth."""
        return (self.split, self.codec, self.head.form, self.server_form)

    @property
    def asks(self) -> bool:
        """Whether the edge asks anybody."""
        return self.way is not None

    @property
    def asked(self) -> Array:
        """The share of samples that ask the server."""
        shares = self.head.weights.shares[:, -1]
        return np.zeros(len(shares)) if self.way is None else shares

    @property
    def leaving(self) -> Array:
        """The share of samples that leave the device."""
        return self.asked

    @property
    def mean_s(self) -> Array:
        """The mean time of an answer."""
        return self.head.mean_s + (0.0 if self.way is None else self.asked * self.way.mean_s)

    @property
    def joules(self) -> Array:
        """The edge's energy for one sample."""
        return self.head.joules + (0.0 if self.way is None else self.asked * self.way.joules)

    @property
    def up_bytes(self) -> Array:
        """What one sample sends."""
        return self.asked * (0.0 if self.way is None else self.way.up_bytes)

    @property
    def weights_bytes(self) -> Array:
        """The bytes of the weights that the edge holds."""
        return np.array(self.head.weights_bytes)[self.head.weights.used]

    def accuracy(self) -> Array:
        """The share of held-out samples that are answered rightly."""
        worth = self.found.values(*self.lossy)
        return np.clip(self.head.weights.right + self.head.weights.carried(worth), 0, 1)

    def within(self, rows: Rows, seconds: float, *, bound: bool = False) -> Array:
        """The probability to be over by then, for ``rows``.

        With ``bound`` no distribution is composed, and it is at most as large as what is given.
        """
        found = np.empty(len(rows))
        for number, here in self._by_subset(rows):
            odds = [
                (float(end.bounds_s[0] <= seconds) if bound else end.within(seconds))
                for end in self._ends(number)[:-1]
            ]
            odds.append(self._last_within(number, seconds, bound=bound))
            found[here] = self._shares(rows[here], number) @ np.array(odds)
        return found

    def quantile(self, rows: Rows, q: float) -> Array:
        """The time that a share ``q`` of answers does not exceed, for ``rows``."""
        found = np.empty(len(rows))
        for number, here in self._by_subset(rows):
            found[here] = mixed_quantile(self.times(number), self._shares(rows[here], number), q)
        return found

    def times(self, subset: int) -> list[Times]:
        """The time of every way a sample can end."""
        *early, last = self._ends(subset)
        return [*(end.time for end in early), self._last(last).time]

    def plans(self, rows: Rows, *, deadline_s: float | None = None) -> list[Plan]:
        """The plans in ``rows``, with what is expected of them."""
        p50, p99 = self.quantile(rows, 0.5), self.quantile(rows, 0.99)
        in_time = None
        if deadline_s is not None:
            in_time = self.within(rows, cost.answer_by(deadline_s, asks=self.asks))
        mean_s, accuracy, joules = self.mean_s, self.accuracy(), self.joules
        weights, asked, sent = self.head.weights, self.asked, self.up_bytes
        leaving, lossy = self.leaving, self.lossy in self.found.worth
        plans: list[Plan] = []
        for place, row in enumerate(rows):
            samples = self.found.samples
            if lossy and leaving[row] > 0 and self.found.judged is not None:
                samples = len(self.found.judged)
            low, high = interval(float(accuracy[row]), samples)
            expected = Estimate(
                mean_s=float(mean_s[row]),
                p50_s=p50[place],
                p99_s=p99[place],
                accuracy=float(accuracy[row]),
                edge_share=max(0.0, 1 - float(leaving[row])),
                gateway_share=max(0.0, float(leaving[row] - asked[row])),
                up_bytes=float(sent[row]),
                energy_j=float(joules[row]),
                macs=float(self.head.macs[row]),
                how=self.found.how,
                all_edge=not self.asks,
                in_time=None if in_time is None else min(1.0, float(in_time[place])),
                samples=samples,
                accuracy_low=low,
                accuracy_high=high,
            )
            thresholds = zip(self.found.early, weights.thresholds[row], strict=False)
            rules = {exit_: float(t) for exit_, t in thresholds if np.isfinite(t)}
            plan = Plan(
                self.split,
                {exit_.name: t for exit_, t in rules.items() if exit_.after <= self.split},
                self.codec,
                self.found.policy,
                form=self.head.form,
                server_form=self.server_form,
                deadline_s=deadline_s,
                expected=expected,
                gateway=self._gateway(
                    {exit_.name: t for exit_, t in rules.items() if exit_.after > self.split}
                ),
            )
            plans.append(plan)
        return plans

    def _gateway(self, thresholds: dict[str, float]) -> Gateway | None:
        """What a gateway does, with these ``thresholds`` of its exits; None if there is none."""
        assert not thresholds, "all exits are on the edge"
        return None

    def _by_subset(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        used = self.head.weights.used[rows]
        for number in np.unique(used):
            yield int(number), np.flatnonzero(used == number)

    def _ends(self, subset: int) -> list[Outcome]:
        return self.head.ends[subset]

    def _shares(self, rows: Rows, subset: int) -> Array:
        columns = (*self.head.weights.subsets[subset], -1)
        return self.head.weights.shares[rows][:, columns]

    def _last(self, end: Outcome) -> Outcome:
        return end if self.way is None else end.then(self.way)

    def _last_within(self, subset: int, seconds: float, *, bound: bool) -> float:
        """The probability of a sample that leaves at no exit to be over by then."""
        last = self._ends(subset)[-1]
        least, most = last.bounds_s
        if self.way is not None:
            least, most = least + self.way.bounds_s[0], most + self.way.bounds_s[1]
        slack = 1e-12 * most  # sums in another order
        if bound or seconds < least - slack:
            return float(least - slack <= seconds)
        return 1.0 if seconds > most + slack else self._last(last).within(seconds)


def evaluate(
    found: Scenario, grids: Sequence[Floats] | None = None, *, levels: int | None = None
) -> Iterator[Block]:
    """Every plan of the grid without a gateway.

    By split and form of the head, then by codec and form of the tail.

    ``grids``: the thresholds to try for each early exit, if not those of the module; ``levels``: at
    most so many of those for each.
    """
    weights = weighing(found, grids, levels=levels)
    for split in track(range(found.net.last + 1), "searching plans"):
        for form in found.forms:
            ways = found.ways(split, form)
            if ways:
                head = head_of(found, split, form, weights(split, form))
                for codec, server_form in ways:
                    travels = split < found.net.last
                    way = found.sent(split, codec, server_form) if travels else None
                    yield Block(found, head, codec, server_form, way)


def weighing(
    found: Scenario, grids: Sequence[Floats] | None, *, levels: int | None = None
) -> Callable[[int, str], Weights]:
    """What weighs the exits up to a boundary in a form; each is weighed once.

    The arguments are those of `evaluate`.
    """
    if len(found.early) > MOST_EXITS:
        raise PlanError(
            f"the search takes at most {MOST_EXITS} early exits, this net has {len(found.early)}"
        )

    @functools.cache
    def weighed(count: int, form: str) -> Weights:
        rising = _grids(found, form, levels) if grids is None else grids
        return _weights(found, form, list(rising[:count]))

    def weights(reached: int, form: str) -> Weights:
        return weighed(sum(exit_.after <= reached for exit_ in found.early), form)

    return weights


def _grids(found: Scenario, form: str, most: int | None) -> list[Floats]:
    """The thresholds to try for each early exit."""
    count = len(found.early)
    levels = LEVELS
    if count:
        levels = min(LEVELS, max(1, int(MOST_COMBINATIONS ** (1 / count)) - 1), most or LEVELS)
    return [grid(found.scores[form][number], levels) for number in range(count)]


def _weights(found: Scenario, form: str, grids: list[Floats]) -> Weights:
    """All combinations of the thresholds ``grids`` of the first exits, weighed."""
    count, ones = len(grids), np.ones(found.samples)
    cells = Cells(found.scores[form], grids)
    shares = [cells.leaving(e, ones) for e in range(count)] + [cells.staying(count, ones)]
    right = np.zeros(cells.shape)
    for e in range(count):
        right = right + cells.leaving(e, found.hits[form][e].astype(np.float64))
    levels = [np.append(rising, np.float32(np.inf)) for rising in grids]
    thresholds = np.array(list(itertools.product(*levels)), np.float32)
    subsets = [s for size in range(count + 1) for s in itertools.combinations(range(count), size)]
    order = {sum(1 << e for e in subset): number for number, subset in enumerate(subsets)}
    codes = np.isfinite(thresholds) @ (1 << np.arange(count, dtype=np.int64))
    used = np.array([order[code] for code in range(1 << count)], np.int64)[codes]
    flat = [np.broadcast_to(share, cells.shape).ravel() / cells.samples for share in shares]
    right = np.broadcast_to(right, cells.shape).ravel() / cells.samples
    return Weights(cells, thresholds, np.stack(flat, axis=1), right, used, tuple(subsets))


def head_of(
    found: Scenario, split: int, form: str, weights: Weights, further: Further | None = None
) -> Head:
    """What the edge does up to ``split``, subset of exits by subset of exits.

    Where exits beyond the split were weighed too, ``further`` is what comes after the edge.
    """
    plans = len(weights.used)
    mean_s, joules, macs = np.empty(plans), np.empty(plans), np.empty(plans)
    ends: list[list[Outcome]] = []
    held: list[int] = []
    for number, subset in enumerate(weights.subsets):
        rows = np.flatnonzero(weights.used == number)
        names = tuple(found.early[e].name for e in subset if found.early[e].after <= split)
        beyond = [found.early[e].name for e in subset if found.early[e].after > split]
        edge = found.ends(split, names, form)
        if further is not None:
            edge = [*edge[:-1], *further(edge[-1], beyond)]
        own = _edge_macs(found, split, names)
        shares = weights.shares[rows][:, (*subset, -1)]
        mean_s[rows] = shares @ np.array([end.mean_s for end in edge])
        joules[rows] = shares @ np.array([end.joules for end in edge])
        macs[rows] = shares @ np.append(own, [own[-1]] * len(beyond))
        ends.append(edge)
        held.append(_weights_bytes(found, split, names, form))
    return Head(split, form, weights, tuple(ends), tuple(held), mean_s, joules, macs)


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


def _weights_bytes(found: Scenario, split: int, names: tuple[str, ...], form: str) -> int:
    """Bytes of the weights that the edge holds, those that only serve to hold an answer too."""
    held = cost.holding_exit(found.net, split, names)
    reached = split if held is None else max(split, found.net.exits[held].after)
    exits = [e for e, exit_ in enumerate(found.net.exits) if exit_.name in names or e == held]
    weights = sum(found.segment_weights[:reached]) + sum(found.exit_weights[e] for e in exits)
    return BYTES_PER_WEIGHT.get(form, 4) * weights
