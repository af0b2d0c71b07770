"""What was seen on the way of one sample: how long its parts took, what became of its request."""

from __future__ import annotations

import time
from dataclasses import dataclass

from presplit.core.cost import WIRE_BYTES
from presplit.core.types import Why
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, Pending


@dataclass(frozen=True)
class Asked:
    """What became of a request of ``nbytes``, ``waited_s`` seconds after it was sent.

    ``why`` is "server" if the reply came, "planned" if an answer here came first; ``server_s`` is
    what the server says it took itself.
    """

    nbytes: float
    waited_s: float
    why: Why
    server_s: float | None = None


class Trip:
    """Filled while a sample goes its way.

    ``ran_s`` is what its stretches took, ``usual_s`` what they took at opening, ``edge_s`` what
    passed until the server was asked (None: it was not), ``asked`` what came of that.
    """

    def __init__(self) -> None:
        self.ran_s = self.usual_s = 0.0
        self.edge_s: float | None = None
        self.asked: Asked | None = None
        self._began = self._sent = time.monotonic()
        self._nbytes = 0

    def ran(self, took_s: float, usual_s: float) -> None:
        """A stretch took ``took_s`` that takes ``usual_s`` as a rule."""
        self.ran_s += took_s
        self.usual_s += usual_s

    def asks(self, payload_bytes: int) -> None:
        """A request with so many bytes of payload was put on its way."""
        self._sent = time.monotonic()
        self._nbytes = payload_bytes + WIRE_BYTES
        self.edge_s = self._sent - self._began

    def unasked(self, failure: Failure) -> None:
        """No request could be made; if that was for want of a server, it counts as one."""
        if failure.why not in ("no_time", "failed"):
            self.asked = Asked(WIRE_BYTES, 0.0, failure.why)

    def heard(self, pending: Pending, reply: Reply | Failure) -> None:
        """The request has its reply, or is given up."""
        waited_s = time.monotonic() - self._sent
        if isinstance(reply, Failure):
            self.asked = Asked(self._nbytes, waited_s, reply.why)
        else:
            self.asked = Asked(self._nbytes, waited_s, "server", pending.server_s)
