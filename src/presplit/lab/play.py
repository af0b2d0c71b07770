"""A trace played over real processes: a server, a shaped link that changes, an edge in this one.

What it gives is what each answer took and by which row it was found: for one plan, for a table that
the edge chooses from, and for an oracle that is told the link's true conditions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from presplit.bundle import Bundle
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlanTable
from presplit.core.protocols import SplitPolicyOf
from presplit.core.types import Answer, Floats
from presplit.lab.processes import Process, order, running
from presplit.lab.traces import Moment, Trace
from presplit.policies.table import Best
from presplit.runtime.edge import Edge
from presplit.runtime.engines import DEFAULT, ENGINES, Load

WARM_UP = 10
"""Answers before the trace begins, over the link as it is at its beginning."""


@dataclass(frozen=True)
class Played:
    """One answer, ``t_s`` after the trace began, and the conditions that the edge believed in.

    ``probed_bytes`` is what it had sent by then, since it was opened, only to learn of the link.
    """

    t_s: float
    answer: Answer
    believed: Conditions | None
    probed_bytes: int


class Theatre:
    """A server and a shaped link before it, each a process, that are there for many plays.

    ``server`` is the server's process on a slowed device (`presplit.lab.slow_device`).
    """

    def __init__(self, bundle: Bundle, address: str, server: Process, shaper: Process) -> None:
        self._bundle, self._address, self._shaper = bundle, address, shaper
        self.server = server

    def order_server(self, factor: float) -> None:
        """Have the server take so many times as long from now on."""
        order(self.server, {"factor": factor})

    def order_link(self, moment: Moment) -> None:
        """Have the link be as it is at ``moment``."""
        link = moment.link
        told = {"up_bps": link.up_bps, "down_bps": link.down_bps, "rtt_s": link.rtt_s}
        order(self._shaper, {**told, "outage": moment.outage})

    def play(
        self,
        by: Plan | PlanTable,
        trace: Trace,
        images: Sequence[Floats],
        *,
        rate: float,
        seconds: float,
        deadline_s: float | None = None,
        split_policy: str | SplitPolicyOf = "table",
        load: Load = ENGINES[DEFAULT],
    ) -> list[Played]:
        """What a fresh edge answers while ``trace`` is played for so many ``seconds``.

        Images come at ``rate`` a second, over and over; while an answer takes longer than that the
        next ones wait. With the policy "oracle" the rows are the best under the true conditions of
        the link.
        """
        clock = _Clock(trace)
        policy = clock.oracle if split_policy == "oracle" else split_policy
        self.order_link(Moment(0.0, trace.moments[0].link))
        with Edge.open(
            self._bundle,
            server=self._address,
            plan=by if isinstance(by, Plan) else None,
            table=by if isinstance(by, PlanTable) else None,
            split_policy=policy,
            load=load,
        ) as edge:
            for number in range(WARM_UP):
                edge.answer(images[number % len(images)], deadline_s=deadline_s)
            clock.begin()
            with self._changing(clock):
                return list(_answers(edge, clock, images, rate, seconds, deadline_s))

    @contextlib.contextmanager
    def _changing(self, clock: _Clock) -> Generator[None]:
        """Have the link change as the trace does, until the end."""
        ended = threading.Event()

        def change() -> None:
            for moment in clock.trace.moments:
                if ended.wait(max(0.0, moment.at_s - clock.now)):
                    return
                self.order_link(moment)

        changing = threading.Thread(target=change, name="trace", daemon=True)
        changing.start()
        try:
            yield
        finally:
            ended.set()
            changing.join()
            self.order_link(Moment(0.0, clock.trace.moments[0].link))


@contextlib.contextmanager
def theatre(bundle: Bundle, link: Link, *, server_factor: float = 1.0) -> Generator[Theatre]:
    """The processes, until the end; raises `ServerError` if one of them does not start."""
    words = [str(bundle.path), "--factor", str(server_factor)]
    with running("presplit.lab.slow_device", *words) as (address, server):
        options = ["--target", address, "--up-bps", str(link.up_bps)]
        options += ["--down-bps", str(link.down_bps), "--rtt-s", str(link.rtt_s)]
        with running("presplit.lab.shaper", *options) as (shaped, shaper):
            yield Theatre(bundle, shaped, server, shaper)


class _Clock:
    """The time in a play, which begins after warming up."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._began = time.monotonic()

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def begin(self) -> None:
        self._began = time.monotonic()

    def oracle(self, table: PlanTable) -> _Oracle:
        return _Oracle(table, self)


class _Oracle:
    """The best row under the true conditions of the link."""

    def __init__(self, table: PlanTable, clock: _Clock) -> None:
        self._best, self._clock = Best(table, patience=0.0, spread=1.0), clock

    def choose(self, now: Conditions, *, within_s: float) -> int:
        true = self._clock.trace.at(self._clock.now).conditions
        return self._best.choose(true, within_s=within_s)

    def learn(self, row: int, answer: Answer) -> None:
        """It knows all already."""


def _answers(
    edge: Edge,
    clock: _Clock,
    images: Sequence[Floats],
    rate: float,
    seconds: float,
    deadline_s: float | None,
) -> Iterator[Played]:
    """Answer after answer until the end."""
    number = 0
    while clock.now < seconds:
        time.sleep(max(0.0, number / rate - clock.now))
        at_s, believed = clock.now, edge.conditions
        answer = edge.answer(images[number % len(images)], deadline_s=deadline_s)
        yield Played(at_s, answer, believed, edge.probed_bytes)
        # Images that came meanwhile are not kept: a camera gives the newest one.
        number = max(number + 1, int(clock.now * rate))
