"""What the parts of the benchmark of serving share: what is asked of them, checks, ratios."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Asked:
    """How a part is to run: ``quick`` only shows that it works.

    ``peers_python`` is the interpreter that has the peers' libraries, empty for this one.
    """

    quick: bool
    peers_python: str = ""


@dataclass
class Found:
    """What a part found: rows, and figures against their goals."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    def row(self, part: str, case: str, who: str, **cells: Any) -> None:
        """One more row; every part's rows begin alike."""
        self.rows.append({"part": part, "case": case, "who": who, **cells})

    def check(self, name: str, value: float, goal: float, *, at_most: bool = False) -> None:
        """A figure against its goal: at least that, unless ``at_most``."""
        self.checks.append(
            {
                "name": name,
                "value": value,
                "target": f"{'<=' if at_most else '>='} {goal:g}",
                "ok": bool(value <= goal if at_most else value >= goal),
            }
        )

    def unmeasured(self, name: str, goal: str) -> None:
        """A figure that there is none of: that is no pass."""
        self.checks.append({"name": name, "value": "not measured", "target": goal, "ok": False})


Part = Callable[[Asked], Found]


def in_turns(
    works: Mapping[str, Callable[[], object]], *, rounds: int, each: int = 5
) -> dict[str, list[list[float]]]:
    """Seconds of each of ``works``, ``rounds`` of ``each`` calls; the order is another every round.

    The first call of a turn warms up and does not count.
    """
    took: dict[str, list[list[float]]] = {name: [] for name in works}
    chance = random.Random(0)
    for _ in range(rounds):
        turns = list(works.items())
        chance.shuffle(turns)
        for name, work in turns:
            work()
            found: list[float] = []
            for _ in range(each):
                began = time.perf_counter()
                work()
                found.append(time.perf_counter() - began)
            took[name].append(found)
    return took


def ratio(over: list[list[float]], under: list[list[float]]) -> tuple[float, float, float]:
    """The median of the rounds' ratios of medians, and the quarters beside it."""
    ratios = [
        statistics.median(one) / statistics.median(other)
        for one, other in zip(over, under, strict=True)
    ]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def median_ms(took: list[list[float]]) -> float:
    """The median of all calls, in milliseconds."""
    return 1e3 * statistics.median(one for turn in took for one in turn)


@contextlib.contextmanager
def apart() -> Iterator[Callable[[], None]]:
    """Until the call, what begins has half of the processors, then the other half; all at the end.

    A load on the server's own processors would take from it the more the more it offers.
    """
    if sys.platform != "linux":
        yield lambda: None
        return
    ours = sorted(os.sched_getaffinity(0))
    half = max(1, len(ours) // 2)
    os.sched_setaffinity(0, ours[:half])
    try:
        yield lambda: os.sched_setaffinity(0, ours[half:] or ours)
    finally:
        os.sched_setaffinity(0, ours)
