"""A call as the server takes it: raw bytes in, raw bytes or a status out.

Every refusal gets its status and its words here; nothing of what was sent, and no traceback, goes
back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from presplit.core.errors import InputError
from presplit.runtime.hosted import Overloaded, TooLate, UnknownModel, why_of
from presplit.runtime.wire.words import WHY_KEY

STATUSES: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownModel: grpc.StatusCode.NOT_FOUND,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What is the caller's or the moment's; all else is the server's own fault and told as INTERNAL."""

# Messages have no types that a checker knows, see `presplit.runtime.wire.messages`.
Message = Any
Answer = Callable[[Message, float | None], Awaitable[Message]]
Words = tuple[tuple[str, str], ...]


def unary(kind: Any, answer: Answer, always: Words = ()) -> Any:
    """A call from raw bytes to raw bytes, so that every refusal gets its status in one place.

    ``answer`` is told when its reply becomes worthless, on the clock of `time.monotonic`;
    ``always`` are the words that end the call whatever comes of it.
    """

    async def handle(raw: bytes, context: Any) -> bytes:
        remaining: float | None = context.time_remaining()
        until = None if remaining is None else time.monotonic() + remaining
        context.set_trailing_metadata(always)
        try:
            return (await answer(_parsed(kind, raw), until)).SerializeToString()
        # Whatever goes wrong here is told by a status, and nothing of it beyond that.
        except Exception as error:
            code, text = _status(error)
            words = (*always, (WHY_KEY, why_of(error)))
        await context.abort(code, text, words)
        raise AssertionError("abort always raises")

    return grpc.unary_unary_rpc_method_handler(handle)  # pyright: ignore[reportUnknownVariableType]


def _parsed(kind: Any, raw: bytes) -> Message:
    """The message in ``raw``; raises `InputError` if it holds none of this ``kind``."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise InputError(f"the request is not a {kind.__name__}") from error


def _status(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the text that ``error`` is told by; the server's own faults have no details.

    Those are logged here, where they can be mended.
    """
    for kind, code in STATUSES.items():
        if isinstance(error, kind):
            return code, str(error)
    logging.getLogger("presplit.server").error("a request failed: %s", error, exc_info=error)
    return grpc.StatusCode.INTERNAL, "the server failed"
