"""Those that wait for one step of a net, whom to compute together, and how.

Whoever is too late or given up is left out before each step. What fails together is computed again
one by one, so that one bad request fails alone; the first batch of a step is also computed one by
one, to see that a batch gives each what it gets alone.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from presplit.core.types import Floats
from presplit.runtime.hosted import Array, Early, Reply, TooLate
from presplit.runtime.serving.admission import FORGETS_S, Place
from presplit.runtime.serving.pays import Pays
from presplit.runtime.serving.tail import Step, Tail, Tails

CLOSE = 1e-4
"""By so much of the largest logit may those of a batch differ from those of each sample alone."""
HOLD_RUNS = 4
"""While there is other work, those that go on after an exit wait for others so many runs long."""
WAITS = 0.25
"""Of the time that a request can spare it may wait so much for others."""
WEIGHT = 0.1
"""How much the last request of a model counts against those before it."""

TOO_LATE = "the deadline passed before the request's turn came"


class Cost(NamedTuple):
    """What a request takes: of a worker's time, and from its beginning to its end."""

    cost_s: float
    own_s: float


NOTHING = Cost(0.0, 0.0)


class Costs:
    """What requests of each model take.

    What was noted holds for `FORGETS_S`, then the quickest counts: a model that is believed too
    slow would not be let in, and nothing be noted any more. The first, which may have made the
    engine, gives way to the second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        # What is usual, the quickest, and when one was noted last.
        self._of: dict[str, tuple[Cost, Cost, float]] = {}

    def note(self, name: str, cost_s: float, own_s: float) -> None:
        """A request of the model ``name`` took so long."""
        new = Cost(cost_s, own_s)
        with self._lock:
            if name not in self._of:
                self._of[name] = new, NOTHING, self._clock()
                return
            usual, least, _ = self._of[name]
            if least is NOTHING:
                usual = least = new
            usual = Cost(*(a + WEIGHT * (b - a) for a, b in zip(usual, new, strict=True)))
            self._of[name] = usual, min(least, new), self._clock()

    def of(self, name: str) -> Cost:
        """What the next of the model ``name`` is expected to take; 0 if that is not known."""
        usual, least, noted = self._of.get(name, (NOTHING, NOTHING, 0.0))
        return least if self._clock() - noted > FORGETS_S else usual


class Outcome(NamedTuple):
    """What a step gives for one request: the values that go on, None at the end, and logits.

    ``took_s`` is what the run took that it was in, ``share_s`` its own share of that.
    """

    values: Floats | None
    logits: Floats
    took_s: float
    share_s: float


@dataclass(eq=False)
class Asked:
    """A request that is inside: ``array`` as it came, then the ``values`` at its next step."""

    tail: Tail
    array: Array | None
    until: float
    place: Place
    lines: tuple[Line, ...]
    costs: Costs
    samples: int
    reply: Future[Reply] = field(default_factory=Future[Reply])
    values: Floats | None = None
    done: int = 0
    share_s: float = 0.0
    took_s: float = 0.0
    since: float = field(default_factory=time.monotonic)

    @property
    def line(self) -> Line:
        """Where it waits for its next step."""
        return self.lines[self.done]

    def decode(self) -> None:
        """Have the values of the first step; raises what `Tail.values` does."""
        assert self.array is not None, "it is let go once it is decoded"
        began = time.monotonic()
        self.values, self.array = self.tail.values(self.array), None
        self.share_s = self.took_s = time.monotonic() - began

    def is_through(self, outcome: Outcome) -> bool:
        """Whether ``outcome`` answers it, and was given; else it goes on from there."""
        line, self.done = self.line, self.done + 1
        self.took_s += outcome.took_s
        self.share_s += outcome.share_s
        last = self.done == len(self.lines)
        if not last and not line.tails.is_sure(line.step, outcome.logits):
            self.values = outcome.values
            return False
        self.costs.note(self.tail.contract.name, self.share_s, self.took_s)
        if self.reply.set_running_or_notify_cancel():
            early = Early(outcome.logits, line.step.exit, "confident")
            self.reply.set_result(outcome.logits if last else early)
        return True

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, if anyone still does."""
        if self.reply.set_running_or_notify_cancel():
            self.reply.set_exception(error)


class Line:
    """Those that wait for one step of a bundle, by their turns. The crew's lock is held."""

    def __init__(self, tails: Tails, step: Step, joined: int) -> None:
        self.tails, self.step, self.pays = tails, step, Pays(joined)
        self._heap: list[tuple[float, int, Asked]] = []
        self._numbers = itertools.count()
        self._samples = 0
        self._ripens_at = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def is_held(self) -> bool:
        """Whether any here have been through a step already, and wait for others meanwhile."""
        return any(asked.done for _, _, asked in self._heap)

    @property
    def turn(self) -> float:
        """The turn of whoever is next."""
        return self._heap[0][0]

    @property
    def ripens_at(self) -> float:
        """When it is no longer waited for others, on the clock of `time.monotonic`."""
        return -math.inf if self._samples >= self.pays.size() else self._ripens_at

    def add(self, asked: Asked, hold_s: float) -> None:
        """One more, who may wait so long for others, unless its deadline is before that."""
        heapq.heappush(self._heap, (asked.place.turn, next(self._numbers), asked))
        self._samples += asked.samples
        now = time.monotonic()
        spare_s = asked.until - now - self.pays.seconds(self.pays.size())
        self._ripens_at = min(self._ripens_at, now + min(hold_s, WAITS * spare_s))

    def hold_s(self) -> float:
        """How long those that go on after an exit may wait here while there is other work."""
        return HOLD_RUNS * self.pays.seconds(self.pays.size())

    def take(self, idle: int) -> Batch:
        """Whom to compute now; so many other workers have nothing to do and take the rest."""
        batch = Batch(self, [], [])
        most = self.pays.size()
        if idle:
            most = min(most, math.ceil(self._samples / (idle + 1)))
        samples, first_until, now = 0, math.inf, time.monotonic()
        while self._heap:
            asked = self._heap[0][2]
            if self._is_over(asked, now):
                batch.late.append(asked)
            else:
                more, until = samples + asked.samples, min(first_until, asked.until)
                late = now + self.pays.seconds(more) > until
                if batch.members and (more > most or late):
                    break
                samples, first_until = more, until
                batch.members.append(asked)
            heapq.heappop(self._heap)
            self._samples -= asked.samples
        self._ripens_at = -math.inf if self._heap else math.inf
        return batch

    def purge(self) -> int:
        """Let go of those that were given up, and count them."""
        living = [each for each in self._heap if not each[2].reply.cancelled()]
        gone = len(self._heap) - len(living)
        self._heap = living
        heapq.heapify(self._heap)
        self._samples = sum(asked.samples for _, _, asked in living)
        if not living:
            self._ripens_at = math.inf
        return gone

    def _is_over(self, asked: Asked, now: float) -> bool:
        """Whether computing it is of no use; where others wait, they come before a sure miss."""
        if asked.reply.cancelled() or asked.until <= now:
            return True
        return len(self._heap) > 1 and now + self.pays.seconds(asked.samples) > asked.until


@dataclass
class Batch:
    """``members`` are computed together; those who are ``late``, or given up, not at all."""

    line: Line
    members: list[Asked]
    late: list[Asked]


def computed(line: Line, members: Sequence[Asked]) -> list[Outcome | Exception]:
    """What the step gives for each, computed together where that gives the same as alone."""
    if len(members) < 2:
        return [_alone(line, asked) for asked in members]
    try:
        together = _together(line, members)
    except Exception:  # one may be bad, or the model takes no batch: each for itself tells
        found = [_alone(line, asked) for asked in members]
        line.pays.never = line.pays.never or not any(isinstance(e, Exception) for e in found)
        return found
    if line.pays.checked:
        return list(together)
    found = [_alone(line, asked) for asked in members]
    line.pays.checked = True
    line.pays.never = not all(map(_same, together, found))
    return found


def _together(line: Line, members: Sequence[Asked]) -> list[Outcome]:
    """What the step gives for each, computed as one batch."""
    arrays = [asked.values for asked in members if asked.values is not None]
    whole = _timed(line, np.concatenate(arrays))
    found: list[Outcome] = []
    end = 0
    for array in arrays:
        part = slice(end, end := end + len(array))
        values = None if whole.values is None else whole.values[part]
        share_s = whole.took_s * len(array) / len(whole.logits)
        found.append(Outcome(values, whole.logits[part], whole.took_s, share_s))
    return found


def _alone(line: Line, asked: Asked) -> Outcome | Exception:
    """What the step gives for this one request, or why it gives nothing."""
    assert asked.values is not None, "what is computed has been decoded"
    if asked.until <= time.monotonic():
        return TooLate(TOO_LATE)
    try:
        return _timed(line, asked.values)
    except Exception as error:  # whoever asked is told, and nobody else
        return error


def _timed(line: Line, values: Floats) -> Outcome:
    """What the step gives for ``values``; what that takes is learned from."""
    tails, clock = line.tails, time.monotonic
    # Threads of the engine itself do not count as this thread's work.
    work = time.thread_time if tails.threads == 1 else clock
    with tails.engine(line.step) as compute:
        began_work, began = work(), clock()
        boundary, logits = compute(values)
        took_s = clock() - began
        line.pays.took(len(values), work_s=work() - began_work, clock_s=took_s)
    return Outcome(boundary, logits, took_s, took_s)


def _same(together: Outcome, alone: Outcome | Exception) -> bool:
    """Whether both say the same of a request."""
    if isinstance(alone, Exception):
        return False
    room = CLOSE * max(1e-30, float(np.abs(alone.logits).max()))
    return bool(np.allclose(together.logits, alone.logits, rtol=0, atol=room, equal_nan=True))
