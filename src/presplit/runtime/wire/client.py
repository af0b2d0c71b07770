"""The edge's end of the wire: one lasting channel, each request at once on its way.

A call that fails gives a `Failure` whose ``why`` stands in an answer as it is. How a call is made
that returns at once and costs no thread is told in `presplit.runtime.wire.unary`.
"""

from __future__ import annotations

import functools
import itertools
import math
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from presplit.runtime.address import address_of, is_loopback
from presplit.runtime.opened import Opened
from presplit.runtime.upstream import Failure, Pending, Request
from presplit.runtime.wire import messages, unary
from presplit.runtime.wire.contracts import Contracts
from presplit.runtime.wire.credentials import ClientCredentials, credentials_for
from presplit.runtime.wire.lane import Lane
from presplit.runtime.wire.reasons import exhausted, trailers
from presplit.runtime.wire.replies import Expected, packed
from presplit.runtime.wire.words import LANE_KEY, MOST_KEY, Words, carried

MOST_REPLY_BYTES = 32 * 2**20
"""A reply of more bytes is cut off by gRPC, which says so by a status that also means overload.

It is far beyond any legal reply, so that a reply that is only wrong is read and told as that.
"""
GREETING_S = 10.0
"""How long the first contact may take; nobody waits for it."""
LANE_AGAIN_S = 1.0
"""A lane that broke is asked for again after so long."""
MOST_WAITERS = 1000
"""So many replies at once may be waited for less long than their calls last."""

OPTIONS: list[tuple[str, int]] = [
    *unary.OPTIONS,
    # A proxy meant for browsing must not get between edge and server.
    ("grpc.enable_http_proxy", 0),
    # The deadline is short and a held answer is at hand.
    ("grpc.enable_retries", 0),
    # The connection and its back-off are this channel's own.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that is back is found within about a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name: the time that one attempt to connect may take. Slow radio links need
    # many seconds; who knows better connects anew (`presplit.runtime.upstreams.guard`).
    ("grpc.min_reconnect_backoff_ms", 20_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # While calls are open; servers take that well.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.max_receive_message_length", MOST_REPLY_BYTES),
]


class Client:
    """One lasting channel to the server at ``HOST:PORT``, ``grpcs://`` or ``grpc://HOST:PORT``.

    Beside it there is a lane (`presplit.runtime.wire.lane`) to a server on the same machine that
    offers one, unless ``lane`` is False. A connection that is silent for ``patience_s`` seconds is
    given up. With ``credentials``, or by ``grpcs://``, it is encrypted. ``metadata`` are words for
    whoever stands before the server, with every call over gRPC, such as ``application`` for Ray
    Serve. Raises `SpecError` for an address of another form, and for words that gRPC does not
    carry.
    """

    def __init__(
        self,
        server: str,
        *,
        patience_s: float,
        credentials: ClientCredentials | None = None,
        metadata: Words = (),
        lane: bool = True,
    ) -> None:
        self._opened = Opened("the connection")
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count()
        options = [*OPTIONS, ("grpc.keepalive_timeout_ms", math.ceil(1000 * patience_s))]
        address, secret = address_of(server), credentials_for(server, credentials)
        host, _, self._port = address.rpartition(":")
        self._lanes = lane and sys.platform == "linux" and is_loopback(host)
        self._lane: Lane | None = None
        # With those before it that still answer what they were asked.
        self._met, self._meeting = list[Lane](), threading.Lock()
        self._offered = 0.0
        self._words = (*carried(metadata), *(() if secret is None else secret.words))
        if secret is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, secret.channel, options=options)
        self._infer: Any = self._channel.unary_stream(messages.path("ModelInfer"))
        self._ready: Any = self._channel.unary_unary(messages.path("ModelReady"))
        self._waiters = ThreadPoolExecutor(MOST_WAITERS, thread_name_prefix="reply")
        self._greetings: dict[str, Any] = {}
        self._contracts = Contracts(self._channel, self._words)
        self._most_bytes: int | None = None

    def greet(self, name: str) -> None:
        """Begin to connect and have the server make ``name`` ready.

        What the server says of the largest request that it takes is kept, and so is what it says
        of the model: a request that does not fit it is ``refused`` and not sent. Nothing is done
        once the channel is closed.
        """
        request = messages.ModelReadyRequest(name=name).SerializeToString()
        try:
            greeting = self._ready.future(request, timeout=GREETING_S, metadata=self._words)
        except ValueError:  # how grpc says that the channel is closed
            return
        # It is kept because gRPC cancels a call that nobody holds.
        self._greetings[name] = greeting
        greeting.add_done_callback(self._welcomed)
        greeting.add_done_callback(functools.partial(self._contracts.greeted, name))

    def ask(self, request: Request, until: float) -> Pending | Failure:
        """Put ``request`` on its way; the server is told when its reply becomes worthless."""
        if not self._opened.here:
            return Failure("link_down", "the connection was opened before a fork")
        request_id = f"{self._prefix}-{next(self._numbers)}"
        message, expected = packed(request, request_id), Expected(request, request_id)
        most = self._most_bytes
        try:
            unfit = self._contracts.unlike(request)
            if most is not None and len(message) > most:
                unfit = f"a request of {len(message)} bytes, and the server takes {most}"
            if unfit is not None:
                # Another server may listen there by now, and take it.
                greeting = self._greetings.get(request.model)
                if greeting is None or greeting.done():
                    self.greet(request.model)
                return Failure("refused", unfit)
            if self._lanes:
                asked = self._by_lane(request.model, message, until, expected)
                if asked is not None:
                    return asked
            left_s = unary.seconds_left(until)
            call = self._infer(message, timeout=left_s, metadata=self._words)
        except ValueError as error:  # how grpc says that the channel is closed
            return Failure("link_down", str(error))
        return unary.UnaryPending(
            call,
            expected,
            until,
            self._waiters,
            exhausted=exhausted(known=most is not None, sent_bytes=len(message)),
        )

    def close(self) -> None:
        """Close the channel; what is on its way fails.

        In the child of a fork nothing is done: the channel's threads are not there.
        """
        if self._opened.here:
            with self._meeting:
                self._lanes = False
                for lane in self._met:
                    lane.close()
            self._channel.close()
            self._waiters.shutdown(wait=False)

    def _by_lane(
        self, model: str, message: bytes, until: float, expected: Expected
    ) -> Pending | Failure | None:
        """The request on its way over the lane; None if there is none.

        One that was there and is not any more is asked for again, once in a while.
        """
        lane = self._lane
        if lane is None:
            return None
        if not lane.is_up and time.monotonic() - self._offered > LANE_AGAIN_S:
            self._offered = time.monotonic()
            self.greet(model)
        return lane.ask(message, until, expected)

    def _welcomed(self, greeting: Any) -> None:
        """Keep what the server says of itself at its end of the greeting."""
        told = trailers(greeting)
        port, _, rest = told.get(LANE_KEY, "").partition(" ")
        name, _, ticket = rest.partition(" ")
        # Who listens elsewhere was reached through somebody, who has a reason to be in between.
        if ticket and port == self._port:
            self._meet(name, ticket)
        said = told.get(MOST_KEY, "")
        if said.isascii() and said.isdigit():
            self._most_bytes = int(said)

    def _meet(self, name: str, ticket: str) -> None:
        """Open a lane, unless one is there or on its way, or the client is closed."""
        with self._meeting:
            if not self._lanes or (self._lane is not None and not self._lane.ends):
                return
            self._offered = time.monotonic()
            self._lane = Lane(name, ticket, MOST_REPLY_BYTES)
            self._met = [each for each in self._met if not each.is_gone] + [self._lane]
