"""The server's side of lanes: a socket for edges on the same machine, a tenth of gRPC's cost.

A lane is only for who was let in by gRPC: the reply to its greeting carries a ticket, which says
under which name it was let in and until when. The socket is one of Linux's without a file, which
only this machine's processes in the same network can reach; what passes there is not encrypted, for
it does not leave the machine's memory. Who is not let in any more
has no lane from the next request on; and after some minutes each has to be asked for anew.

All that holds for a request over gRPC holds here: its size, its place, its deadline. A request that
is wrong harms no other one on its lane, and a lane that is slow or silent no other lane.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import math
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from presplit.core.errors import InputError
from presplit.core.value import DAY_S
from presplit.runtime.hosted import Overloaded, why_of
from presplit.runtime.wire.arriving import Arriving
from presplit.runtime.wire.calls import Caller, pushback, status_of
from presplit.runtime.wire.frames import (
    ASK,
    BYE,
    FORGET,
    HELLO,
    REFUSAL,
    REPLY,
    WELCOME,
    Frame,
    Reader,
    frame,
)

MOST_LANES = 100
"""Lanes at once."""
MOST_INSIDE = 128
"""Requests of one lane at once."""
TICKET_S = 30.0
"""How long a ticket lets somebody in."""
HELLO_S = 3.0
"""A lane without a ticket is closed after so long."""
MOST_TICKET_BYTES = 1024
"""A ticket is not longer, and nothing longer is kept of who has not shown one."""
DEAF_S = 12.0
"""Who has not read his replies for so long is gone."""
AGE_S = 300.0
"""A lane ends after so long, as a connection of gRPC does."""
FAREWELL_S = 0.3
"""How long a lane on which nothing is inside may stay when the server ends."""
LOOK_S = 1.0
"""How often lanes are looked at for that."""

Answer = Callable[[bytes, Caller], Awaitable[bytes]]


class Lanes:
    """Listens for lanes of requests of ``most_bytes`` at most, answered by ``answer``.

    ``refused`` is called for every request that is none, ``arriving`` bounds those that are half
    here, and ``still`` tells at each request whether its sender, by the name and by what he was let
    in, would be let in now.
    """

    def __init__(
        self,
        answer: Answer,
        most_bytes: int,
        refused: Callable[[], None],
        *,
        arriving: Arriving,
        still: Callable[[str, str], bool],
    ) -> None:
        self.answer, self.most_bytes, self.refused = answer, most_bytes, refused
        self.still, self.arriving = still, arriving
        self.open: set[_Lane] = set()
        self._key = secrets.token_bytes(32)
        self._name = f"presplit-{secrets.token_hex(12)}"
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._port = 0

    async def start(self, port: int) -> None:
        """Listen, for who greets the server at ``port``; nothing is done where there are none."""
        if sys.platform != "linux":
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # gRPC goes on without
            self._server = await loop.create_unix_server(lambda: _Lane(self), f"\0{self._name}")
            self._port = port
            self._looking = loop.call_later(LOOK_S, self._look)

    def offer(self, client: str, by: str = "") -> str | None:
        """What the ``client``, let in ``by`` something, must know to open a lane.

        It is port, name and ticket; None if there is no lane for it.
        """
        if self._server is None or not self.still(client, by):
            return None
        named = base64.urlsafe_b64encode(client.encode()).decode()
        said = f"{int(time.time() + TICKET_S)}.{named}.{by}"
        return f"{self._port} {self._name} {said}.{self._sign(said)}"

    def client_of(self, ticket: bytes) -> tuple[str, str] | None:
        """Who may come in by ``ticket``, and by what he was let in; None if nobody."""
        said, _, signature = ticket.decode("latin-1").rpartition(".")
        if not hmac.compare_digest(self._sign(said).encode(), signature.encode("latin-1")):
            return None
        until, named, by = said.split(".")
        if int(until) < time.time():
            return None
        return base64.urlsafe_b64decode(named).decode(), by

    async def stop(self, grace_s: float) -> None:
        """Open no more lanes, answer what is inside within ``grace_s``, and close."""
        if self._server is None:
            return
        self._server.close()
        if self._looking is not None:
            self._looking.cancel()
        for lane in tuple(self.open):
            lane.end()
        began = time.monotonic()
        # An edge closes its lane when it has its replies; who sent one more meanwhile has it too.
        while self.open and time.monotonic() - began < grace_s:
            if time.monotonic() - began > FAREWELL_S and not any(x.is_busy for x in self.open):
                break
            await asyncio.sleep(0.005)
        for lane in tuple(self.open):
            lane.close()

    def _sign(self, said: str) -> str:
        return hmac.new(self._key, said.encode("latin-1"), "sha256").hexdigest()

    def _look(self) -> None:
        """End lanes that are too old, silent or deaf."""
        now = time.monotonic()
        for lane in tuple(self.open):
            lane.look(now)
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)


class _Lane(asyncio.Protocol):
    """One lane."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._reader = Reader(MOST_TICKET_BYTES)
        self._began = time.monotonic()
        self._client: str | None = None
        self._by = ""
        self._ends, self._deaf_since = False, math.inf
        self.inside: dict[int, asyncio.Task[None]] = {}
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A lane opens, if there is room for one more."""
        self._transport = transport
        self._lanes.open.add(self)
        if len(self._lanes.open) > MOST_LANES:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits any more."""
        self._lanes.open.discard(self)
        self._lanes.arriving.whole(self)
        for task in tuple(self.inside.values()):
            task.cancel()

    def pause_writing(self) -> None:
        """Who does not read its replies is not read either."""
        self._deaf_since = time.monotonic()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._deaf_since = math.inf
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        for each in self._reader.feed(data):
            self._lanes.arriving.whole(self)
            self._take(each)
            if self._transport.is_closing():
                return
        if self._client is not None and not self._reader.is_between:
            self._lanes.arriving.begins(self, lambda _: self.close())

    @property
    def is_busy(self) -> bool:
        """True while something is inside, or a reply not yet written."""
        return bool(self.inside) or self._transport.get_write_buffer_size() > 0

    def end(self) -> None:
        """Say that the lane ends; what is inside, and what is on its way, is answered."""
        if not self._ends:
            self._ends = True
            self._transport.write(frame(BYE, 0))

    def close(self) -> None:
        """Close it; what was not read until now is dropped, or who never reads would stay."""
        self._transport.abort()

    def look(self, now: float) -> None:
        """End the lane if it is too old, close it if it is silent or deaf."""
        is_late = self._client is None and now - self._began > HELLO_S
        is_deaf = now - self._deaf_since > DEAF_S
        is_over = self._ends and now - self._began > AGE_S + DEAF_S
        if is_late or is_deaf or is_over:
            self.close()
        elif now - self._began > AGE_S:
            self.end()

    def _take(self, found: Frame) -> None:
        """Do what a frame asks for."""
        if self._client is None:
            self._greeted(found)
        elif found.kind == ASK:
            self._asked(found)
        elif found.kind == FORGET and found.number in self.inside:
            self.inside[found.number].cancel()

    def _greeted(self, found: Frame) -> None:
        """Let in who has a ticket, and nobody else."""
        come = None
        if found.kind == HELLO and found.body is not None:
            come = self._lanes.client_of(found.body)
        if come is None:
            self.close()
            return
        self._client, self._by = come
        self._reader.most_bytes = self._lanes.most_bytes
        self._transport.write(frame(WELCOME, 0))

    def _asked(self, found: Frame) -> None:
        """Begin to answer a request, or say why not."""
        if not self._lanes.still(self._client or "", self._by):
            self.close()  # gRPC says what is to be said
        elif found.body is None:
            self._refuse(found.number, InputError("a request of a size that no model takes"))
        elif len(self.inside) >= MOST_INSIDE or found.number in self.inside:
            self._refuse(found.number, Overloaded(f"{MOST_INSIDE} requests are inside already"))
        else:
            work = self._answer(found.number, found.left_s, found.body)
            task = self.inside[found.number] = asyncio.ensure_future(work)
            # Not at the end of the work, which never begins if it is cancelled right now.
            task.add_done_callback(lambda _: self.inside.pop(found.number))

    async def _answer(self, number: int, left_s: float, raw: bytes) -> None:
        """Answer one request."""
        caller = Caller(self._client or "", time.monotonic() + left_s)
        try:
            if not left_s <= DAY_S:  # nor is it a number, perhaps
                raise InputError(f"a deadline is within a day, got {left_s:g} s")
            self._transport.write(frame(REPLY, number, await self._lanes.answer(raw, caller)))
        # Whatever goes wrong is told by its reason, and nothing of it beyond that.
        except Exception as error:
            self._refuse(number, error)

    def _refuse(self, number: int, error: Exception) -> None:
        """Say why there is no reply."""
        if why_of(error) == "refused":
            self._lanes.refused()
        code, text = status_of(error)
        said = f"{why_of(error)} {pushback(error)}\n{code.name}: {text}"
        self._transport.write(frame(REFUSAL, number, said.encode()))
