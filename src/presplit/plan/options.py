"""What a model may do on its device: plans that keep to its limits, each with what it takes.

An option that another beats in everything that counts is left out, and never changes the best
placement. What counts is its cost, the memory and the time that it takes of the device, and those
that it takes of a server. A tail that several devices may share is compared with itself alone,
because what it takes of a server's memory depends on who else uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from presplit.plan.cautious import judged_blocks, plain
from presplit.plan.choose import (
    ROUNDING,
    Choice,
    Keep,
    Mask,
    allowed_but_time,
    fastest,
    in_time,
)
from presplit.plan.evaluate import Array, Block, Rows, evaluate
from presplit.plan.limits import Limits
from presplit.plan.pareto import levels, undominated
from presplit.plan.scenario import BYTES_PER_WEIGHT, Scenario


@dataclass(frozen=True, eq=False)
class Option:
    """One plan of a model on its device, with what a second of its requests takes.

    ``cost``: seconds or joules of a request, times its share of all requests; ``edge_load`` and
    ``tail_load``: seconds of computing in a second. The ``tail`` names what the server holds for
    it: those who share it hold it once. ``server`` is None where the device does everything.
    """

    cost: float
    edge_bytes: int = 0
    edge_load: float = 0.0
    server: str | None = None
    tail: str = ""
    tail_bytes: int = 0
    tail_load: float = 0.0
    plan: tuple[Block, int] | None = None


def options(
    found: Scenario,
    limits: Limits,
    *,
    server: str | None,
    name: Callable[[int, str, str], str],
    rate_per_s: float,
    share: float,
    goal: str,
) -> list[Option]:
    """The plans in ``found`` that keep to ``limits``, those that no other of their kind beats.

    ``name`` gives what the tail from a split by a codec in a form is called, by which devices share
    it; with no ``server`` they are those that need none. ``share`` is that of its requests among
    all; ``goal`` is "time" or "energy".
    """
    kept: list[Option] = []
    for block, believed in _believed(found, limits):
        if block.way is not None and server is None:
            continue
        rows = np.flatnonzero(believed & allowed_but_time(block, limits))
        rows = rows[in_time(block, rows, limits)] if len(rows) else rows
        if not len(rows):
            continue
        numbers = _taken(block, rows, goal) * (share, rate_per_s, rate_per_s)
        held = block.weights_bytes[rows]
        tail = "" if block.way is None else name(block.split, block.codec, block.server_form)
        for at in undominated(np.column_stack([numbers, held])).tolist():
            cost, edge_load, tail_load = numbers[at].tolist()
            option = Option(
                cost,
                int(held[at]),
                edge_load,
                None if block.way is None else server,
                tail,
                _tail_bytes(block),
                tail_load,
                (block, int(rows[at])),
            )
            kept.append(option)
    return kept


def pruned(given: Sequence[Option], *, shared: bool) -> list[Option]:
    """``given`` without those that another beats; ``shared`` if others may use the same tails.

    >>> near, far = Option(2.0), Option(1.0, server="rack", tail="t", tail_bytes=9)
    >>> late = Option(2.5, server="rack", tail="u", tail_bytes=1)
    >>> pruned([near, far, late], shared=True) == [near, far]
    True
    """
    alone = _best([option for option in given if option.server is None])
    kept = list(alone)
    mine = _numbers(alone)[:, :3]
    groups: dict[tuple[str, str], list[Option]] = {}
    for option, numbers in zip(given, _numbers(given), strict=True):
        beaten = bool((mine <= numbers[:3]).all(axis=1).any())
        if option.server is not None and not beaten:
            key = (option.server, option.tail if shared else "")
            groups.setdefault(key, []).append(option)
    for group in groups.values():
        kept += _best(group)
    return kept


def _best(given: Sequence[Option]) -> list[Option]:
    return [given[at] for at in undominated(_numbers(given)).tolist()] if given else []


def _numbers(given: Sequence[Option]) -> Array:
    """What counts of each option, ``(options, 5)``, less is better."""
    rows = [(o.cost, o.edge_bytes, o.edge_load, o.tail_bytes, o.tail_load) for o in given]
    return np.array(rows, np.float64).reshape(len(given), 5)


def _taken(block: Block, rows: Rows, goal: str) -> Array:
    """Cost, the device's and the server's seconds of computing for a request, ``(rows, 3)``."""
    asked, edge_s = block.asked[rows], block.head.mean_s[rows]
    tail_s = np.zeros(len(rows))
    if block.way is not None:
        encoding, *_, decoding, tail = block.way.steps
        edge_s = edge_s + asked * encoding.mean_s
        tail_s = asked * (decoding.mean_s + tail.mean_s)
    cost = block.joules if goal == "energy" else block.mean_s
    return np.column_stack([cost[rows], edge_s, tail_s])


def _tail_bytes(block: Block) -> int:
    """The bytes of the weights that the server holds."""
    if block.way is None:
        return 0
    each = BYTES_PER_WEIGHT.get(block.server_form, 4)
    return each * sum(block.found.segment_weights[block.split :])


def _believed(found: Scenario, limits: Limits) -> Iterable[tuple[Block, Mask]]:
    """The plans whose accuracy is as asked, promised or plain."""
    if limits.confidence is not None:
        return judged_blocks(found, limits, _designed)
    floor = limits.floor(found.accuracy) - ROUNDING
    blocks = evaluate(found, levels=levels(found))
    return ((block, block.accuracy() >= floor) for block in blocks)


def _designed(design: Scenario, half: Limits) -> list[Choice]:
    """The kinds of plans that are judged: the fastest, and the fastest plain one behind each exit.

    A plain one stands for every split behind its exits; so whatever memory leaves room for is
    there, and few tests share the risk.
    """
    spare = half.merged(deadline_s=None, reliability=0.99)
    reach = [exit_.after for exit_ in design.early[1:]] + [design.net.last + 1]
    found = [fastest(design, spare), *(fastest(design, spare, keep=_before(k)) for k in reach)]
    return [choice for choice in found if choice is not None]


def _before(most: int) -> Keep:
    """Plain plans with a split before the boundary ``most``."""
    return lambda block: block.split < most and _plain(block)


def _plain(block: Block) -> bool:
    return plain(block.found, block.lossy)
