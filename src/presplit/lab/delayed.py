"""A link in this process: another upstream, whose replies come as late as over a link.

It is for trying how an edge behaves without processes and sockets. What it leaves out is all that
TCP, HTTP/2 and a busy machine do; `presplit.lab.shaper` shapes real sockets.
"""

from __future__ import annotations

import math
import threading
import time

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.link import Link
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, Pending, Request, Upstream

OUTAGE_STEP_S = 0.005
"""In an outage it is looked so often whether the link is back."""


class Delayed:
    """``upstream`` behind ``link``; the caller closes what is inside.

    ``link`` may be assigned anew at any time; None is an outage, after which what waited goes on.
    Requests share the way up. Jitter and loss of the link are left out. ``sent_bytes`` counts what
    went into it.
    """

    def __init__(self, upstream: Upstream, link: Link | None) -> None:
        self._upstream = upstream
        self.link = link
        self.sent_bytes = 0
        self._lock = threading.Lock()
        self._free = 0.0

    def greet(self, name: str) -> None:
        """As inside, at once."""
        self._upstream.greet(name)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Put ``request`` on its way; what the inner upstream refuses at once stays refused."""
        nbytes = request.codes.nbytes + WIRE_BYTES
        self.sent_bytes += nbytes
        due = self.due(nbytes)
        asked = self._upstream.ask(request, until)
        return asked if isinstance(asked, Failure) else _Late(asked, self, nbytes, due)

    def due(self, nbytes: int) -> float | None:
        """When a reply of a server that takes no time would be there; None in an outage."""
        with self._lock:
            link = self.link
            if link is None:
                return None
            self._free = max(time.monotonic(), self._free) + link.up_s(nbytes)
            return self._free + link.rtt_s + link.down_s(REPLY_BYTES)

    def close(self) -> None:
        """Nothing is held here."""


class _Late:
    """A request whose reply is kept back until it is ``due``; None is an outage."""

    def __init__(self, inner: Pending, way: Delayed, nbytes: int, due: float | None) -> None:
        self._inner, self._way, self._nbytes, self._due = inner, way, nbytes, due
        self._given_up = threading.Event()

    @property
    def server_s(self) -> float | None:
        return self._inner.server_s

    def wait(self, until: float) -> Reply | Failure:
        """The reply, not before the server's time and the link's are over."""
        while self._due is None and time.monotonic() < until and not self._given_up.is_set():
            self._given_up.wait(OUTAGE_STEP_S)
            self._due = self._way.due(self._nbytes)
        reply = self._inner.wait(until)
        if isinstance(reply, Failure):
            return reply
        due = math.inf if self._due is None else self._due + (self.server_s or 0.0)
        if self._given_up.wait(max(0.0, min(due, until) - time.monotonic())):
            return Failure("link_down", "nobody waits any more")
        return reply if due <= until else Failure("late", "no reply in time")

    def cancel(self) -> None:
        """As inside; who waits is woken."""
        self._given_up.set()
        self._inner.cancel()
