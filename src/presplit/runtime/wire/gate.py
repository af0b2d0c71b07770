"""The gate: who is not known does not come in, whatever he calls.

It stands before the server's calls as an interceptor of grpc.aio, so it closes over every method
that the server has or ever will have: unary calls, streams, health, reflection, and names that no
method has. Who is refused learns nothing from it, not even whether a method or a model exists.
A call by a wrong token is refused before its request is read.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from presplit.runtime.wire.lists import Token, holding, names, tokens

REFUSED = "not admitted"
"""All that is said to those who are refused."""
HEADER = "authorization"
SCHEME = "bearer "

admitted_as: contextvars.ContextVar[str] = contextvars.ContextVar("admitted_as", default="")
"""The name by which the gate admitted the call that is being answered; empty without a gate."""
admitted_by: contextvars.ContextVar[str] = contextvars.ContextVar("admitted_by", default="")
"""The hash of the token by which it was; empty without one."""

# What gRPC hands over has no types that a checker knows.
Context = Any
Admit = Callable[[Context], str | None]
_stream: Any = grpc.stream_stream_rpc_method_handler


class Gate(grpc.aio.ServerInterceptor):  # pyright: ignore[reportUntypedBaseClass, reportUnknownMemberType]
    """Admits whose certificate carries a name in the file ``allow``, whose token is in ``tokens``.

    Where both are given, both must hold. The files are read again when they change. Raises
    `SpecError` if one is wrong; with neither, the gate is shut for all.
    """

    def __init__(self, *, allow: Path | None = None, tokens_file: Path | None = None) -> None:
        self._names = None if allow is None else names(allow)
        self._tokens = None if tokens_file is None else tokens(tokens_file)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler of a call, behind the gate."""
        words: dict[str, str | bytes] = dict(handler_call_details.invocation_metadata or ())
        header = words.get(HEADER)
        handler = await continuation(handler_call_details)
        if self._tokens is not None and self.by_header(header) is None:
            # As a stream, so that nothing of the request is taken in.
            return _stream(_refuse)

        def admit(context: Context) -> str | None:
            return self._admitted(header, context)

        return _guarded(handler or _stream(_unknown), admit)

    def by_header(self, header: str | bytes | None) -> str | None:
        """Whose token stands in the value of an ``authorization`` header; None if nobody's."""
        found = self._token(header)
        return None if found is None else found.name

    def _token(self, header: str | bytes | None) -> Token | None:
        """Which token stands in the value of an ``authorization`` header."""
        listed = None if self._tokens is None else self._tokens.now()
        if listed is None or not isinstance(header, str):
            return None
        if header[: len(SCHEME)].lower() != SCHEME:
            return None
        return holding(header[len(SCHEME) :].strip(), listed)

    def still(self, name: str, by: str) -> bool:
        """Whether who came in by ``name``, and a token of the hash ``by``, would come in now.

        It is for who is not asked again each time.

        Where a certificate and a token are both wanted, the name alone does not tell.
        """
        if self._names is not None:
            return self._tokens is None and name in (self._names.now() or ())
        listed = None if self._tokens is None else self._tokens.now()
        return any(
            each.name == name and each.digest.hex() == by and each.holds for each in listed or ()
        )

    def _admitted(self, header: str | bytes | None, context: Context) -> str | None:
        """By which name the call of ``context`` comes in; None if it does not."""
        named = by = None
        if self._tokens is not None:
            token = self._token(header)
            if token is None:
                return None
            named = token.name
            admitted_by.set(token.digest.hex())
        if self._names is not None:
            by = self._by_certificate(context)
            if by is None:
                return None
        return by or named

    def _by_certificate(self, context: Context) -> str | None:
        """The listed name that the peer's verified certificate carries, if any."""
        listed = None if self._names is None else self._names.now()
        if not listed:
            return None
        peer = context.auth_context()
        if peer.get("transport_security_type") != [b"ssl"]:
            return None
        for raw in peer.get("x509_subject_alternative_name", ()):
            if (name := raw.decode("utf-8", "replace")) in listed:
                return name
        return None


async def _refuse(requests: Any, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSED)


async def _unknown(requests: Any, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")


async def _enter(context: Context, admit: Admit) -> None:
    """Go on if the call is admitted; its name is then `admitted_as`."""
    name = admit(context)
    if name is None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, REFUSED)
    admitted_as.set(name or "")


async def _while_admitted(requests: Any, context: Context, admit: Admit) -> AsyncIterator[Any]:
    """What comes in on a stream, as long as its sender is admitted."""
    async for request in requests:
        await _enter(context, admit)
        yield request


def _guarded(handler: Any, admit: Admit) -> Any:
    """``handler`` behind ``admit``, of the same kind."""
    kind = (handler.request_streaming, handler.response_streaming)
    attribute, make = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }[kind]
    inner: Any = getattr(handler, attribute)

    def inside(given: Any, context: Context) -> Any:
        taken = _while_admitted(given, context, admit) if handler.request_streaming else given
        return inner(taken, context)

    async def one(given: Any, context: Context) -> Any:
        await _enter(context, admit)
        return await inside(given, context)

    async def many(given: Any, context: Context) -> AsyncIterator[Any]:
        await _enter(context, admit)
        found = inside(given, context)
        if inspect.isawaitable(found):  # it writes its replies itself
            await found
            return
        async for reply in found:
            yield reply

    return make(
        many if handler.response_streaming else one,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
