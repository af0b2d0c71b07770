"""A call as the server takes it: raw bytes in, raw bytes or a status out.

Every refusal gets its status and its words here; nothing of what was sent, and no traceback, goes
back.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from presplit.core.errors import InputError
from presplit.runtime.hosted import Overloaded, Stopping, TooLate, UnknownModel, why_of
from presplit.runtime.wire.arriving import Arriving
from presplit.runtime.wire.gate import admitted_as
from presplit.runtime.wire.words import PUSHBACK_KEY, WHY_KEY

STATUSES: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    Stopping: grpc.StatusCode.UNAVAILABLE,
}
"""What is the caller's or the moment's; all else is the server's own fault and told as INTERNAL."""
# Messages have no types that a checker knows, see `presplit.runtime.wire.messages`.
Message = Any
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Caller:
    """Who calls, and ``until`` when the reply is of use, on the clock of `time.monotonic`.

    ``client`` is the name by which the gate admitted it, else its address without the port.
    """

    client: str
    until: float | None


Answer = Callable[[Message, Caller], Awaitable[Message | bytes]]


def unary(
    kind: Any,
    answer: Answer,
    arriving: Arriving,
    always: Words | Callable[[Caller], Words] = (),
    *,
    refused: Callable[[], None] = lambda: None,
    knock: Callable[[str, float | None], None] | None = None,
) -> Any:
    """A call from raw bytes to raw bytes, so that every refusal gets its status in one place.

    ``answer`` is told who calls, and gets a message of this ``kind``, or if that is None the bytes
    as they came; ``always`` are the words that end the call whatever comes of it, or make them;
    ``refused`` is called if it was not to be answered by its own fault; ``knock`` raises for a
    client, and its deadline, if the request need not be read. For gRPC it is one that
    takes a stream, which looks the same to a client: such a call begins with its head, and what
    follows is read by ``arriving``, in bounded time.
    """

    async def handle(_: Any, context: Any) -> bytes:
        caller = _caller(context)
        ends = always(caller) if callable(always) else always
        if ends:
            context.set_trailing_metadata(ends)
        try:
            if knock is not None:
                knock(caller.client, caller.until)
            raw = await arriving.read(context)
            found = await answer(raw if kind is None else _parsed(kind, raw), caller)
            return found if isinstance(found, bytes) else found.SerializeToString()
        # Whatever goes wrong here is told by a status, and nothing of it beyond that.
        except Exception as error:
            if isinstance(error, InputError | UnknownModel):
                refused()
            code, text = status_of(error)
            again = pushback(error)
            asked = ((PUSHBACK_KEY, again),) if again else ()
            words = (*ends, (WHY_KEY, why_of(error)), *asked)
        await context.abort(code, text, words)
        raise AssertionError("abort always raises")

    return grpc.stream_unary_rpc_method_handler(handle)  # pyright: ignore[reportUnknownVariableType]


def _caller(context: Any) -> Caller:
    """Who makes the call of ``context``."""
    remaining: float | None = context.time_remaining()
    until = None if remaining is None else time.monotonic() + remaining
    return Caller(admitted_as.get() or peer_host(context.peer()), until)


@functools.lru_cache(1024)
def peer_host(peer: str) -> str:
    """The address in what gRPC says of a peer, without the port.

    >>> peer_host("ipv4:10.0.0.7:41312"), peer_host("ipv6:%5B::1%5D:5"), peer_host("unix:")
    ('10.0.0.7', '::1', 'unix')
    """
    kind, _, address = unquote(peer).partition(":")
    host = address.rpartition(":")[0].strip("[]")
    return host or kind


def pushback(error: Exception) -> str:
    """In how many milliseconds to ask again, if the server is overloaded; empty if it is not.

    With gRPC it is told as its own clients read it (gRFC A6).
    """
    if not isinstance(error, Overloaded) or error.again_s <= 0:
        return ""
    return str(math.ceil(1000 * error.again_s))


def _parsed(kind: Any, raw: bytes) -> Message:
    """The message in ``raw``; raises `InputError` if it holds none of this ``kind``."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InputError(f"the request is not a {kind.__name__}") from error


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the text that ``error`` is told by; the server's own faults have no details.

    Those are logged here, where they can be mended.
    """
    for kind, code in STATUSES.items():
        if isinstance(error, kind):
            return code, str(error)
    logging.getLogger("presplit.server").error("a request failed: %s", error, exc_info=error)
    return grpc.StatusCode.INTERNAL, "the server failed"
