"""Several servers: each request goes to the one whose answer is expected first.

What a server takes is expected to be the way there and back and, for each request that is on its
way to it already and for this one, what it says a reply took there. One that fails at once is
followed by the next, once. The others are asked now and then, so that a server that has become
faster is found.

Source: least expected completion time, as in arXiv 2012.04063, by what the edge itself has seen.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, OnChange, Pending, Request
from presplit.runtime.upstreams.guard import Guarded

WEIGHT = 0.2
"""What the newest time counts against all before."""
SELDOM = 50
"""One request of so many goes to the server that was heard of longest ago."""


class _Server:
    """One of the servers, and what was seen of it."""

    def __init__(self, up: Guarded) -> None:
        self.up = up
        self.flying = 0
        self.way_s = self.own_s = 0.0
        self.heard = 0.0

    @property
    def expected_s(self) -> float:
        """When it is expected to have answered one more request; nothing before it was asked."""
        return self.way_s + (1 + self.flying) * self.own_s

    def took(self, waited_s: float, server_s: float | None) -> None:
        """A reply was there."""
        own_s = 0.0 if server_s is None else server_s
        weight = WEIGHT if self.heard else 1.0
        self.own_s += weight * (own_s - self.own_s)
        self.way_s += weight * (waited_s - own_s - self.way_s)
        self.heard = time.monotonic()


class FirstOf:
    """One upstream out of several, the first the first choice; safe for several threads."""

    def __init__(self, ups: Sequence[Guarded]) -> None:
        self._servers = [_Server(up) for up in ups]
        self._lock = threading.Lock()
        self._asked = 0
        self._counts = Counter[str]()

    @property
    def counts(self) -> Counter[str]:
        """What the guards of all servers counted, and how often another one had to be asked."""
        found = Counter(self._counts)
        for server in self._servers:
            found.update(server.up.counts)
        return found

    @property
    def said(self) -> dict[str, str]:
        """What was last told of a failure, by its ``why``; of several servers the first's."""
        found = dict[str, str]()
        for server in reversed(self._servers):
            found |= server.up.said
        return found

    @property
    def not_asked(self) -> dict[str, Failure]:
        """The servers that are not asked for the moment, and why."""
        found = dict[str, Failure]()
        for server in self._servers:
            found |= server.up.not_asked
        return found

    def on_heal(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when a server is back."""
        for server in self._servers:
            server.up.on_heal(call)

    def on_change(self, call: OnChange) -> None:
        """Have ``call`` called when one of the servers is asked no more, and when it is back."""
        for server in self._servers:
            server.up.on_change(call)

    def greet(self, name: str) -> None:
        """Greet them all."""
        for server in self._servers:
            server.up.greet(name)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Ask the best of them; one that fails at once is followed by the next."""
        order = self._order()
        failure = Failure("link_down", "there is no server to ask")
        for place, server in enumerate(order):
            asked = self._one(server, request, until)
            if not isinstance(asked, Failure):
                return _First(self, request, until, server, asked, order[place + 1 :])
            if place == 0 or failure.why == "refused":
                failure = asked
        return failure

    def close(self) -> None:
        """Let go of them all."""
        for server in self._servers:
            server.up.close()

    def next_of(
        self, request: Request, until: float, others: Sequence[_Server]
    ) -> tuple[_Server, Pending] | None:
        """The request on its way to the first of the ``others`` that takes it."""
        for server in others:
            asked = self._one(server, request, until)
            if not isinstance(asked, Failure):
                with self._lock:
                    self._counts["passed to another server"] += 1
                return server, asked
        return None

    def landed(self, server: _Server, waited_s: float | None, server_s: float | None) -> None:
        """A request to ``server`` is over; with its reply, if ``waited_s`` is a time."""
        with self._lock:
            server.flying -= 1
            if waited_s is not None:
                server.took(waited_s, server_s)

    def _one(self, server: _Server, request: Request, until: float) -> Pending | Failure:
        """The request on its way to this one."""
        asked = server.up.ask(request, until)
        if not isinstance(asked, Failure):
            with self._lock:
                server.flying += 1
        return asked

    def _order(self) -> list[_Server]:
        """The servers, the best first."""
        with self._lock:
            self._asked += 1
            order = sorted(self._servers, key=lambda server: server.expected_s)
            if self._asked % SELDOM == 0:
                oldest = min(self._servers, key=lambda server: server.heard)
                order.remove(oldest)
                order.insert(0, oldest)
            return order


class _First:
    """A request on its way to one of several."""

    def __init__(
        self,
        first_of: FirstOf,
        request: Request,
        until: float,
        server: _Server,
        inner: Pending,
        others: Sequence[_Server],
    ) -> None:
        self._all, self._request, self._until = first_of, request, until
        self._server, self._inner, self._others = server, inner, others
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._over = self._cancelled = False

    @property
    def server_s(self) -> float | None:
        """As of the one that was asked."""
        return self._inner.server_s

    def wait(self, until: float) -> Reply | Failure:
        """Its reply; where it fails before the time is over, that of another one."""
        reply = self._inner.wait(until)
        if not isinstance(reply, Failure):
            self._end(time.monotonic() - self._began)
            return reply
        if reply.why == "late" or self._cancelled:
            return reply
        self._end(None)
        passed = self._all.next_of(self._request, self._until, self._others)
        if passed is None:
            return reply
        self._server, self._inner = passed
        self._others, self._began, self._over = (), time.monotonic(), False
        if self._cancelled:
            self.cancel()
        return self.wait(until)

    def cancel(self) -> None:
        """Ask no more."""
        self._cancelled = True
        self._inner.cancel()
        self._end(None)

    def _end(self, waited_s: float | None) -> None:
        """It is over, which is told once."""
        with self._lock:
            self._over, over = True, self._over
        if not over:
            self._all.landed(self._server, waited_s, self._inner.server_s)
