"""The best of all plans that keep to the limits, found without composing what cannot win.

All that is linear in the shares (mean time, energy, bytes, accuracy) is computed for every plan;
blocks of plans are then taken in the order of the least mean time that they could have, and the
probability to be in time is asked for those plans alone that would win.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import structs

from presplit.core import cost, units
from presplit.core.errors import PlanError
from presplit.core.plans import FallbackName, Plan
from presplit.core.types import Floats
from presplit.plan.evaluate import Array, Block, Rows
from presplit.plan.limits import Limits
from presplit.plan.risk import fewest
from presplit.plan.scenario import Scenario
from presplit.plan.tiers import every

ROUNDING = 1e-9
"""What sums of shares may be off: an accuracy so little below the floor is on it."""
CLOSE = 0.001
"""How near the fastest time is told where there is no plan: by so much of it."""

Mask = npt.NDArray[np.bool_]
Keep = Callable[[Block], "Mask | bool"]
"""Which plans of a block may be chosen at all."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One plan of a block, and how it ranks: the lower, the better."""

    block: Block
    row: int
    rank: tuple[float, float, int, float]

    def plan(self, *, deadline_s: float | None, limits: Limits | None = None) -> Plan:
        """The plan, with what is expected of it, and with the fallback that ``limits`` allow."""
        plan = self.block.plans(np.array([self.row]), deadline_s=deadline_s)[0]
        return with_fallback(plan, self.block.found, limits or Limits())


def everything(_block: Block) -> bool:
    """Every plan may be chosen."""
    return True


def fastest(
    found: Scenario,
    limits: Limits,
    *,
    keep: Keep = everything,
    grids: Sequence[Floats] | None = None,
) -> Choice | None:
    """The plan with the least mean time that keeps to ``limits``, taking accuracies as they are.

    Equal times (to a picosecond) are decided by fewer bytes, then all on the edge, then the smaller
    split, then the higher accuracy. None if there is no such plan.
    """
    waiting: list[tuple[float, int, Block]] = []
    for number, block in enumerate(every(found, grids)):
        allowed = _allowed(found, block, limits, keep)
        if allowed.any():
            least = round(float(np.min(block.mean_s[allowed])), 12)
            heapq.heappush(waiting, (least, number, block))
    best: Choice | None = None
    while waiting:
        least, _, block = heapq.heappop(waiting)
        if best is not None and least > best.rank[0]:
            break
        rows = np.flatnonzero(_allowed(found, block, limits, keep))
        mean_s, accuracy = np.round(block.mean_s[rows], 12), block.accuracy()[rows]
        up_bytes = block.up_bytes[rows]
        order = np.lexsort((-accuracy, up_bytes, mean_s))
        place = _first_in_time(block, rows[order], limits)
        if place is not None:
            at = order[place]
            where = block.split if block.asks else -1
            rank = (float(mean_s[at]), float(up_bytes[at]), where, -float(accuracy[at]))
            if best is None or rank < best.rank:
                best = Choice(block, int(rows[at]), rank)
    return best


def in_time(block: Block, rows: Rows, limits: Limits) -> Mask:
    """Which of ``rows`` answer by the deadline as often as asked."""
    if limits.deadline_s is None:
        return np.ones(len(rows), np.bool_)
    latest = cost.answer_by(limits.deadline_s, asks=block.asks)
    enough = limits.reliability - 1e-12
    found: Mask = block.within(rows, latest, bound=True) >= enough
    some = np.flatnonzero(found)
    found[some] = block.within(rows[some], latest) >= enough
    return found


def allowed_but_time(block: Block, limits: Limits) -> Mask:
    """Which plans keep to the limits of memory, energy and bytes, and to the fallback."""
    found = block.weights_bytes <= room(block.found, limits)
    if limits.fallback is not None and not may_fall_back(block, limits):
        found[:] = False
    if limits.max_energy_j is not None:
        found &= block.joules <= limits.max_energy_j * (1 + ROUNDING)
    if limits.max_up_bytes is not None:
        found &= block.up_bytes <= limits.max_up_bytes * (1 + ROUNDING)
    return found


def room(found: Scenario, limits: Limits) -> float:
    """Bytes of weights that the device may hold."""
    return min(found.memory_bytes, limits.max_memory_bytes or found.memory_bytes)


def may_fall_back(block: Block, limits: Limits) -> bool:
    """Whether the plans of a block can do without a server as it is asked."""
    net = block.found.net
    if block.split == net.last or limits.fallback in (None, "exit"):
        return True
    if limits.fallback == "none":
        return bool(net.exits_up_to(block.split))
    return block.found.whole_bytes(block.head.form) <= room(block.found, limits)


def with_fallback(plan: Plan, found: Scenario, limits: Limits) -> Plan:
    """The plan with what the edge may run where no server answers, as ``limits`` say."""
    fits = found.whole_bytes(plan.form) <= room(found, limits)
    usual: FallbackName = "deepest" if fits else "exit"
    return structs.replace(plan, fallback=limits.fallback or usual)


def _allowed(found: Scenario, block: Block, limits: Limits, keep: Keep) -> Mask:
    """Which plans keep to every limit but that of time."""
    allowed = allowed_but_time(block, limits) & keep(block)
    if allowed.any():
        allowed &= block.accuracy() >= limits.floor(found.accuracy) - ROUNDING
    return allowed


def _first_in_time(block: Block, rows: Rows, limits: Limits) -> int | None:
    """The place of the first of ``rows`` that is in time, a few more asked for each time."""
    start, size = 0, 1
    while start < len(rows):
        hits = np.flatnonzero(in_time(block, rows[start : start + size], limits))
        if len(hits):
            return start + int(hits[0])
        start, size = start + size, size * 8
    return None


def why_none(found: Scenario, limits: Limits, keep: Keep = everything) -> PlanError:
    """Which limit cannot be met, and the nearest numbers that can."""
    memory = found.memory_bytes
    if limits.max_memory_bytes is not None:
        memory = min(memory, limits.max_memory_bytes)
    blocks = list(every(found))
    smallest = min(int(block.weights_bytes.min()) for block in blocks)
    if smallest > memory:
        return PlanError(
            f"no plan fits the device's memory of {units.data(memory)}: the smallest holds weights "
            f"of {units.data(smallest)}; add an earlier exit or take a larger device"
        )
    spare = [block for block in blocks if allowed_but_time(block, limits).any()]
    if not spare:
        return PlanError(_beyond(blocks, limits))
    floor = limits.floor(found.accuracy)
    if limits.confidence is not None and fastest(found, limits, keep=keep) is not None:
        return PlanError(_unsure(found, limits))
    timeless = limits.merged(deadline_s=None, reliability=0.99)
    if limits.deadline_s is None or fastest(found, timeless, keep=keep) is None:
        most = max(float(b.accuracy()[allowed_but_time(b, limits)].max()) for b in spare)
        return PlanError(
            f"no plan has an accuracy of {units.percent(floor)}: the best that keeps to the other "
            f"limits has {units.percent(most)}; ask for less accuracy, or give more memory, energy "
            "or bytes"
        )
    left = len({block.split for block in blocks} - {block.split for block in spare})
    kept_out = f" ({left} splits left out: their heads do not fit the other limits)" if left else ""
    return PlanError(
        f"no plan answers within deadline_s = {units.seconds(limits.deadline_s)} (less "
        f"{units.seconds(cost.MARGIN_S)} where a server is asked, to read its reply) with a "
        f"reliability of {limits.reliability:g} and an accuracy of {units.percent(floor)}: "
        f"{_nearest(found, limits, keep)}{kept_out}; {_most_accurate(spare, limits)}; allow a "
        "longer deadline_s or a larger max_drop"
    )


def _unsure(found: Scenario, limits: Limits) -> str:
    """What it would take to be sure enough."""
    assert limits.confidence is not None
    asked = f"an accuracy of {units.percent(limits.floor(found.accuracy))}"
    needs = ""
    if limits.drop is not None:
        asked = f"at most {100 * limits.drop:g} points of accuracy lost"
        needs = f" (it takes {fewest(limits.drop, limits.confidence):,} without a single loss)"
    return (
        f"no plan within the other limits is sure enough of {asked}, with a confidence of "
        f"{limits.confidence:g}, on {found.samples:,} held-out samples{needs}; export with more "
        "of them, loosen the other limits, allow a larger loss, or set confidence to none to "
        "believe the samples as they are"
    )


def _beyond(blocks: Sequence[Block], limits: Limits) -> str:
    """What is the least energy, and the fewest bytes, that there are."""
    joules = min(float(block.joules.min()) for block in blocks)
    sent = min(float(block.up_bytes.min()) for block in blocks)
    asked = [
        f"{name} = {show(value)}"
        for name, value, show in (
            ("max_energy_j", limits.max_energy_j, units.joules),
            ("max_up_bytes", limits.max_up_bytes, units.data),
            ("max_memory_bytes", limits.max_memory_bytes, units.data),
        )
        if value is not None
    ]
    return (
        f"no plan keeps to {' and '.join(asked)} at once: the least energy of any is "
        f"{units.joules(joules)}, the fewest bytes {units.data(sent)}; allow more of one"
    )


def _nearest(found: Scenario, limits: Limits, keep: Keep) -> str:
    """The fastest time of that reliability, found by halving."""
    assert limits.deadline_s is not None
    low, high, best = limits.deadline_s, limits.deadline_s, None
    while best is None and high < 1e9:
        high *= 4
        best = fastest(found, limits.merged(deadline_s=min(high, 86_400.0)), keep=keep)
        if high >= 86_400:
            break
    if best is None:
        return "none that fits is of that accuracy within a day"
    high = _time(best, limits)
    while high - low > CLOSE * high:
        middle = (low + high) / 2
        tried = fastest(found, limits.merged(deadline_s=middle), keep=keep)
        if tried is None:
            low = middle
        else:
            best, high = tried, min(middle, _time(tried, limits))
    codec = best.block.codec
    takes = units.seconds(_own_time(best, limits))
    return f"of that accuracy the fastest takes {takes} (split {best.block.split}, codec {codec})"


def _own_time(choice: Choice, limits: Limits) -> float:
    """What its answers take with that reliability, found by halving."""
    rows = np.array([choice.row])
    low, high = 0.0, float(choice.block.quantile(rows, 1.0)[0])
    while choice.block.within(rows, high)[0] < limits.reliability - ROUNDING:
        low, high = high, 2 * high
    while high - low > CLOSE * CLOSE * high:
        middle = (low + high) / 2
        if choice.block.within(rows, middle)[0] < limits.reliability - ROUNDING:
            low = middle
        else:
            high = middle
    return high


def _time(choice: Choice, limits: Limits) -> float:
    """The deadline that it keeps."""
    margin = cost.MARGIN_S if choice.block.asks else 0.0
    return _own_time(choice, limits) + margin


def _most_accurate(blocks: Sequence[Block], limits: Limits) -> str:
    """The best accuracy that is there in time."""
    best = -1.0
    for block in blocks:
        rows = np.flatnonzero(allowed_but_time(block, limits))
        accuracy: Array = block.accuracy()[rows]
        better = accuracy > best
        rows, accuracy = rows[better], accuracy[better]
        order = np.argsort(-accuracy, kind="stable")
        place = _first_in_time(block, rows[order], limits)
        if place is not None:
            best = float(accuracy[order[place]])
    if best < 0:
        return "no plan at all is in time"
    return f"in time the best is {units.percent(best)}"
