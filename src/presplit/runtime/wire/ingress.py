"""The protocol's calls behind an ingress that is not ours: Ray Serve's, for gRPC.

The ingress hands on bytes as they came, and the replica parses them by our own checks: what an edge
sent is never unpickled. A refusal has the same status and the same words as from our own server.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from presplit import __version__
from presplit.runtime.hosted import Hosted
from presplit.runtime.wire import messages
from presplit.runtime.wire.arriving import Arriving
from presplit.runtime.wire.server import Listener

CALLS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
)
"""What an ingress passes on: each is a method of the replica."""


class Raw(bytes):
    """A reply's bytes, as an ingress takes them: it serialises what it is given."""

    def SerializeToString(self) -> bytes:
        """The bytes as they are."""
        return bytes(self)


class Refused(Exception):
    """A call that was refused; status and words were told to the ingress."""


class Calls(Listener):
    """The protocol's calls to what is ``hosted``, without a port: an ingress has that.

    An ingress does not say how long its caller waits; ``within_s`` is what it lets a call take.
    """

    def __init__(self, hosted: Hosted, *, within_s: float) -> None:
        super().__init__(hosted, name="presplit", version=__version__)
        self._within_s = within_s
        self._answers = self._handlers(Arriving(self._most_bytes))

    async def answer(self, call: str, raw: bytes, context: Any) -> Raw:
        """The reply to ``call``; raises `Refused` once ``context`` has the status."""
        handler = self._answers[call].stream_unary
        return Raw(await handler(None, _Context(context, raw, self._within_s)))


class _Context:
    """What a call of ours asks of gRPC, from what an ingress knows."""

    def __init__(self, inner: Any, raw: bytes, within_s: float) -> None:
        self._inner, self._raw, self._within_s = inner, raw, within_s

    async def read(self) -> bytes:
        return self._raw

    def time_remaining(self) -> float:
        return self._within_s

    def peer(self) -> str:
        return self._inner.peer()

    def set_trailing_metadata(self, words: Any) -> None:
        self._inner.set_trailing_metadata(list(words))

    async def abort(self, code: Any, text: str, words: Any) -> NoReturn:
        self._inner.set_trailing_metadata(list(words))
        self._inner.set_code(code)
        self._inner.set_details(text)
        raise Refused(text)


def add_to_server(_: object, server: Any) -> None:
    """Register the protocol's calls, as code that is generated for gRPC does; bytes stay bytes."""
    handlers: dict[str, Any] = {
        call: grpc.unary_unary_rpc_method_handler(_nobody) for call in CALLS
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(messages.SERVICE, handlers),)
    )


def _nobody(raw: bytes, context: Any) -> NoReturn:
    """What the ingress replaces by its own way to a replica."""
    raise AssertionError("the ingress answers in its place")
