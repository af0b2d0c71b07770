"""A short table of plans, each the best somewhere in a box of conditions.

What a plan takes on average is linear in the device's factor, the round trip, the inverse of the
rate and the server's factor, with a constant for what asking takes besides, so the best of all
plans is a lower envelope of planes. Within a block only the lower left hull of (time on the edge,
share that asks) can be on it; of what is left, a box is halved until in each part some plan of the
table is proved to be within `WITHIN` of every other: a difference of planes is nowhere larger than
at the corners. Source of the idea: dynamic split computing (arXiv 2205.11269), which looks a split
up by the rate; here every condition counts.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES, Outcome, holding_exit
from presplit.core.link import Link
from presplit.core.plans import Conditions, PlanTable, Row
from presplit.plan.cautious import judged_blocks
from presplit.plan.choose import ROUNDING, Choice, Mask, allowed_but_time, why_none, with_fallback
from presplit.plan.evaluate import Array, Block, Rows, evaluate
from presplit.plan.limits import Limits
from presplit.plan.scenario import Scenario

WITHIN = 0.005
"""Everywhere in the box the table's best is at most by this share slower than the best plan."""
MOST_ROWS = 32
LEAST_S = 1e-12
"""Added to every time, so that no time at all can be compared too."""
MOST_PARTS = 4_000
"""Parts into which the box is divided at most, those first in which most may be lost."""


@dataclass(frozen=True)
class Box:
    """The conditions that the table is for: least and most of each."""

    up_bps: tuple[float, float]
    rtt_s: tuple[float, float]
    server_factor: tuple[float, float] = (0.5, 8.0)
    device_factor: tuple[float, float] = (0.5, 8.0)

    @classmethod
    def around(cls, link: Link) -> Box:
        """From a hundredth to ten times the rate, from a quarter to ten times the round trip."""
        rtt_s = max(usual(link).rtt_s, 1e-4)
        return cls((link.up_bps / 100, link.up_bps * 10), (rtt_s / 4, rtt_s * 10))

    @property
    def corners(self) -> Array:
        """The least and the most of what times are linear in, the constant last: ``(2, 5)``."""
        sides = (
            self.device_factor,
            self.rtt_s,
            (1 / self.up_bps[1], 1 / self.up_bps[0]),
            self.server_factor,
            (1.0, 1.0),
        )
        return np.array(sides).T


@dataclass(frozen=True, eq=False)
class Planes:
    """Plans as planes: seconds for each of the five, ``(plans, 5)``, and where each is from."""

    seconds: Array
    places: list[tuple[Block, int]]


@functools.lru_cache(maxsize=16)
def usual(link: Link) -> Conditions:
    """What is expected of the link: its round trip with what is late or lost by chance.

    The reply's bytes are in it, the request's are not: a `Row` counts those at the rate.

    >>> slow = Link("slow", up_bps=8e3, down_bps=205 * 8, rtt_s=0.5)
    >>> round(usual(slow).rtt_s, 9)
    1.5
    """
    seconds = link.time(WIRE_BYTES, REPLY_BYTES).mean_s - link.up_s(WIRE_BYTES)
    return Conditions(up_bps=link.up_bps, rtt_s=max(0.0, seconds))


def table_of(found: Scenario, limits: Limits | None = None, box: Box | None = None) -> PlanTable:
    """At most 32 plans that keep the accuracy, the memory and the bytes of ``limits``.

    Everywhere in the box the best of them is within `WITHIN` of the best of all such plans; where
    more than 32 were needed, those go that are missed least. A deadline is carried, not
    promised: what is in time depends on the conditions. Raises `PlanError` if there is no plan.
    """
    limits = Limits() if limits is None else limits
    box = Box.around(found.link) if box is None else box
    planes = _planes(found, limits, box)
    if not planes.places:
        raise why_none(found, limits)
    chosen = _chosen(planes, box)
    rows = [_row(*planes.places[at], planes.seconds[at], limits) for at in chosen]
    rows = [_with_own_answer(row, rows, found) for row in rows]
    ordered = sorted(rows, key=lambda row: (row.asked, row.plan.split))
    return PlanTable(tuple(ordered), usual(found.link))


def turns(found: PlanTable, link: Link, box: Box | None = None) -> list[tuple[float, int]]:
    """From which rate on which row is the best, all else as planned: ``(up_bps, row)``, rising.

    The first rate is the least of the box.
    """
    low, high = (Box.around(link) if box is None else box).up_bps
    rtt_s = usual(link).rtt_s

    def best(up_bps: float) -> int:
        return found.best(Conditions(up_bps=up_bps, rtt_s=rtt_s))

    rates = np.geomspace(low, high, 400).tolist()
    told = [(low, best(low))]
    for before, after in itertools.pairwise(rates):
        if best(after) != told[-1][1]:
            told.append((_turn(best, before, after), best(after)))
    return told


def _turn(best: Callable[[float], int], low: float, high: float) -> float:
    """The rate between both from which on the row of ``high`` is the best."""
    wanted = best(high)
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if best(middle) == wanted else (middle, high)
    return high


def _planes(found: Scenario, limits: Limits, box: Box) -> Planes:
    """Every plan that may be the best somewhere: the hulls of all blocks."""
    seconds: list[Array] = [np.empty((0, 5))]
    places: list[tuple[Block, int]] = []
    for block, allowed in _allowed(found, limits, box):
        rows = np.flatnonzero(allowed & allowed_but_time(block, limits.merged(max_energy_j=None)))
        if len(rows):
            mine = _parts(block, rows)
            hull = lower_left(mine[:, 0], mine[:, 1])
            seconds.append(mine[hull])
            places += [(block, int(row)) for row in rows[hull]]
    return Planes(np.vstack(seconds), places)


def _allowed(found: Scenario, limits: Limits, box: Box) -> Sequence[tuple[Block, Mask]]:
    """The plans whose accuracy is believed."""
    if limits.confidence is not None:
        return judged_blocks(found, limits, _designed(box))
    floor = limits.floor(found.accuracy) - ROUNDING
    return [(block, block.accuracy() >= floor) for block in evaluate(found)]


def _designed(box: Box) -> Callable[[Scenario, Limits], Sequence[Choice]]:
    """What designs the kinds of plans that are judged: the table of the samples that design."""

    def kinds(design: Scenario, half: Limits) -> Sequence[Choice]:
        planes = _planes(design, half, box)
        if not planes.places:
            return []
        chosen = _chosen(planes, box)
        return [Choice(*planes.places[at], (0.0, 0.0, 0, 0.0)) for at in chosen]

    return kinds


def _chosen(planes: Planes, box: Box) -> list[int]:
    """The numbers of the planes that make the table."""
    chosen, seen = _best_somewhere(planes.seconds, box.corners)
    return _fewest_missed(planes.seconds, chosen, seen)


def _parts(block: Block, rows: Rows) -> Array:
    """Seconds for the device's factor, round trip, inverse rate, server's factor, and constant."""
    head, asked = block.head.mean_s[rows], block.asked[rows]
    found = np.zeros((len(rows), 5))
    found[:, 0] = head
    if block.way is not None:
        ask_s, tail_s = _way_s(block.way, block.found.link)
        found[:, 0] += asked * block.way.steps[0].mean_s
        found[:, 1] = asked
        found[:, 2] = asked * 8 * (block.way.up_bytes + WIRE_BYTES)
        found[:, 3] = asked * tail_s
        found[:, 4] = asked * ask_s
    return found


def _way_s(way: Outcome, link: Link) -> tuple[float, float]:
    """What asking takes besides the link and the server, and what the server takes, in seconds.

    To the first counts what so many bytes take on the link beyond `usual` and the rate: by windows
    that are small at first, by more pieces and packets that may be late or lost.
    """
    _encoding, travel, asking, *there = way.steps
    beyond_s = travel.mean_s - usual(link).rtt_s - link.up_s(way.up_bytes + WIRE_BYTES)
    return asking.mean_s + max(0.0, beyond_s), sum(step.mean_s for step in there)


def lower_left(x: Array, y: Array) -> Rows:
    """The points that are least for some weights of x and y, both above 0.

    >>> x, y = np.array([0.0, 1.0, 2.0, 1.0, 3.0]), np.array([2.0, 1.5, 0.0, 0.9, 0.0])
    >>> lower_left(x, y).tolist()
    [0, 3, 2]
    """
    kept: list[int] = []
    for at in np.lexsort((y, x)).tolist():
        if kept and y[at] >= y[kept[-1]]:
            continue
        while len(kept) > 1 and _bends_up(x, y, kept[-2], kept[-1], at):
            kept.pop()
        kept.append(at)
    return np.array(kept, np.int64)


def _bends_up(x: Array, y: Array, a: int, b: int, c: int) -> bool:
    """Whether b lies on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))


def _best_somewhere(seconds: Array, box: Array) -> tuple[list[int], Array]:
    """The planes of the table, and the corners at which they were compared, ``(points, 5)``."""
    chosen: dict[int, None] = {}
    points: list[Array] = []
    waiting: list[tuple[float, int, Array, Rows]] = [(0.0, 0, box, np.arange(len(seconds)))]
    for number in range(MOST_PARTS):
        if not waiting:
            break
        _, _, part, left = heapq.heappop(waiting)
        corners = np.array(list(itertools.product(*(np.unique(side) for side in part.T))))
        at = np.vstack([corners, np.sqrt(part[0] * part[1])])
        values = seconds[left] @ at.T + LEAST_S
        best = np.unique(values.argmin(axis=0))
        points.append(at)
        chosen.update(dict.fromkeys(left[best].tolist()))
        # How much slower than each plane one of the best is at most: it goes if that is little.
        slower = (values[best][:, None] / values[None]).max(axis=2).min(axis=0)
        still = slower > 1 + WITHIN
        if still.any():
            more = np.union1d(left[still], left[best])
            for side, half in enumerate(_halves(part)):
                heapq.heappush(waiting, (-float(slower.max()), 2 * number + side, half, more))
    return list(chosen), np.vstack(points)


def _halves(part: Array) -> tuple[Array, Array]:
    """The part cut in its longest direction, by ratios."""
    side = int(np.argmax(part[1] / part[0]))
    middle = float(np.sqrt(part[0, side] * part[1, side]))
    lower, upper = part.copy(), part.copy()
    lower[1, side] = upper[0, side] = middle
    return lower, upper


def _fewest_missed(seconds: Array, chosen: list[int], points: Array) -> list[int]:
    """At most `MOST_ROWS` of the planes: the one whose loss is least goes, again and again."""
    values = seconds[chosen] @ points.T + LEAST_S
    best = values.min(axis=0)
    kept = list(range(len(chosen)))
    while len(kept) > MOST_ROWS:
        ordered = np.sort(values[kept], axis=0)
        second, first = ordered[1], values[kept].argmin(axis=0)
        lost = [float((second / best)[first == n].max(initial=1.0)) for n in range(len(kept))]
        kept.pop(int(np.argmin(lost)))
    return [chosen[at] for at in kept]


def _row(block: Block, row: int, seconds: Array, limits: Limits) -> Row:
    """A row of the table."""
    plan = block.plans(np.array([row]), deadline_s=limits.deadline_s)[0]
    plan = with_fallback(plan, block.found, limits)
    assert plan.expected is not None
    asked = float(block.asked[row])
    ask_s = tail_s = sent = 0.0
    if block.way is not None:
        ask_s, tail_s = _way_s(block.way, block.found.link)
        sent = block.way.up_bytes + WIRE_BYTES
    return Row(
        plan=plan,
        edge_s=float(seconds[0]),
        asked=min(1.0, asked),
        up_bytes=sent,
        tail_s=tail_s,
        accuracy=plan.expected.accuracy,
        energy_j=plan.expected.energy_j,
        ask_s=ask_s,
    )


def _with_own_answer(row: Row, rows: Sequence[Row], found: Scenario) -> Row:
    """The row, and what the edge takes for the net's own answer while it waits for the server's.

    It costs energy until the reply is there. It is as welcome only where another row of the table
    answers so by itself: then the accuracy that was asked for is kept.
    """
    net, plan = found.net, row.plan
    alone = {one.plan.form for one in rows if one.plan.split == net.last}
    held = holding_exit(net, plan.split, plan.thresholds)
    if plan.form not in alone or held is None or net.exits[held].after != net.last:
        return row
    meanwhile_s = found.edge.forms[plan.form].stretch_s(plan.split, net.last).mean_s
    now = usual(found.link)
    way_s = now.rtt_s + 8 * row.up_bytes / now.up_bps + row.ask_s + row.tail_s
    joules = row.asked * min(meanwhile_s, way_s) * found.edge.power_w
    return structs.replace(row, meanwhile_s=meanwhile_s, energy_j=row.energy_j + joules)
