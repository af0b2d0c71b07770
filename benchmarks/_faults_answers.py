"""What an edge's answers are held against while a fault lasts: the deadline, and the right logits.

A pause of the machine itself, seen by a process beside that only sleeps, is no fault of the edge's:
such misses are counted apart.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks._faults import ONE_THREAD, Row
from benchmarks._faults_nets import INPUT
from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.core.types import Answer
from presplit.runtime import Edge, Local

IMAGES = np.random.default_rng(11).random((16, INPUT), dtype=np.float32)
SLACK_S = 0.010
"""An answer may take so much longer than its deadline: the promise."""
BACK_S = 0.5
"""A server that is back is used again within so long."""

PAUSES = """if True:
    import sys, threading, time
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        began = time.monotonic()
        time.sleep(0.001)
        if time.monotonic() - began > 0.006:
            print(began, time.monotonic(), flush=True)
"""


@dataclass
class Told:
    """One answer: which image, when it was asked for and what the caller waited."""

    image: int
    began: float
    took_s: float
    answer: Answer | None
    error: str = ""


@dataclass
class Record:
    """All answers of one edge under one kind of fault."""

    deadline_s: float
    right: dict[str, np.ndarray]
    told: list[Told] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def misses(self) -> list[bool]:
        """Whether each answer was later than it may be, while the machine did not pause."""
        order = sorted(self.told, key=lambda one: one.began)
        return [self._late(one) and not self.paused(one) for one in order]

    @property
    def wrong(self) -> int:
        """Answers that are not what their exit says of their image."""
        return sum(not self._is_right(one) for one in self.told)

    def share(self, why: str) -> float:
        """The share of answers that were given for this reason."""
        whys = [one.answer.why for one in self.told if one.answer is not None]
        return whys.count(why) / max(1, len(whys))  # type: ignore[arg-type]

    def first(self, why: str, after: float) -> float:
        """Seconds from then until an answer for this reason was there; infinite if never."""
        ends = [
            one.began + one.took_s - after
            for one in self.told
            if one.answer is not None and one.answer.why == why and one.began >= after
        ]
        return min(ends, default=float("inf"))

    def row(self, promise: int, asked: str, *, most: float = 1e-3) -> Row:
        """What is promised of every answer: in time but for ``most`` of them, and right."""
        misses = self.misses
        late, n = sum(misses), len(misses)
        errors = [one.error for one in self.told if one.error]
        paused = sum(self._late(one) and self.paused(one) for one in self.told)
        seen = f"{late} late, the longest run {_longest(misses)}; {self.wrong} wrong"
        seen += f"; {paused} more while the machine stood still" if paused else ""
        seen += f"; {errors[0]}" if errors else ""
        ok = late <= max(1, most * n) and not self.wrong and not errors and n > 0
        return Row(promise, f"{asked}: each answer in time, and right", seen, n, ok)

    def _late(self, one: Told) -> bool:
        return one.took_s > self.deadline_s + SLACK_S

    def paused(self, one: Told) -> bool:
        """Whether the machine stood still meanwhile."""
        end = one.began + one.took_s
        return any(start < end and stop > one.began for start, stop in self.pauses)

    def _is_right(self, one: Told) -> bool:
        if one.answer is None:
            return False
        right = self.right[one.answer.exit][one.image]
        return bool(np.allclose(one.answer.scores, right, rtol=1e-4, atol=1e-4))


@contextlib.contextmanager
def asking(
    edge: Edge, bundle: Bundle, *, deadline_s: float, rate: float, threads: int = 1
) -> Iterator[Record]:
    """Answers at such a rate on each of so many threads, until the block ends."""
    record = Record(deadline_s, rights(bundle))
    ended = threading.Event()
    workers = [
        threading.Thread(target=_ask, args=(edge, record, ended, rate, seed))
        for seed in range(threads)
    ]
    with pausing(record.pauses):
        for worker in workers:
            worker.start()
        try:
            yield record
        finally:
            ended.set()
            for worker in workers:
                worker.join()


def _ask(edge: Edge, record: Record, ended: threading.Event, rate: float, seed: int) -> None:
    """Answers, one after another."""
    random = np.random.default_rng(seed)
    due = time.monotonic()
    while not ended.is_set():
        image, began = int(random.integers(len(IMAGES))), time.monotonic()
        try:
            answer, error = edge.answer(IMAGES[image], deadline_s=record.deadline_s), ""
        except Exception as raised:  # none may be raised: that is looked at
            answer, error = None, f"{type(raised).__name__}: {raised}"
        record.told.append(Told(image, began, time.monotonic() - began, answer, error))
        due = max(due + 1 / rate, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))


@contextlib.contextmanager
def pausing(pauses: list[tuple[float, float]]) -> Iterator[None]:
    """Note when a process that only sleeps was not woken in time."""
    process = subprocess.Popen(
        [sys.executable, "-c", PAUSES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=ONE_THREAD,
    )
    try:
        yield
    finally:
        out, _ = process.communicate("")
        for line in out.splitlines():
            start, stop = map(float, line.split())
            pauses.append((start, stop))


def rights(bundle: Bundle) -> dict[str, np.ndarray]:
    """What each exit says of each image."""
    last = bundle.net.last
    found = {"final": Local(bundle, Plan(last)).answer(IMAGES).scores}
    for exit_ in bundle.net.exits[:-1]:
        found[exit_.name] = Local(bundle, Plan(last, {exit_.name: 0.0})).answer(IMAGES).scores
    return found


def until(is_so: Callable[[], bool], within_s: float) -> bool:
    """Whether it is so before long."""
    latest = time.monotonic() + within_s
    while time.monotonic() < latest:
        if is_so():
            return True
        time.sleep(0.005)
    return False


def back(record: Record, since: float, within_s: float = 6.0) -> float:
    """Seconds from that moment until the server answers again."""
    until(lambda: record.first("server", since) < float("inf"), within_s)
    return record.first("server", since)


def _longest(misses: list[bool]) -> int:
    """The longest run of misses."""
    longest = run = 0
    for missed in misses:
        run = run + 1 if missed else 0
        longest = max(longest, run)
    return longest
