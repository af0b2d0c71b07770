"""Whether the share of answers in time is the reliability that was asked.

The way is fixed (all on the server, over a link whose lateness is drawn by chance); the deadline is
the shortest at which the planner still says yes. The empty round trip is measured, its lateness is
as stated: a thousandth of all draws shows in no measurement of seconds.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from benchmarks._cases import FREE, Ground, Subject, Way, no_thresholds, say, shape
from presplit.core.cost import answer_by
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.lab.processes import Process, running
from presplit.plan.choose import Choice, fastest
from presplit.plan.evaluate import Block
from presplit.runtime import Edge
from presplit.runtime.measuring.measure_link import measure_link

LINK = Link("20 Mbit/s, 5 ms, jitter 20 ms", up_bps=20e6, down_bps=20e6, rtt_s=0.005)
JITTER_S = 0.02
WAY = Way(0, "int8", "float32", "float32")
LONGEST_S, CLOSE_S = 0.5, 1e-5

Told = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def run(ground: Ground, quick: bool) -> Told:
    """A row and a check for each reliability."""
    about = ground.about
    with running("presplit.lab.shaper", *shape(ground.server, LINK)) as (address, process):
        found = about.scenario(_link(address, process))
        deadlines = {
            asked: _shortest(found, asked) for asked in ((0.99,) if quick else (0.99, 0.999))
        }
        longest_s = max(deadlines.values())
        took = _answers(about, address, longest_s, 1000 if quick else 10_000)
    rows = [_row(about, asked, deadline_s, took) for asked, deadline_s in deadlines.items()]
    return rows, [_check(row) for row in rows]


def _link(address: str, process: Process) -> Link:
    """The link at ``address``, measured without lateness, then with the stated one."""
    empty = measure_link(address, seconds=6.0).link
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jitter_s": JITTER_S}) + "\n")
    process.stdin.flush()
    # What the machine's own lateness adds on average belongs to the empty round trip.
    rtt_s = empty.rtt_s + empty.jitter_s
    return msgspec.structs.replace(empty, rtt_s=rtt_s, rtt_draws=None, jitter_s=JITTER_S)


def _shortest(found: Any, asked: float) -> float:
    """The shortest deadline at which the planner takes the way, found by halving."""

    def keep(block: Block) -> bool:
        return Way(block.split, block.codec, block.head.form, block.server_form) == WAY

    def taken(deadline_s: float) -> Choice | None:
        limits = FREE.merged(deadline_s=deadline_s, reliability=asked)
        return fastest(found, limits, keep=keep, grids=no_thresholds(found))

    low, high = 0.0, LONGEST_S
    while high - low > CLOSE_S:
        middle = (low + high) / 2
        if taken(middle) is None:
            low = middle
        else:
            high = middle
    return high


def _answers(about: Subject, address: str, deadline_s: float, count: int) -> np.ndarray:
    """What answers of the server take; infinite where it did not answer by ``deadline_s``."""
    split, codec, form, server_form = WAY
    plan = Plan(split, codec=codec, form=form, server_form=server_form, deadline_s=deadline_s)
    sample = about.sample()
    say(f"{about.name}: {count} answers by {deadline_s:.4f} s")
    took: list[float] = []
    with Edge.open(about.bundle, server=address, plan=plan, load=about.slowed) as edge:
        for _ in range(20):
            edge.answer(sample, deadline_s=10.0)
        for _ in range(count):
            answer = edge.answer(sample)
            took.append(answer.elapsed_s if answer.where == "server" else np.inf)
    return np.array(took)


def _row(about: Subject, asked: float, deadline_s: float, took: np.ndarray) -> dict[str, Any]:
    by_s = answer_by(deadline_s, asks=True)
    return {
        "net": about.name,
        "link": LINK.name,
        "asked": asked,
        "deadline_s": deadline_s,
        "in_time": float((took <= by_s).mean()),
        "answers": len(took),
    }


def _check(row: dict[str, Any]) -> dict[str, Any]:
    """Misses within half of what is allowed, more or less."""
    allowed, missed = 1 - row["asked"], 1 - row["in_time"]
    return {
        "name": f"misses of {row['answers']} where {row['asked']:g} was asked",
        "value": missed,
        "target": f"{0.5 * allowed:g} to {1.5 * allowed:g}",
        "ok": bool(0.5 * allowed <= missed <= 1.5 * allowed),
    }
