"""Batches: requests that wait for the same step of a net are computed together.

Nobody waits for others to come, unless that is asked for: while the engines are busy requests
queue, and what has queued is taken together, where that is known to pay
(`presplit.runtime.serving.pays`) and nobody's deadline is missed for it. After an exit those
samples that go on wait for the next step like new ones, and join others there. Source: re-batching
what is left at each exit is a wish of users of early exits (FastBERT, arXiv 2004.02178); the turns
are those of `presplit.runtime.serving.admission`.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from presplit.runtime.hosted import Array, Contract, Hosted, Overloaded, Reply, TooLate
from presplit.runtime.serving.admission import PLACES_PER_WORKER, Book, Place
from presplit.runtime.serving.tail import Step, Tails
from presplit.runtime.serving.waiting import TOO_LATE, Asked, Batch, Costs, Line, Outcome, computed

WAY_BACK = 0.02
"""Of the time until its deadline so much is left for a reply's way back."""
MOST_JOINED = 32
"""Samples that are computed together, at most."""
MOST_GIVEN_UP = 16
"""Requests that were given up and still wait for their turn, at most."""
NICE = 5
"""How much less the threads that compute count beside the one that takes requests in."""
T = TypeVar("T")


class Crew:
    """The threads that compute, for all bundles of a process, and who is admitted to them.

    ``workers`` compute at once, up to ``joined`` samples together (1: each alone); a request that
    comes to an empty queue waits ``wait_s`` for others, if its deadline allows it. ``places``
    bounds the requests inside. ``waited`` is told the seconds from a request's coming to its turn.
    Whoever makes a crew closes it.
    """

    def __init__(
        self,
        workers: int,
        *,
        joined: int = MOST_JOINED,
        wait_s: float = 0.0,
        places: int | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.joined, self._wait_s, self._waited = joined, wait_s, waited
        self.book = Book(places or workers * PLACES_PER_WORKER, workers=workers)
        self._changed = threading.Condition()
        self._lines: list[Line] = []
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle, self._closed = 0, False
        self._counts: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._work, name=f"tail_{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def told(self) -> dict[str, int]:
        """Counts since the start, and how many are ``inside`` now."""
        with self._changed:
            return {**self.book.counts, **self._counts, "inside": self.book.inside}

    def add(self, asked: Asked) -> None:
        """Let ``asked`` wait for its turn; raises `Overloaded` once the crew is closed."""
        with self._changed:
            self._check_open()
            self._add(asked, self._wait_s)
            self._changed.notify()

    def do(self, work: Callable[[], None]) -> None:
        """Have a worker do ``work``, which raises nothing, before anything else."""
        with self._changed:
            self._check_open()
            self._jobs.append(work)
            self._changed.notify()

    def close(self) -> None:
        """Finish what is inside and let the threads end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _check_open(self) -> None:
        if self._closed:
            raise Overloaded("the server is stopping")

    def _add(self, asked: Asked, hold_s: float) -> None:
        self._purge()
        if not len(asked.line):
            self._lines.append(asked.line)
        asked.line.add(asked, hold_s)

    def _purge(self) -> None:
        """Let go of those that were given up once they are many: their places are free already.

        Else who asks and gives up, again and again, fills the memory while others are in turn.
        """
        if sum(map(len, self._lines)) > self.book.inside + MOST_GIVEN_UP:
            for line in self._lines:
                self._counts["cancelled"] += line.purge()
            self._lines = [line for line in self._lines if len(line)]

    def _work(self) -> None:
        """What each thread does until the crew is closed."""
        _gives_way()
        while True:
            with self._changed:
                next_ = self._next()
            if next_ is None:
                return
            if isinstance(next_, Batch):
                self._run(next_)
            else:
                next_()

    def _next(self) -> Batch | Callable[[], None] | None:
        """What to do next, waiting for it; None if there will be no more."""
        while True:
            if self._jobs:
                return self._jobs.popleft()
            line, wait_s = self._ripe()
            if line is not None:
                batch = line.take(self._idle)
                if not len(line):
                    self._lines.remove(line)
                self._counts["batches"] += bool(batch.members)
                self._counts["samples"] += sum(asked.samples for asked in batch.members)
                return batch
            if self._closed:
                return None
            self._idle += 1
            self._changed.wait(wait_s)
            self._idle -= 1

    def _ripe(self) -> tuple[Line | None, float | None]:
        """The line to take from, else how many seconds there will be none."""
        if not self._lines:
            return None, None
        now = time.monotonic()
        ripe = [line for line in self._lines if line.ripens_at <= now or self._closed]
        # Where there is nothing else to do, those that go on after an exit are not held.
        ripe = ripe or [line for line in self._lines if line.is_held]
        if ripe:
            return min(ripe, key=lambda line: line.turn), None
        return None, max(0.0, min(line.ripens_at for line in self._lines) - now)

    def _run(self, batch: Batch) -> None:
        """Compute ``batch``, reply to those that are through, and let the others wait again."""
        for asked in batch.late:
            with self._changed:
                self._counts["cancelled" if asked.reply.cancelled() else "expired"] += 1
            asked.fail(TooLate(TOO_LATE))
        self.book.begins(asked.place for asked in batch.members if asked.values is None)
        members = [asked for asked in batch.members if self._has_values(asked)]
        for asked, outcome in zip(members, computed(batch.line, members), strict=True):
            if isinstance(outcome, Exception):
                asked.fail(outcome)
            else:
                self._settle(asked, outcome)

    def _settle(self, asked: Asked, outcome: Outcome) -> None:
        """Reply to ``asked`` with its ``outcome``, or let it wait for its next step."""
        try:
            through = asked.is_through(outcome)
        except Exception as error:  # the thread must go on, whatever an exit's score makes of it
            asked.fail(error)
            return
        if not through:
            with self._changed:
                self._add(asked, asked.line.hold_s())
                self._changed.notify()

    def _has_values(self, asked: Asked) -> bool:
        """Decode what came, if that is still to do; a request that is no good fails here."""
        if asked.values is not None:
            return True
        self._waited(time.monotonic() - asked.since)
        try:
            asked.decode()
        except Exception as error:  # whoever asked is told, and nobody else
            asked.fail(error)
            return False
        return True


class _Batched:
    """The tails of one bundle, computed by a crew; see `batched`."""

    def __init__(self, tails: Tails, crew: Crew, *, closes: bool) -> None:
        self.tails, self._costs = tails, Costs()
        self._crew, self._closes = crew, closes
        self._lines: dict[Step, Line] = {}
        self._inside = 0
        self._left = threading.Condition()

    @property
    def most_bytes(self) -> int:
        return self.tails.most_bytes

    def contract(self, name: str) -> Contract:
        return self.tails.contract(name)

    def warm(self, name: str) -> Future[None]:
        self.tails.contract(name)
        done: Future[None] = Future()
        self._enters(done, self._crew.book.enter(""))

        def work() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                self.tails.warm(name)
                began = time.monotonic()
                self.tails.warm(name)
                took_s = time.monotonic() - began
                self._costs.note(name, took_s, took_s)
            except BaseException as error:  # told to whoever waits for it
                done.set_exception(error)
            else:
                done.set_result(None)

        try:
            self._crew.do(work)
        except Overloaded:
            done.cancel()
            raise
        return done

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        tail = self.tails.find(name)
        if until is not None:
            until -= WAY_BACK * max(0.0, until - time.monotonic())
        cost_s, own_s = self._costs.of(name)
        samples = max(1, len(array)) if array.ndim else 1
        place = self._crew.book.enter(
            client, until=until, cost_s=samples * cost_s, own_s=own_s, nbytes=array.nbytes
        )
        latest = math.inf if until is None else until
        lines = tuple(map(self._line, self.tails.steps(tail)))
        asked = Asked(tail, array, latest, place, lines, self._costs, samples)
        self._enters(asked.reply, place)
        try:
            self._crew.add(asked)
        except Overloaded:
            asked.reply.cancel()  # so that its place is free again
            raise
        return asked.reply

    def close(self) -> None:
        if self._closes:
            self._crew.close()
        with self._left:
            self._left.wait_for(lambda: not self._inside)

    def _line(self, step: Step) -> Line:
        """Those that wait for ``step``."""
        if step not in self._lines:
            self._lines.setdefault(step, Line(self.tails, step, self._crew.joined))
        return self._lines[step]

    def _enters(self, future: Future[T], place: Place) -> None:
        """Count one more inside until ``future`` is over."""

        def leaves(over: Future[T]) -> None:
            answered = not over.cancelled() and over.exception() is None
            self._crew.book.leaves(place, answered=answered)
            with self._left:
                self._inside -= 1
                self._left.notify_all()

        with self._left:
            self._inside += 1
        future.add_done_callback(leaves)


def _gives_way() -> None:
    """Let this thread come after the one that takes requests in, where a system knows threads so.

    With all processors busy the 99th percentile of refusals fell from 150 ms to 20 by this.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


def batched(tails: Tails, crew: Crew, *, closes: bool = False) -> Hosted:
    """``tails`` computed by ``crew``, which is closed with them if this ``closes`` it.

    Closing waits for the requests to these tails alone.
    """
    return _Batched(tails, crew, closes=closes)
