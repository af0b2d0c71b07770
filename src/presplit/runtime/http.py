"""A small HTTP/1.1 server for this machine alone: h11 reads and writes, asyncio carries.

h11 has no clock and no sockets, so the bounds are here: a request's head, its body, a pause and a
reply each have their time, and heads, bodies and connections their number. Uvicorn closes no slow
client (RELIABILITY: idle, dripped heads and bodies were open after 40 s). Another page that a
browser on this machine shows must not reach it either, be it of the web or of another port here:
who names another host, or comes from another origin, is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from presplit.core.errors import ServerError, library
from presplit.runtime.address import bare, is_here, joined, why_not

IDLE_S, HEAD_S, BODY_S, REPLY_S = 60.0, 5.0, 12.0, 12.0
"""How long a connection may pause, and a head, a body and a reply may take; the first head begins
as soon as it is to end."""
LINGER_S = 1.0
"""How long somebody who was refused may go on sending, unread."""
HEAD_BYTES = 16 * 1024
CONNECTIONS = 64
"""Connections at once; one more is closed at once."""
CHUNK = 64 * 1024


@dataclass(frozen=True)
class Request:
    """What came: ``path`` without its ``query``, ``headers`` by names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""


@dataclass(frozen=True)
class Response:
    """What goes back: a body, or the pieces of ``stream``, each as soon as it is there.

    A stream may go on for as long as its reader reads; the connection ends with it.
    """

    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())
    stream: AsyncGenerator[bytes] | None = None


Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that is answered with ``status`` and the sentence that this holds."""

    def __init__(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


def failure(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A response that says what is wrong, as the protocol wants it."""
    return Response(status, json.dumps({"error": text}).encode(), headers=headers)


class Http:
    """Answers by ``handler``, which may raise `Refused`; bodies have ``most_bytes`` at most.

    ``flag`` is the option by which a user chooses the port.
    """

    def __init__(self, handler: Handler, *, most_bytes: int, flag: str = "--http") -> None:
        self._h11: Any = _h11()
        self._handler, self.most_bytes, self._flag = handler, most_bytes, flag
        self._open: dict[asyncio.Task[Any], bool] = {}
        self._server: asyncio.Server | None = None
        self._ending = False

    async def start(self, host: str, port: int) -> str:
        """Listen on ``host`` and ``port`` and give HOST:PORT; raises `ServerError`."""
        try:
            self._server = await asyncio.start_server(self._serve, bare(host), port)
        except OSError as error:
            raise ServerError(
                f"cannot listen on {joined(host, port)} ({why_not(host, port)}); choose another "
                f"port for {self._flag}, or 0 for a free one"
            ) from error
        return joined(host, self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, and give requests that are being answered ``grace_s``."""
        self._ending = True
        if self._server is not None:
            self._server.close()
        for task, busy in list(self._open.items()):
            if not busy:
                task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=grace_s)
        left = list(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # sockets close one turn after their tasks

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None, "asyncio has a task for each connection"
        if len(self._open) < CONNECTIONS and not self._ending:
            self._open[task] = False
            try:
                talk = _Talk(self._h11, reader, writer)
                await self._talk(task, talk)
                await talk.linger()
            except (OSError, TimeoutError, asyncio.CancelledError):
                pass  # it went away, was too slow, or the server ends
            except Exception as error:
                log("a connection failed", error)
            finally:
                # Whatever went wrong: a place that is not given back is lost until the end.
                del self._open[task]
        with contextlib.suppress(OSError):
            writer.close()

    async def _talk(self, task: asyncio.Task[Any], talk: _Talk) -> None:
        """One request after another."""
        while True:
            head = await talk.head()
            if head is None:
                return
            self._open[task] = True
            try:
                response = await self._answer(talk, head)
            except Refused as error:
                response = failure(error.status, str(error), *error.headers)
            if response.stream is not None:
                self._open[task] = False  # a stream has no end that could be waited for
                await talk.flow(response)
                return
            more = await talk.reply(response, last=self._ending)
            self._open[task] = False
            if not more:
                return

    async def _answer(self, talk: _Talk, head: Any) -> Response:
        """The response to a request; raises `Refused`."""
        if isinstance(head, Refused):
            raise head
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        if head.method == b"CONNECT":
            raise Refused(405, "this is no proxy")
        _check_own(head.method, headers)
        _check_length(headers, self.most_bytes)
        body = await talk.body(self.most_bytes)
        path, _, query = head.target.decode("latin-1").partition("?")
        request = Request(head.method.decode("latin-1"), path, headers, body, query)
        try:
            return await self._handler(request)
        except Refused:
            raise
        except Exception as error:
            log("a request failed", error)
            raise Refused(500, "the server failed") from error


class _Talk:
    """One connection in h11's words."""

    def __init__(
        self, h11: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._h11, self._reader, self._writer = h11, reader, writer
        self._connection: Any = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._pause_s = HEAD_S
        self._wants_body = True

    async def head(self) -> Any:
        """The next request's head, `Refused` for what is none, None where there is no more."""
        first = self._connection.trailing_data[0] or await asyncio.wait_for(
            self._reader.read(CHUNK), self._pause_s
        )
        self._pause_s = IDLE_S
        if not self._connection.trailing_data[0]:
            self._connection.receive_data(first)
        try:
            async with asyncio.timeout(HEAD_S):
                event = await self._next()
        except self._h11.RemoteProtocolError as error:
            return Refused(error.error_status_hint, "this is no request of HTTP/1.1")
        except (self._h11.LocalProtocolError, ValueError):
            return Refused(400, "this is no request of HTTP/1.1")
        if not isinstance(event, self._h11.Request):
            return None
        self._wants_body = event.method != b"HEAD"
        return event

    async def body(self, most_bytes: int) -> bytes:
        """All of the request's body; raises `Refused`."""
        pieces, size = list[bytes](), 0
        try:
            async with asyncio.timeout(BODY_S):
                if self._connection.they_are_waiting_for_100_continue:
                    go_on = self._h11.InformationalResponse(status_code=100, headers=[])
                    self._writer.write(self._connection.send(go_on))
                while not isinstance(event := await self._next(), self._h11.EndOfMessage):
                    if not isinstance(event, self._h11.Data):
                        raise Refused(400, "the request ended before its body did")
                    size += len(event.data)
                    if size > most_bytes:
                        raise Refused(413, f"a request has at most {most_bytes} bytes")
                    pieces.append(bytes(event.data))
        except TimeoutError as error:
            raise Refused(408, f"the body took longer than {BODY_S:g} s") from error
        except self._h11.RemoteProtocolError as error:
            raise Refused(400, "the body is not as its head says") from error
        return b"".join(pieces)

    async def reply(self, response: Response, *, last: bool) -> bool:
        """Send ``response``; True if another request may come on this connection."""
        h11, connection = self._h11, self._connection
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        # What is left unread of a refused request must not be taken for the next one.
        last = last or connection.their_state is not h11.DONE
        headers = [("content-type", response.kind), ("content-length", str(len(response.body)))]
        headers += [*response.headers, ("x-content-type-options", "nosniff")]
        headers += [("connection", "close")] if last else []
        head = h11.Response(status_code=response.status, headers=headers)
        body = response.body if self._wants_body else b""
        parts = (head, h11.Data(data=body), h11.EndOfMessage())
        self._writer.write(b"".join(connection.send(part) for part in parts))
        await asyncio.wait_for(self._writer.drain(), REPLY_S)
        if last or connection.our_state is not h11.DONE:
            return False
        connection.start_next_cycle()
        return True

    async def flow(self, response: Response) -> None:
        """Send the pieces of a stream until it ends or its reader is gone.

        A piece that is not taken within `REPLY_S` ends it. Only what the system holds for the
        connection waits for a slow reader: what else comes meanwhile is the stream's to keep.
        """
        assert response.stream is not None, "a stream was asked for"
        headers = [("content-type", response.kind), *response.headers]
        headers += [("x-content-type-options", "nosniff"), ("connection", "close")]
        head = self._h11.Response(status_code=response.status, headers=headers)
        self._writer.transport.set_write_buffer_limits(high=0)
        self._writer.write(self._connection.send(head))
        both = [
            asyncio.ensure_future(self._pour(response.stream)),
            asyncio.ensure_future(self._gone()),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._writer.transport.abort()  # whoever has not read it by now does not

    async def _pour(self, stream: AsyncGenerator[bytes]) -> None:
        """Send every piece."""
        async with contextlib.aclosing(stream):
            if self._wants_body:
                async for piece in stream:
                    self._writer.write(self._connection.send(self._h11.Data(data=piece)))
                    async with asyncio.timeout(REPLY_S):
                        await self._writer.drain()
        self._writer.write(self._connection.send(self._h11.EndOfMessage()))
        async with asyncio.timeout(REPLY_S):
            await self._writer.drain()

    async def _gone(self) -> None:
        """Wait until the other side has closed; what it still sends is not read as a request."""
        while await self._reader.read(CHUNK):
            pass

    async def linger(self) -> None:
        """Let who still sends read the reply: a socket that is closed with data unread forgets it.

        For `LINGER_S` at most.
        """
        if self._connection.their_state in (self._h11.SEND_BODY, self._h11.ERROR):
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                while await self._reader.read(CHUNK):
                    pass

    async def _next(self) -> Any:
        """The next event, reading as long as there is none."""
        while (event := self._connection.next_event()) is self._h11.NEED_DATA:
            self._connection.receive_data(await self._reader.read(CHUNK))
        return event


def log(what: str, error: Exception) -> None:
    """Nothing of what went wrong goes back; it is logged where it can be mended."""
    logging.getLogger("presplit.server").error("%s: %s", what, error, exc_info=error)


def _check_own(method: bytes, headers: dict[str, str]) -> None:
    """Raise `Refused` for what a foreign page in a browser on this machine asks.

    A browser names no origin when a page reads from elsewhere, but says what the page is to us.
    Whoever follows a link from another page sees this one: that is no page's doing.
    """
    try:
        here = is_here(headers.get("host", ""), headers.get("origin"))
    except ValueError as error:
        raise Refused(400, "Host and Origin must be addresses") from error
    is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if is_foreign and method in (b"GET", b"HEAD"):
        is_foreign = headers.get("sec-fetch-dest") != "document"
    if is_foreign or not here:
        raise Refused(403, "only this machine's own address is served here")


def _check_length(headers: dict[str, str], most_bytes: int) -> None:
    """Raise `Refused`, before anything is read, for a body that is too long or has two lengths."""
    told = headers.get("content-length")
    if told is None:
        return
    if "transfer-encoding" in headers:
        raise Refused(400, "a body has one length: content-length or transfer-encoding")
    if int(told) > most_bytes:  # h11 has seen that it is a number
        raise Refused(413, f"a request has at most {most_bytes} bytes, and this says {told[:32]}")


def _h11() -> ModuleType:
    """The library."""
    return library("h11", need="HTTP", extra="edge")
