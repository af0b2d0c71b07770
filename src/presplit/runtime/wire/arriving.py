"""Requests that are only half here: each has so long to arrive, and they are bounded in number.

gRPC limits how long a connection's handshake takes, but not how long a call's body does: a client
that sends half of a request and no more would hold its memory until the connection is too old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from presplit.core.errors import InputError
from presplit.runtime.hosted import Overloaded, TooLate

# What is read where a stream ends; grpc's stubs do not know it.
EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009
ARRIVAL_S = 12.0
"""How long a request may take from its head to its last byte."""
LOOKS = 24
"""How often late ones are looked for in that time: a timer for each request costs each 20 us."""
ROOM_BYTES = 128 * 2**20
"""What half requests may hold together, if each is as large as is legal."""
FEWEST = 32
"""Half requests that are kept even if they are larger than that room."""


class Arriving:
    """Reads requests of ``most_bytes`` at most.

    Where too many are half here, the one that began first gives way: those of honest clients are
    whole within milliseconds.
    """

    def __init__(self, most_bytes: int, *, within_s: float = ARRIVAL_S) -> None:
        self._places = max(FEWEST, ROOM_BYTES // most_bytes)
        self._within_s, self._look_s = within_s, within_s / LOOKS
        # Who takes each in, when it began, and what ends it; in the order in which they began.
        self._half: dict[Any, tuple[float, Callable[[Exception], None]]] = {}
        self._ended: dict[asyncio.Task[Any], Exception] = {}
        self._looking: asyncio.TimerHandle | None = None

    async def read(self, context: Any) -> bytes:
        """The request of a call.

        Raises `TooLate` if it takes too long, `Overloaded` if it had to give way, and `InputError`
        if the call ends without one.
        """
        task = asyncio.current_task()
        assert task is not None, "gRPC has a task for each call"

        def end(error: Exception) -> None:
            self._ended[task] = error
            task.cancel()

        self.begins(task, end)
        try:
            raw = await context.read()
        except asyncio.CancelledError:
            error = self._ended.pop(task, None)
            if error is None:
                raise  # the client cancelled it
            task.uncancel()
            raise error from None
        finally:
            self.whole(task)
        if raw is EOF:
            raise InputError("the call ended without a request")
        return raw

    def begins(self, who: object, end: Callable[[Exception], None]) -> None:
        """A request of ``who`` is half here; ``end`` is called with why it has to go, if it has."""
        if who in self._half:
            return
        loop = asyncio.get_running_loop()
        self._half[who] = (loop.time(), end)
        if len(self._half) > self._places:
            self._end(Overloaded("too many requests are only half here; ask again later"))
        if self._looking is None:
            self._looking = loop.call_later(self._look_s, self._look, loop)

    def whole(self, who: object) -> None:
        """The request of ``who`` is all here, or nobody waits for it any more."""
        self._half.pop(who, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that take too long; look again later, as long as any is here."""
        latest = loop.time() - self._within_s
        while self._half and next(iter(self._half.values()))[0] < latest:
            self._end(TooLate(f"a request must arrive within {self._within_s:g} s"))
        self._looking = loop.call_later(self._look_s, self._look, loop) if self._half else None

    def _end(self, error: Exception) -> None:
        """End the one that began first."""
        _, end = self._half.pop(next(iter(self._half)))
        end(error)
