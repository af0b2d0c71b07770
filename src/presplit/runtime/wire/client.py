"""The edge's end of the wire.

It is one lasting channel, puts one request at a time on its way, and never raises an exception.

A call that fails gives a `Failure` whose ``why`` stands in an answer as it is. The synchronous
channel is used because its ``future`` call returns at once and lets the caller compute while the
reply is on its way.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any

import grpc
import numpy.typing as npt

from presplit.core.errors import InputError, SpecError
from presplit.core.types import Floats, Why
from presplit.runtime.wire import open_inference_pb2 as messages
from presplit.runtime.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from presplit.runtime.wire.tensors import Form, Sent, send

REPLY_ROOM_BYTES = 64 * 1024
"""What a reply may hold besides its logits; more than any honest server sends."""
GREETING_S = 10.0
"""How long the first contact may take; nobody waits for it."""

OPTIONS: list[tuple[str, int]] = [
    (
        "grpc.enable_http_proxy",
        0,
    ),  # a proxy meant for browsing must not get between edge and server
    ("grpc.enable_retries", 0),  # the deadline is short and a held answer is at hand
    ("grpc.use_local_subchannel_pool", 1),  # the connection and its back-off are this channel's own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # a server that is back is found within about a second
    (
        "grpc.min_reconnect_backoff_ms",
        2000,
    ),  # in spite of its name: the time that one attempt to connect may take
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ("grpc.keepalive_time_ms", 1000),  # while calls are open; servers take that well
]

WHYS: dict[grpc.StatusCode, Why] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "late",
    grpc.StatusCode.UNAVAILABLE: "link_down",
    grpc.StatusCode.CANCELLED: "link_down",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded",
    grpc.StatusCode.INVALID_ARGUMENT: "refused",
    grpc.StatusCode.NOT_FOUND: "refused",
    grpc.StatusCode.FAILED_PRECONDITION: "refused",
    grpc.StatusCode.OUT_OF_RANGE: "refused",
    grpc.StatusCode.UNIMPLEMENTED: "refused",
    grpc.StatusCode.PERMISSION_DENIED: "refused",
    grpc.StatusCode.UNAUTHENTICATED: "refused",
}
"""What each status means for an answer.

A status that is not listed is not what a tail sends: ``bad_reply``.
"""


@dataclass(frozen=True)
class Failure:
    """Why no reply can be used; ``detail`` is for people."""

    why: Why
    detail: str


class Pending:
    """A request on its way."""

    def __init__(
        self, call: Any, *, model_name: str, request_id: str, logits: Form
    ) -> None:  # grpc's future: no stubs
        self._call = call
        self._model_name = model_name
        self._request_id = request_id
        self._logits = logits

    def wait(self, until: float) -> Floats | Failure:
        """The logits, or why there are none, by ``until`` on the clock of `time.monotonic`.

        The logits are float32 ``(1, classes)``.
        """
        try:
            reply = self._call.result(timeout=max(0.0, until - time.monotonic()))
        except grpc.FutureTimeoutError:
            self.cancel()
            return Failure("late", "no reply in time")
        except grpc.FutureCancelledError:
            return Failure("link_down", "the channel was closed")
        except grpc.RpcError:
            return _failure(self._call.code(), self._call.details() or "")
        return self._checked(reply)

    def cancel(self) -> None:
        """Ask no more; a reply that still comes is dropped."""
        self._call.cancel()

    def _checked(self, reply: messages.ModelInferResponse) -> Floats | Failure:
        """The logits in ``reply`` if it is right.

        It must be the reply to this request, of this model, and of the right form.
        """
        if reply.id != self._request_id:
            return Failure(
                "bad_reply", f"expected request id {self._request_id!r}, got {reply.id[:64]!r}"
            )
        if reply.model_name != self._model_name:
            return Failure(
                "bad_reply", f"expected model {self._model_name!r}, got {reply.model_name[:64]!r}"
            )
        if len(reply.outputs) != 1 or len(reply.raw_output_contents) != 1:
            counts = f"{len(reply.outputs)} and {len(reply.raw_output_contents)}"
            return Failure("bad_reply", f"expected one output with raw contents, got {counts}")
        output = reply.outputs[0]
        tensor = Sent(
            output.name, output.datatype, tuple(output.shape), reply.raw_output_contents[0]
        )
        try:
            return self._logits.read(tensor)
        except InputError as error:
            return Failure("bad_reply", str(error))


class Client:
    """One lasting channel to the server at ``HOST:PORT`` or ``grpc://HOST:PORT``.

    It is safe to use from several threads.

    ``classes`` is what a reply must hold. A connection that is silent for ``patience_s`` is given
    up, so that later calls fail at once instead of running into their deadlines; it must be longer
    than the longest upload takes. Raises `SpecError` for an address of another form.
    """

    def __init__(self, server: str, *, classes: int, patience_s: float = 2.0) -> None:
        self._logits = Form("logits", "FP32", (classes,))
        silence_ms = math.ceil(1000 * patience_s)
        options = [
            *OPTIONS,
            ("grpc.max_receive_message_length", self._logits.nbytes + REPLY_ROOM_BYTES),
            ("grpc.keepalive_timeout_ms", silence_ms),
            (
                "grpc.http2.ping_timeout_ms",
                silence_ms,
            ),  # while a ping of its own is out, gRPC sends no keepalive
        ]
        self._channel = grpc.insecure_channel(address_of(server), options=options)
        stub: Any = GRPCInferenceServiceStub(self._channel)  # generated without types
        self._infer = stub.ModelInfer
        self._ready = stub.ModelReady
        self._greeting: Any = None  # kept, because gRPC cancels a call that nobody holds

    def greet(self, model_name: str) -> None:
        """Begin to connect and have the server make ``model_name`` ready.

        Returns at once, whatever comes of it.
        """
        self._greeting = self._ready.future(
            messages.ModelReadyRequest(name=model_name), timeout=GREETING_S
        )

    def ask(
        self, model_name: str, codes: npt.NDArray[Any], *, timeout_s: float, request_id: str
    ) -> Pending | Failure:
        """Put ``codes`` ``(1, *boundary)`` on their way to ``model_name`` and return at once.

        The server is told that the reply is worthless after ``timeout_s``.
        """
        tensor = send("boundary", codes)
        request = messages.ModelInferRequest(
            model_name=model_name,
            id=request_id,
            inputs=[
                messages.ModelInferRequest.InferInputTensor(
                    name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
                )
            ],
            raw_input_contents=[tensor.raw],
        )
        try:
            call = self._infer.future(request, timeout=timeout_s)
        except ValueError as error:  # how grpc says that the channel is closed
            return Failure("link_down", str(error))
        return Pending(call, model_name=model_name, request_id=request_id, logits=self._logits)

    def close(self) -> None:
        """Close the channel; what is on its way fails."""
        self._channel.close()


def address_of(server: str) -> str:
    """``HOST:PORT`` of ``server``; raises `SpecError` if it is of another form.

    >>> address_of("grpc://127.0.0.1:8001")
    '127.0.0.1:8001'
    >>> address_of("https://example.com")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: server must be HOST:PORT or grpc://HOST:PORT, got 'https://example.com'
    """
    found = re.fullmatch(
        r"(?:grpc://)?((?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5}))/?", server, re.ASCII
    )
    if found is None or not 1 <= int(found[2]) <= 65535:
        raise SpecError(f"server must be HOST:PORT or grpc://HOST:PORT, got {server!r}")
    return found[1]


def _failure(code: grpc.StatusCode, details: str) -> Failure:
    """What a status means.

    Messages that are too large fail as overload in gRPC, but here they are what they are.
    """
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return Failure("bad_reply" if details.startswith("CLIENT") else "refused", details)
    return Failure(WHYS.get(code, "bad_reply"), f"{code.name}: {details}")
