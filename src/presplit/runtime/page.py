"""Pages for a browser on this machine: files, values, actions, and events as they come.

It listens on 127.0.0.1 alone, on a thread of its own, with the bounds of `presplit.runtime.http`; a
page of another origin is refused. What runs behind it is never slowed by whoever looks on: each
stream has a thread and little room, and a reader that is slow loses the oldest events.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from presplit.core.errors import PresplitError
from presplit.runtime.beside import in_thread
from presplit.runtime.http import Http, Refused, Request, Response, log

HERE = "127.0.0.1"
MOST_BYTES = 2**24
"""What may be posted at once."""
STREAMS = 16
"""Streams at once: a browser has six for a page's address at most."""
ROOM = 8
"""Events that wait for a slow reader; then the oldest go."""
ALIVE_S = 10.0
"""After so long without an event something is sent, so that a reader that is gone is found."""
AGAIN_MS = 1000
"""A browser that has lost a stream asks again after so long."""
CLOSING_S = 1.0
HEADERS = (
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
    ),
    ("referrer-policy", "no-referrer"),
)


class File(NamedTuple):
    """A file as it is sent; ``kind`` is its media type, such as ``text/css``."""

    kind: str
    body: bytes


Get = Callable[[dict[str, str]], Any]
"""Gives a value for the words of an address' query."""
Post = Callable[[Any], Any]
"""Does something with the JSON value that was posted, and gives another one."""
Stream = Callable[[], Iterator[Any]]
"""Gives values, each when it is there; called once for each reader, on a thread of its own."""


class Page:
    """Serves a page on ``port`` of this machine (0: any free one) until `close`.

    All four are by path, with or without the first slash; ``""`` is the page itself. Values are
    sent as msgspec writes JSON. What a get, a post or a stream raises as `PresplitError` is told as
    ``{"error": SENTENCE}``, with status 400, or as the event ``failed``; a stream that is over ends
    with the event ``end``. Anything else that they raise is logged, and told as a failure without
    its words. They are called on threads of their own, several at once.

    Raises `ServerError` if the port is taken; ``flag`` is the option that its cure names.

    >>> page = Page(0, files={"": ("text/plain", b"hello")}, gets={"sum": lambda words: len(words)})
    >>> import urllib.request
    >>> urllib.request.urlopen(page.address + "/sum?a=1&b=2").read()
    b'2'
    >>> page.close()
    """

    def __init__(
        self,
        port: int,
        *,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        gets: Mapping[str, Get] | None = None,
        posts: Mapping[str, Post] | None = None,
        streams: Mapping[str, Stream] | None = None,
        flag: str = "--port",
    ) -> None:
        handler = _Handler(
            {_path(name): File(*file) for name, file in (files or {}).items()},
            {_path(name): get for name, get in (gets or {}).items()},
            {_path(name): post for name, post in (posts or {}).items()},
            {_path(name): stream for name, stream in (streams or {}).items()},
        )
        self._server = OnThread(Http(handler, most_bytes=MOST_BYTES, flag=flag), port)
        self.address = f"http://{HERE}:{self._server.port}"

    def close(self) -> None:
        """Take no more requests and end all streams at once; closing again does nothing."""
        self._server.close(CLOSING_S)


class OnThread:
    """``http`` on ``port`` of this machine, on a thread of its own; raises `ServerError`."""

    def __init__(self, http: Http, port: int) -> None:
        self._http = http
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="page", daemon=True)
        self._thread.start()
        try:
            starting = self._http.start(HERE, port)
            address = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        except BaseException:
            self._end()
            raise
        self.port = int(address.rpartition(":")[2])

    def close(self, grace_s: float) -> None:
        """Take no more requests; what is being answered has ``grace_s``. Again it does nothing."""
        if not self._loop.is_closed():
            stopping = self._http.stop(grace_s)
            asyncio.run_coroutine_threadsafe(stopping, self._loop).result()
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Handler:
    """Answers requests; see `Page`."""

    def __init__(
        self,
        files: Mapping[str, File],
        gets: Mapping[str, Get],
        posts: Mapping[str, Post],
        streams: Mapping[str, Stream],
    ) -> None:
        self._files, self._gets, self._posts, self._streams = files, gets, posts, streams
        self._flowing = 0

    async def __call__(self, request: Request) -> Response:
        path = request.path
        is_read = request.method in ("GET", "HEAD")
        if is_read and path in self._files:
            file = self._files[path]
            return Response(200, file.body, file.kind, HEADERS)
        if is_read and path in self._gets:
            words = dict(parse_qsl(request.query, keep_blank_values=True))
            get = self._gets[path]
            return await _told(lambda: get(words))
        if is_read and path in self._streams:
            return self._stream(self._streams[path])
        if request.method == "POST" and path in self._posts:
            post, value = self._posts[path], _value(request)
            return await _told(lambda: post(value))
        known = [*self._files, *self._gets, *self._posts, *self._streams]
        if path in known:
            raise Refused(405, f"{path} is not there for {request.method}")
        raise Refused(404, f"there is no {path[:100]}; there are {', '.join(known)}")

    def _stream(self, stream: Stream) -> Response:
        if self._flowing >= STREAMS:
            raise Refused(503, f"{STREAMS} pages look on already", ("retry-after", "1"))
        return Response(200, b"", "text/event-stream", HEADERS, self._counted(stream))

    async def _counted(self, stream: Stream) -> AsyncGenerator[bytes]:
        self._flowing += 1
        try:
            async with contextlib.aclosing(_events(stream)) as events:
                async for event in events:
                    yield event
        finally:
            self._flowing -= 1


async def _events(stream: Stream) -> AsyncGenerator[bytes]:
    """The values of ``stream`` as server-sent events."""
    loop, waiting, ended = asyncio.get_running_loop(), asyncio.Queue[bytes](ROOM), threading.Event()

    def put(event: bytes) -> None:
        if waiting.full():
            waiting.get_nowait()
        waiting.put_nowait(event)

    def work() -> None:
        for event in _written(stream, ended):
            try:
                loop.call_soon_threadsafe(put, event)
            except RuntimeError:  # the loop was closed before the value came: nobody waits for it
                return

    threading.Thread(target=work, name="stream", daemon=True).start()
    yield f"retry: {AGAIN_MS}\n\n".encode()
    event = b""
    try:
        while not event.startswith(b"event:"):
            try:
                # Not wait_for: Python 3.11's forgets that it was cancelled if a value is there.
                async with asyncio.timeout(ALIVE_S):
                    event = await waiting.get()
            except TimeoutError:
                event = b":\n\n"
            yield event
    finally:
        ended.set()


def _written(stream: Stream, ended: threading.Event) -> Iterator[bytes]:
    """Each value as an event, and what ended them."""
    try:
        for value in stream():
            if ended.is_set():
                return
            yield b"data: " + msgspec.json.encode(value) + b"\n\n"
    except PresplitError as error:
        yield _failed(str(error))
    except Exception as error:
        log("a stream failed", error)
        yield _failed("the server failed")
    yield b"event: end\ndata: {}\n\n"


def _failed(why: str) -> bytes:
    """The event that says so."""
    return b"event: failed\ndata: " + msgspec.json.encode({"error": why}) + b"\n\n"


async def _told(call: Callable[[], Any]) -> Response:
    """What ``call`` gives, as JSON."""
    try:
        value = await in_thread(call)
    except PresplitError as error:
        raise Refused(400, str(error)) from error
    return Response(200, msgspec.json.encode(value), headers=HEADERS)


def _value(request: Request) -> Any:
    """What was posted; nothing is None."""
    if not request.body:
        return None
    try:
        return msgspec.json.decode(request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, f"expected JSON: {str(error)[:200]}") from error


def _path(name: str) -> str:
    return "/" + name.removeprefix("/")
