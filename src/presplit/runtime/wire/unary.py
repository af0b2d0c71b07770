"""One request as one call of gRPC: the portable way, which any server of the protocol takes.

On the wire a call with one reply and a call with many begin alike. gRPC's client in Python starts a
thread for each call with one reply that is not waited for at once, which costs more than the call.
Calls with many replies can be driven by the thread that waits for them alone; so that is how they
are made here; who replies twice is taken for late, as the call does not end.

gRPC keeps such a call, and some 20 KB, until every event of it was taken, and the events of one
that was cancelled are taken by nobody. There is no public way to take them, hence `_driven_out`.
A signal that comes meanwhile (Ctrl-C) has gRPC throw away the queue of the events: who waited for
one after that would wait for ever, so such a call is not touched again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Executor, Future
from typing import Any

import grpc
import grpc.experimental  # pyright: ignore[reportMissingTypeStubs]

from presplit.core.types import Why
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure
from presplit.runtime.wire.reasons import failure_of
from presplit.runtime.wire.replies import Expected

OPTIONS: list[tuple[str, int]] = [
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
]
"""What a channel must be made with for such calls."""
EARLY_S = 0.002
"""gRPC ends a call up to so much after its deadline, so the deadline is set that much before."""
SAME_S = 0.001
"""Who waits until so near a call's own deadline needs no other clock."""
GONE = Failure("link_down", "nobody waits any more, or the channel was closed")
LATE = Failure("late", "no reply in time")


def seconds_left(until: float) -> float:
    """The timeout of a call whose reply is worthless after ``until`` (`time.monotonic`)."""
    left_s = max(0.0, until - time.monotonic())
    return max(left_s / 2, left_s - EARLY_S)


class UnaryPending:
    """A request on its way as the ``call``, which ends by itself before ``until``.

    ``waiters`` wait for it where somebody wants to wait less long than that. ``exhausted`` is what
    RESOURCE_EXHAUSTED means if the server says no more.
    """

    def __init__(
        self, call: Any, expected: Expected, until: float, waiters: Executor, *, exhausted: Why
    ) -> None:
        self._call, self._expected, self._until = call, expected, until
        self._waiters = waiters
        self._exhausted: Why = exhausted
        self._reply: Reply | Failure | None = None
        self._waiting: Future[Reply | Failure] | None = None
        self._driven = threading.Lock()
        self._is_lost = False

    @property
    def server_s(self) -> float | None:
        """What the server says it took."""
        return self._expected.server_s

    def wait(self, until: float) -> Reply | Failure:
        """The logits, or why there are none."""
        if self._reply is not None:
            return self._reply
        if self._waiting is None and until >= self._until - SAME_S:
            self._reply = self._ended()
            return self._reply
        if self._waiting is None:
            self._waiting = self._waiters.submit(self._ended)
        try:
            return self._waiting.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            return LATE

    def cancel(self) -> None:
        """Ask no more."""
        self._call.cancel()
        if not self._driven.acquire(blocking=False):
            return  # who waits takes what is left
        try:
            if not self._is_lost:
                self._driven_out(wants=False)
        finally:
            self._driven.release()

    def _ended(self) -> Reply | Failure:
        """What comes of the call, when it is over."""
        with self._driven:
            if self._is_lost:
                return GONE
            self._expected.prepare()
            raw = self._driven_out(wants=True)
        if self._call.cancelled():
            return GONE
        if self._call.code() is not grpc.StatusCode.OK:
            return failure_of(self._call, exhausted=self._exhausted)
        if raw is None:
            return Failure("bad_reply", "expected one reply, got none")
        return self._expected.read(raw)

    def _driven_out(self, *, wants: bool) -> Any:
        """The one message if somebody ``wants`` it, None if none came; the call is over then."""
        raw = None
        try:
            if wants:
                with contextlib.suppress(grpc.RpcError):
                    raw = next(self._call, None)
            while self._call._state.due:
                self._call._consume_next_event()
        except BaseException:
            self._is_lost = True
            self._call.cancel()
            raise
        return raw
