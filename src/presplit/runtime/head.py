"""The part of a net that runs here.

There is one session for each stretch that ends at an exit which may answer.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from presplit.bundle import Bundle
from presplit.core.cost import holding_exit
from presplit.core.types import Exit, Floats, Net, Plan
from presplit.runtime.engines.onnxruntime import Engine

WARM_UP_RUNS = 5
"""Times that each session is run at opening, to know what it takes."""


@dataclass(frozen=True)
class Held:
    """An answer at hand: float32 ``(batch, classes)`` logits of ``exit``."""

    exit: str
    logits: Floats


class Stretch:
    """The segments from boundary ``start`` to ``stop`` as one session.

    There is at most one exit on the way.
    """

    def __init__(
        self, bundle: Bundle, start: int, stop: int, exit_: Exit | None, *, threads: int
    ) -> None:
        last = bundle.net.last
        early = exit_ is not None and exit_.after < last
        self.exit = exit_
        self._boundary = "logits" if stop == last else f"boundary_{stop:02d}"
        self._logits = f"logits.{exit_.name}" if exit_ is not None and early else "logits"
        model = bundle.segment(
            start, stop, exits=[exit_.name] if exit_ is not None and early else []
        )
        self._engine = Engine(model, threads=threads)
        self.seconds = 0.0

    def run(self, values: Floats) -> tuple[Floats, Held | None]:
        """The values at ``stop`` and what the exit says.

        ``values`` ``(batch, *boundary)`` are those at ``start``.
        """
        found = self._engine.run({"boundary": values})
        held = Held(self.exit.name, found[self._logits]) if self.exit is not None else None
        return found.get(self._boundary, values), held

    def time(self, values: Floats) -> tuple[Floats, Held | None]:
        """The same, run `WARM_UP_RUNS` times.

        ``seconds`` is then what a run is expected to take: the median.
        """
        result, took = self.run(values), list[float]()
        for _ in range(WARM_UP_RUNS):
            began = time.monotonic()
            result = self.run(values)
            took.append(time.monotonic() - began)
        self.seconds = statistics.median(took)
        return result


def cuts(net: Net, plan: Plan) -> list[tuple[int, int, Exit | None]]:
    """Where each session of the head starts and stops, and the exit that it carries.

    A session ends at each exit that may answer, at the one that only holds an answer, and at the
    split.

    >>> from presplit.core.types import Boundary
    >>> row = tuple(Boundary(name, (2,)) for name in "abcd")
    >>> net = Net(row, (Exit("early", 1, 2), Exit("late", 2, 2), Exit("final", 3, 2)))
    >>> plan = Plan(3, {"early": 0.9})
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, plan)]
    [(0, 1, 'early'), (1, 3, 'final')]
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, Plan(2))]
    [(0, 2, 'late')]
    >>> [(start, stop, found and found.name) for start, stop, found in cuts(net, Plan(1))]
    [(0, 1, 'early')]
    """
    found: list[tuple[int, int, Exit | None]] = []
    start = 0
    for exit_ in net.exits_up_to(plan.split):
        if exit_.name in plan.thresholds and exit_.after < net.last:
            found.append((start, exit_.after, exit_))
            start = exit_.after
    held = holding(net, plan)
    if held is not None and held.after <= plan.split:
        found.append((start, held.after, held))
        start = held.after
    if start < plan.split:
        found.append((start, plan.split, net.exits[-1] if plan.split == net.last else None))
    return found


def holding(net: Net, plan: Plan) -> Exit | None:
    """The exit that runs only to hold an answer, by the rule that plans are costed with."""
    number = holding_exit(net, plan.split, plan.thresholds)
    return None if number is None else net.exits[number]
