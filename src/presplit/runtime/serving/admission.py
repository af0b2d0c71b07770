"""Admission: who may come in, and whose turn is next.

A request that cannot be answered by its deadline behind those that are inside is refused at once.
That keeps those that were admitted within their deadlines; an unbounded queue serves nobody in time
once it is behind. Sources: bounded concurrency as in Netflix's concurrency-limits, where the limit
follows what is measured: here it is the time that the requests ahead are known to take. Turns
between clients are those of start-time fair queueing (Goyal, Vin and Cheng, 1996), so that a greedy
client waits for itself and not the others for it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from presplit.runtime.hosted import Array, Hosted, Layer, Overloaded, Reply

T = TypeVar("T")

PLACES_PER_WORKER = 64
"""Requests inside at once for each worker, waiting or computed."""
MOST_BYTES = 2**28
"""What the arrays of all requests inside may hold together; one alone may hold more."""
MOST_WAIT_S = 2.0
"""How long a request may have to wait, even where its deadline is later or none is told."""
LEAST_AGAIN_S = 0.005
"""A refused client is asked to stay away for so long at least."""
SURE = 1.5
"""A request has to fit by so many mean deviations beyond what is expected."""
WEIGHT = 0.03
"""How much the last request counts against those before it."""
MOST_RATIO = 5.0
"""A request counts as at most so many times as slow as expected."""
FORGETS_S = 1.0
"""What was learnt from a client's requests holds so long after the last of them.

Whoever is believed slow is not let in, and would be believed slow for ever.
"""
MANY_CLIENTS = 1024
"""Beyond so many, the turns of those that have nothing inside are forgotten."""


@dataclass(frozen=True, eq=False)
class Place:
    """One request's place; ``turn`` orders those that wait: the least is next."""

    client: str
    turn: float
    cost_s: float
    nbytes: int
    entered: float
    expected_s: float


class Book:
    """Who is inside; safe for several threads.

    Of ``places`` each client that is inside has an equal share, so that one that was alone gives
    way to others; ``workers`` compute at once, and for so many there is always a place.
    """

    def __init__(
        self,
        places: int,
        *,
        workers: int = 1,
        most_wait_s: float = MOST_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._workers, self._most_wait_s = places, workers, most_wait_s
        self._clock = clock
        self._lock = threading.Lock()
        self._inside: set[Place] = set()
        self._of: Counter[str] = Counter()
        self._nbytes = 0
        self._now = 0.0
        self._ends: dict[str, float] = {}
        self._begun: dict[Place, float] = {}
        self._paces: dict[str, _Pace] = {}
        self.counts: Counter[str] = Counter()
        """How many were ``admitted``, and refused: ``refused_places``, ``refused_late``."""

    def knock(self, client: str, until: float | None = None) -> None:
        """Raise `Overloaded` if a request of ``client`` has no chance, before it is read.

        That is so where the client has its share of the places, and where one like the last that
        was refused would be refused again, as nothing but time has passed.
        """
        with self._lock:
            if len(self._inside) < self._workers:
                return
            self._check_places(client, 0)
            pace = self._paces.get(client)
            if pace is not None and until is not None:
                now = self._clock()
                late_s = pace.still_late_s(until - now, now)
                if late_s > 0:
                    self._refuse_late(pace.refused_s, late_s)

    def enter(
        self,
        client: str,
        *,
        until: float | None = None,
        cost_s: float = 0.0,
        own_s: float = 0.0,
        nbytes: int = 0,
    ) -> Place:
        """A place for a request of ``client``, or `Overloaded`.

        It takes ``cost_s`` of one worker's time; once begun it is over after ``own_s``. ``until``
        is its deadline on the book's clock, ``nbytes`` what its array holds.
        """
        with self._lock:
            turn = max(self._now, self._ends.get(client, 0.0))
            now = self._clock()
            ahead_s = self._ahead_s(turn, now)
            if len(self._inside) >= self._workers:
                self._check_places(client, nbytes)
                left_s = math.inf if until is None else until - now
                self._check_time(self._pace(client), ahead_s, own_s, left_s, now)
            place = Place(client, turn, cost_s, nbytes, now, ahead_s + own_s)
            self._ends[client] = turn + cost_s
            self._inside.add(place)
            self._of[client] += 1
            self._nbytes += nbytes
            self.counts["admitted"] += 1
            if len(self._ends) > MANY_CLIENTS:
                self._ends = {who: end for who, end in self._ends.items() if end > self._now}
                self._paces = {who: self._pace(who) for who in self._of}
            return place

    def begins(self, places: Iterable[Place]) -> None:
        """The requests of ``places`` are being computed, by one worker."""
        with self._lock:
            now = self._clock()
            for place in places:
                self._now = max(self._now, place.turn)
                self._begun[place] = now

    def leaves(self, place: Place, *, answered: bool = True) -> None:
        """The request of ``place`` is over; unless it was ``answered``, it could have lasted."""
        with self._lock:
            if place.expected_s > 0:
                now = self._clock()
                ratio = (now - place.entered) / place.expected_s
                self._pace(place.client).learn(ratio, now, answered=answered)
            self._begun.pop(place, None)
            self._inside.discard(place)
            self._nbytes -= place.nbytes
            self._of[place.client] -= 1
            if not self._of[place.client]:
                del self._of[place.client]

    @property
    def inside(self) -> int:
        """How many requests are inside."""
        return len(self._inside)

    def _check_places(self, client: str, nbytes: int) -> None:
        """Raise `Overloaded` if ``client`` has its share of the places, or if there are none.

        Those who come later get their shares beyond the places until the others' are down to
        theirs, up to as many again.
        """
        clients = len(self._of) + (client not in self._of)
        share = max(1, self._places // clients)
        full = len(self._inside) >= 2 * self._places or self._of[client] >= share
        if full or self._nbytes + nbytes > MOST_BYTES:
            self.counts["refused_places"] += 1
            ahead_s = sum(place.cost_s for place in self._inside) / self._workers
            raise Overloaded(
                "the server is at its limit; answer locally and ask again later",
                again_s=max(LEAST_AGAIN_S, ahead_s / 4),
            )

    def _check_time(
        self, pace: _Pace, ahead_s: float, own_s: float, left_s: float, now: float
    ) -> None:
        """Raise `Overloaded` if those with earlier turns leave too little of ``left_s``."""
        slower = pace.slower(now)
        late_s = slower * ahead_s - min(left_s - slower * own_s, self._most_wait_s)
        if late_s > 0:
            pace.refused(ahead_s, own_s, now)
            self._refuse_late(ahead_s, late_s)

    def _refuse_late(self, ahead_s: float, late_s: float) -> NoReturn:
        self.counts["refused_late"] += 1
        raise Overloaded(
            f"the requests ahead take {1000 * ahead_s:.0f} ms, too long for this one; answer "
            "locally and ask again later",
            again_s=max(LEAST_AGAIN_S, late_s),
        )

    def _ahead_s(self, turn: float, now: float) -> float:
        """How long those inside take whose turn is not after ``turn``."""
        total_s = 0.0
        # Those that one worker computes together are over together, when all their time is.
        running: defaultdict[float, float] = defaultdict(float)
        for place in self._inside:
            if place.turn <= turn:
                began = self._begun.get(place)
                if began is None:
                    total_s += place.cost_s
                else:
                    running[began] += place.cost_s
        for began, cost_s in running.items():
            total_s += max(0.0, cost_s - (now - began))
        return total_s / self._workers

    def _pace(self, client: str) -> _Pace:
        """How the requests of ``client`` fare."""
        return self._paces.setdefault(client, _Pace())


class _Pace:
    """How many times as long a client's requests take as expected: mean and mean deviation.

    Both follow as those of a connection's round trip do (Jacobson, 1988). Each client has its own,
    because those of a greedy one are overtaken by the others'.
    """

    def __init__(self) -> None:
        self._ratio, self._strays, self._learnt = 1.0, 0.25, 0.0
        self.refused_s = self._own_s = self._refused_at = 0.0

    def slower(self, now: float) -> float:
        """As many times as long a request takes if it is among the slow."""
        if now - self._learnt > FORGETS_S:
            self._ratio, self._strays = 1.0, 0.25
        return self._ratio + SURE * self._strays

    def refused(self, ahead_s: float, own_s: float, now: float) -> None:
        """A request that takes ``own_s`` was refused with so much before it.

        Those that are much larger than others of this client say nothing of those.
        """
        if own_s <= 2 * self._own_s or now - self._refused_at > FORGETS_S:
            self.refused_s, self._own_s, self._refused_at = ahead_s, own_s, now

    def still_late_s(self, left_s: float, now: float) -> float:
        """By how much one like the last that was refused would be late if only time has passed."""
        ahead_s = self.refused_s - (now - self._refused_at)
        return self.slower(now) * (ahead_s + self._own_s) - left_s if ahead_s > 0 else 0.0

    def learn(self, ratio: float, now: float, *, answered: bool) -> None:
        """A request took so many times as long as expected, or longer if not ``answered``."""
        if not answered and ratio < self._ratio:
            return
        self._learnt = now
        stray = min(ratio, MOST_RATIO) - self._ratio
        self._ratio += WEIGHT * stray
        self._strays += WEIGHT * (abs(stray) - self._strays)


class _Admitted(Layer):
    """See `admitted`."""

    def __init__(self, inner: Hosted, places: int) -> None:
        super().__init__(inner)
        self._book = Book(places)

    def warm(self, name: str) -> Future[None]:
        return self._within("", 0, lambda: self._inner.warm(name))

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        def begin() -> Future[Reply]:
            return self._inner.run(name, array, until=until, client=client)

        return self._within(client, array.nbytes, begin)

    def _within(self, client: str, nbytes: int, begin: Callable[[], Future[T]]) -> Future[T]:
        """What ``begin`` gives, if there is a place; it is held until that is over."""
        place = self._book.enter(client, nbytes=nbytes)
        try:
            future = begin()
        except BaseException:
            self._book.leaves(place)
            raise
        future.add_done_callback(lambda _: self._book.leaves(place))
        return future


def admitted(hosted: Hosted, places: int) -> Hosted:
    """``hosted`` with so many places; a request that finds none raises `Overloaded` at once."""
    return _Admitted(hosted, places)
