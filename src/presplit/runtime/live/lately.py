"""The last minute in numbers: how many, of which kinds, and how long they took.

Adding one costs a few microseconds and takes no more memory however many come: a second holds
counts and a bounded sample of times, and all that ever came is counted in steps of 2 %.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

SHOWN_S = 60
"""How many whole seconds are kept, each with its own counts."""
RECENT_S = 10
"""What "recent" means: so many seconds before now."""
TIMES = 512
"""Times that are kept of a second: of more, a fair sample."""
STEPS = 50
"""Steps of times in a factor of e: 2 % each."""

Key = tuple[str, str]
"""What is counted: a kind such as ``why``, and which one of that kind."""
SENT: Key = ("bytes", "sent")
"""What is counted in bytes."""


@dataclass
class _Second:
    """One second of the clock."""

    number: int
    count: int = 0
    kinds: Counter[Key] = field(default_factory=Counter[Key])
    times: list[float] = field(default_factory=list[float])

    def add(self, seconds: float | None, keys: Sequence[Key], sent_bytes: int) -> None:
        self.count += 1
        for key in keys:
            self.kinds[key] += 1
        self.kinds[SENT] += sent_bytes
        if seconds is None:
            return
        if len(self.times) < TIMES:
            self.times.append(seconds)
        elif (at := random.randrange(self.count)) < TIMES:
            self.times[at] = seconds


@dataclass(frozen=True)
class Spread:
    """The median of times, and what 99 of 100 stay below; 0 where there are none."""

    p50_s: float = 0.0
    p99_s: float = 0.0

    @classmethod
    def of(cls, times: Sequence[float]) -> Spread:
        """That of some times.

        >>> Spread.of([0.3, 0.1, 0.2])
        Spread(p50_s=0.2, p99_s=0.3)
        """
        if not times:
            return cls()
        ordered = sorted(times)
        return cls(*(ordered[math.ceil(q * len(ordered)) - 1] for q in (0.5, 0.99)))


class Lately:
    """Counts events in whole seconds of ``clock``; safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds = deque[_Second](maxlen=SHOWN_S + 1)
        self._steps, self._longest_s = Counter[int](), 0.0
        self._lock = threading.Lock()
        self.count = 0
        self.kinds = Counter[Key]()
        """All that ever came, by kind."""

    def add(self, seconds: float | None, *keys: Key, sent_bytes: int = 0) -> None:
        """Count one event that took so long (None: it is no answer), under each of ``keys``.

        ``sent_bytes`` were sent for it, which is counted under `SENT`.
        """
        number = int(self._clock())
        with self._lock:
            self.count += 1
            self.kinds.update(keys)
            self.kinds[SENT] += sent_bytes
            if not self._seconds or self._seconds[-1].number < number:
                self._seconds.append(_Second(number))
            self._seconds[-1].add(seconds, keys, sent_bytes)
            if seconds is not None:
                self._steps[round(STEPS * math.log(max(seconds, 1e-6)))] += 1
                self._longest_s = max(self._longest_s, seconds)

    def recent(self) -> Recent:
        """The last seconds, the one that is not over with them."""
        now = self._clock()
        first = int(now) - RECENT_S
        with self._lock:
            some = [each for each in self._seconds if each.number >= first]
            kinds = Counter[Key]()
            for each in some:
                kinds.update(each.kinds)
            count = sum(each.count for each in some)
            times = [seconds for each in some for seconds in each.times]
        span_s = max(1.0, min(now - first, now - self._began))
        return Recent(count / span_s, kinds, Spread.of(times))

    def seconds(self, *keys: Key) -> list[list[float]]:
        """Each whole second before this one, oldest first: how many came, of each of ``keys``.

        The last two numbers are its p50 and p99 in seconds.
        """
        last = int(self._clock())
        with self._lock:
            there = {each.number: each for each in self._seconds}
            found = list[list[float]]()
            for number in range(last - SHOWN_S, last):
                each = there.get(number) or _Second(number)
                spread = Spread.of(each.times)
                counts = [float(each.kinds[key]) for key in keys]
                found.append([float(each.count), *counts, spread.p50_s, spread.p99_s])
        return found

    def spread(self) -> Spread:
        """That of all times that ever came, within 2 %."""
        with self._lock:
            steps, total = sorted(self._steps.items()), self._steps.total()
        found, seen = list[float](), 0
        for step, count in steps:
            seen += count
            while len(found) < 2 and seen >= (0.5, 0.99)[len(found)] * total:
                found.append(math.exp(step / STEPS))
        return Spread(*found)

    @property
    def longest_s(self) -> float:
        """The longest time that ever came."""
        return self._longest_s

    @property
    def up_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began


@dataclass(frozen=True)
class Recent:
    """The last seconds: events a second, how many of each kind, and the times' spread."""

    per_s: float
    kinds: Counter[Key]
    spread: Spread


def shares(
    kind: str, recent: Counter[Key], whole: Counter[Key], words: Mapping[str, str] | None = None
) -> list[dict[str, object]]:
    """Each one of a kind with its counts, most first, and in ``words`` where these have it.

    >>> now, ever = Counter({("why", "late"): 1}), Counter({("why", "late"): 2, ("row", "0"): 9})
    >>> shares("why", now, ever)
    [{'name': 'late', 'recent': 1, 'whole': 2}]
    """
    names = [(count, key) for key, count in whole.items() if key[0] == kind]
    names.sort(key=lambda each: (-each[0], each[1]))
    found: list[dict[str, object]] = [
        {"name": key[1], "recent": recent[key], "whole": count} for count, key in names
    ]
    if words is not None:
        found = [{**row, "words": words.get(str(row["name"]), row["name"])} for row in found]
    return found
