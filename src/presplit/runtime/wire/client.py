"""The edge's end of the wire: one lasting channel, each request at once on its way.

A call that fails gives a `Failure` whose ``why`` stands in an answer as it is. The synchronous
channel is used because its ``future`` call returns at once and lets the caller compute while the
reply is on its way.
"""

from __future__ import annotations

import itertools
import math
import secrets
import time
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from presplit.core.errors import InputError
from presplit.core.types import Floats, Why
from presplit.runtime.address import address_of
from presplit.runtime.hosted import Early, Form, Reply
from presplit.runtime.opened import Opened
from presplit.runtime.upstream import Failure, Pending, Request, check_early
from presplit.runtime.wire import messages
from presplit.runtime.wire.credentials import ClientCredentials, credentials_for
from presplit.runtime.wire.reasons import exhausted, failure_of, trailers
from presplit.runtime.wire.tensors import Sent, read, send
from presplit.runtime.wire.words import EXIT_KEY, MOST_KEY, SERVER_S_KEY, WHY_KEY

REPLY_ROOM_BYTES = 64 * 1024
"""What a reply may hold besides its logits; more than any honest server sends."""
MOST_REPLY_BYTES = 32 * 2**20
"""A reply of more bytes is cut off by gRPC, which says so by a status that also means overload.

It is far beyond any legal reply, so that a reply that is only wrong is read and told as that.
"""
GREETING_S = 10.0
"""How long the first contact may take; nobody waits for it."""

OPTIONS: list[tuple[str, int]] = [
    # A proxy meant for browsing must not get between edge and server.
    ("grpc.enable_http_proxy", 0),
    # The deadline is short and a held answer is at hand.
    ("grpc.enable_retries", 0),
    # The connection and its back-off are this channel's own.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that is back is found within about a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name: the time that one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # While calls are open; servers take that well.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.max_receive_message_length", MOST_REPLY_BYTES),
]


class Client:
    """One lasting channel to the server at ``HOST:PORT``, ``grpcs://`` or ``grpc://HOST:PORT``.

    A connection that is silent for ``patience_s`` seconds is given up. With ``credentials``, or by
    ``grpcs://``, it is encrypted. Raises `SpecError` for an address of another form.
    """

    def __init__(
        self, server: str, *, patience_s: float, credentials: ClientCredentials | None = None
    ) -> None:
        self._opened = Opened("the connection")
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count()
        options = [*OPTIONS, ("grpc.keepalive_timeout_ms", math.ceil(1000 * patience_s))]
        address, secret = address_of(server), credentials_for(server, credentials)
        self._words = () if secret is None else secret.words
        if secret is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, secret.channel, options=options)
        self._infer: Any = self._channel.unary_unary(messages.path("ModelInfer"))
        self._ready: Any = self._channel.unary_unary(messages.path("ModelReady"))
        self._greetings: dict[str, Any] = {}
        self._most_bytes: int | None = None

    def greet(self, name: str) -> None:
        """Begin to connect and have the server make ``name`` ready.

        What the server says of the largest request that it takes is kept.
        """
        request = messages.ModelReadyRequest(name=name).SerializeToString()
        greeting = self._ready.future(request, timeout=GREETING_S, metadata=self._words)
        # It is kept because gRPC cancels a call that nobody holds.
        self._greetings[name] = greeting
        greeting.add_done_callback(self._welcomed)

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Put ``request`` on its way; the server is told when its reply becomes worthless."""
        if not self._opened.here:
            return Failure("link_down", "the connection was opened before a fork")
        tensor = send("boundary", request.codes)
        request_id = f"{self._prefix}-{next(self._numbers)}"
        tensor_head = messages.ModelInferRequest.InferInputTensor(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
        )
        message = messages.ModelInferRequest(
            model_name=request.model,
            id=request_id,
            inputs=[tensor_head],
            raw_input_contents=[tensor.raw],
        ).SerializeToString()
        most = self._most_bytes
        try:
            if most is not None and len(message) > most:
                # Another server may listen there by now, and take more.
                greeting = self._greetings.get(request.model)
                if greeting is None or greeting.done():
                    self.greet(request.model)
                detail = f"a request of {len(message)} bytes, and the server takes {most}"
                return Failure("refused", detail)
            left_s = max(0.0, until - time.monotonic())
            call = self._infer.future(message, timeout=left_s, metadata=self._words)
        except ValueError as error:  # how grpc says that the channel is closed
            return Failure("link_down", str(error))
        return _Pending(
            call,
            request,
            request_id,
            exhausted=exhausted(known=most is not None, sent_bytes=len(message)),
        )

    def close(self) -> None:
        """Close the channel; what is on its way fails.

        In the child of a fork nothing is done: the channel's threads are not there.
        """
        if self._opened.here:
            self._channel.close()

    def _welcomed(self, greeting: Any) -> None:
        """Keep what the server says of itself at its end of the greeting."""
        said = trailers(greeting).get(MOST_KEY, "")
        if said.isascii() and said.isdigit():
            self._most_bytes = int(said)


class _Pending:
    """A request on its way over gRPC."""

    def __init__(self, call: Any, request: Request, request_id: str, *, exhausted: Why) -> None:
        self._call = call  # grpc's future: no stubs
        self._request, self._id = request, request_id
        self._exhausted: Why = exhausted
        self._began = time.monotonic()
        self.server_s: float | None = None
        self._logits = Form("logits", "float32", (request.classes,))

    def wait(self, until: float) -> Reply | Failure:
        """The logits, or why there are none."""
        try:
            raw = self._call.result(timeout=max(0.0, until - time.monotonic()))
        except grpc.FutureTimeoutError:
            return Failure("late", "no reply in time")
        except grpc.FutureCancelledError:
            return Failure("link_down", "nobody waits any more, or the channel was closed")
        except grpc.RpcError:
            return failure_of(self._call, exhausted=self._exhausted)
        waited_s = time.monotonic() - self._began
        try:
            return self._read(raw, waited_s)
        except (DecodeError, InputError) as error:
            return Failure("bad_reply", str(error))

    def cancel(self) -> None:
        """Ask no more."""
        self._call.cancel()

    def _read(self, raw: bytes, waited_s: float) -> Reply:
        """The logits in a reply that was there after ``waited_s`` seconds, at most.

        Raises `InputError` unless it is the reply to this request, of this model and form.
        """
        most = self._logits.nbytes + REPLY_ROOM_BYTES
        if len(raw) > most:
            raise InputError(f"expected a reply of at most {most} bytes, got {len(raw)}")
        reply = messages.ModelInferResponse.FromString(raw)
        if reply.id != self._id:
            raise InputError(f"expected request id {self._id!r}, got {reply.id[:64]!r}")
        if reply.model_name != self._request.model:
            got = reply.model_name[:64]
            raise InputError(f"expected model {self._request.model!r}, got {got!r}")
        if len(reply.outputs) != 1 or len(reply.raw_output_contents) != 1:
            counts = f"{len(reply.outputs)} and {len(reply.raw_output_contents)}"
            raise InputError(f"expected one output with raw contents, got {counts}")
        output = reply.outputs[0]
        tensor = Sent(
            output.name, output.datatype, tuple(output.shape), reply.raw_output_contents[0]
        )
        logits = read(tensor, self._logits)
        self._logits.check(logits)
        if SERVER_S_KEY in reply.parameters:
            said = reply.parameters[SERVER_S_KEY]
            # What cannot be is not believed; a number that is none compares as false.
            if said.HasField("double_param") and 0 <= said.double_param <= waited_s:
                self.server_s = said.double_param
        return self._whose(logits.astype(np.float32, copy=False), reply.parameters)

    def _whose(self, logits: Floats, told: Any) -> Reply:
        """The logits with the exit that gave them; raises `InputError` for one that cannot."""
        if EXIT_KEY not in told:
            return logits
        why: Any = told[WHY_KEY].string_param if WHY_KEY in told else ""
        early = Early(logits, told[EXIT_KEY].string_param, why)
        check_early(early, self._request.exits)
        return early
