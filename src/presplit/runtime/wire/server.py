"""The server's end of the wire.

It is the Open Inference Protocol on grpc.aio, in front of whatever is `Hosted`.

Every request is parsed and answered here with the status that the protocol's clients expect;
nothing of what was sent, and no traceback, goes back. grpc.aio, because a few half-sent requests
stop grpc's threaded server; limits on size, metadata, streams, handshakes and the age of
connections, because a peer may be slow or hostile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from presplit.core.errors import ServerError
from presplit.runtime.address import joined, why_not
from presplit.runtime.hosted import Form, Hosted, Stopping
from presplit.runtime.wire import messages
from presplit.runtime.wire.arriving import Arriving
from presplit.runtime.wire.calls import Caller, Message, Words, unary
from presplit.runtime.wire.gate import Gate, admitted_by
from presplit.runtime.wire.health import Health
from presplit.runtime.wire.inferring import Inferring, check_version
from presplit.runtime.wire.lanes import Lanes
from presplit.runtime.wire.readiness import Readiness
from presplit.runtime.wire.reflection import SERVICES, Reflection
from presplit.runtime.wire.templates import VERSION
from presplit.runtime.wire.tensors import datatype_of
from presplit.runtime.wire.words import LANE_KEY, MOST_KEY

PLATFORM = "onnxruntime_onnx"
"""What runs every model, by Triton's name for it."""
EXTENSIONS = ("model_repository", "model_configuration")
"""What is spoken beside the protocol itself: both can be read, and neither changes anything."""
MESSAGE_ROOM_BYTES = 4096
"""What a request may hold besides its payload."""

OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 100),
    # Beyond what this loop can take up, calls are turned away by gRPC itself, some from 64 waiting
    # on and all from 128. With its 1,000 and 3,000 every call is late before it is looked at, and
    # at 5 times its capacity the server answers 8 % of what it could.
    ("grpc.server.max_pending_requests", 64),
    ("grpc.server.max_pending_requests_hard_limit", 128),
    ("grpc.server_handshake_timeout_ms", 3_000),  # silent connections do not stay
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # the edge's keepalive is welcome
]


class Listener:
    """A server that listens, in front of ``hosted``.

    ``credentials`` encrypt and ``gate`` admits, as `presplit.runtime.wire.credentials.secured`
    makes them; without them the server is open to all who reach it.
    ``names`` lists the models for those who ask; ``refused`` is called for every request that is
    none that any model takes; ``knock`` raises for a client, and its deadline, whose request need
    not be read.
    """

    def __init__(
        self,
        hosted: Hosted,
        *,
        name: str,
        version: str,
        credentials: Any = None,
        gate: Gate | None = None,
        names: Callable[[], Iterable[str]] = tuple,
        refused: Callable[[], None] = lambda: None,
        knock: Callable[[str, float | None], None] | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        self._credentials = credentials
        self._hosted, self._name, self._version = hosted, name, version
        self._names, self._refused, self._knock = names, refused, knock
        self.readiness = readiness or Readiness()
        self._holding, self._held, self._gone = False, 0, asyncio.Event()
        self._infer = Inferring(hosted)
        self._most_bytes = min(hosted.most_bytes + MESSAGE_ROOM_BYTES, 2**31 - 1)
        options = [*OPTIONS, ("grpc.max_receive_message_length", self._most_bytes)]
        interceptors: list[Any] = [] if gate is None else [gate]
        arriving = Arriving(self._most_bytes)
        self._lanes = Lanes(
            self._infer_or_hold,
            self._most_bytes,
            refused,
            arriving=arriving,
            still=_everybody if gate is None else gate.still,
        )
        self._server: Any = grpc.aio.server(options=options, interceptors=interceptors)
        health = Health(hosted, self.readiness)
        reflection = Reflection().handlers()
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(messages.SERVICE, self._handlers(arriving)),
                grpc.method_handlers_generic_handler(
                    messages.HEALTH_SERVICE, health.handlers(arriving)
                ),
                *(
                    grpc.method_handlers_generic_handler(service, reflection)
                    for service in SERVICES
                ),
            ]
        )

    async def start(self, host: str, port: int) -> str:
        """Listen on ``host`` and ``port`` (0: any free one) and give ``HOST:PORT``.

        Raises `ServerError`.
        """
        address = joined(host, port)
        try:
            if self._credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            cure = "choose another port, or 0 for a free one"
            raise ServerError(f"cannot listen on {address} ({why_not(host, port)}); {cure}") from (
                error
            )
        await self._server.start()
        await self._lanes.start(bound)
        return joined(host, bound)

    async def hold(self, quiet_s: float, most_s: float) -> None:
        """From now on who is refused because the server ends waits for `stop` to hear so.

        Who asks again and again would otherwise have a request on the way whenever the connection
        ends, and gRPC calls that one cancelled. Returns when nobody new has come for ``quiet_s``,
        or after ``most_s``.
        """
        self._holding, held = True, -1
        until = time.monotonic() + most_s
        while held != self._held and time.monotonic() < until:
            held = self._held
            await asyncio.sleep(quiet_s)

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, finish the ones that are here within ``grace_s``, and close."""
        self.readiness.end()
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        leaving = asyncio.ensure_future(self._lanes.stop(grace_s))
        await asyncio.sleep(0)
        self._gone.set()
        await stopping
        await leaving

    def _handlers(self, arriving: Arriving) -> dict[str, Any]:
        """The protocol's six calls, and two more that Triton's clients make."""
        return {
            "ServerLive": unary(messages.ServerLiveRequest, self._live, arriving),
            "ServerReady": unary(messages.ServerReadyRequest, self._ready, arriving),
            "ModelReady": unary(
                messages.ModelReadyRequest, self._model_ready, arriving, self._welcome
            ),
            "ServerMetadata": unary(messages.ServerMetadataRequest, self._metadata, arriving),
            "ModelMetadata": unary(messages.ModelMetadataRequest, self._model_metadata, arriving),
            "ModelInfer": unary(
                None, self._infer_or_hold, arriving, refused=self._refused, knock=self._knock
            ),
            "ModelConfig": unary(messages.ModelConfigRequest, self._model_config, arriving),
            "RepositoryIndex": unary(messages.RepositoryIndexRequest, self._index, arriving),
        }

    def _welcome(self, caller: Caller) -> Words:
        """What a greeting is told of the server."""
        most = (MOST_KEY, str(self._most_bytes))
        lane = self._lanes.offer(caller.client, admitted_by.get())
        return (most,) if lane is None else (most, (LANE_KEY, lane))

    async def _live(self, request: Message, caller: Caller) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, request: Message, caller: Caller) -> Message:
        return messages.ServerReadyResponse(ready=self.readiness.ready)

    async def _metadata(self, request: Message, caller: Caller) -> Message:
        return messages.ServerMetadataResponse(
            name=self._name, version=self._version, extensions=EXTENSIONS
        )

    async def _model_ready(self, request: Message, caller: Caller) -> Message:
        check_version(request.version)
        await asyncio.wrap_future(self._hosted.warm(request.name))
        return messages.ModelReadyResponse(ready=self.readiness.ready)

    async def _model_metadata(self, request: Message, caller: Caller) -> Message:
        check_version(request.version)
        contract = self._hosted.contract(request.name)
        described = [
            messages.ModelMetadataResponse.TensorMetadata(
                name=form.name,
                datatype=datatype_of(form.dtype),
                shape=[-1, -1] if form.varies else [-1, *form.shape],
            )
            for form in (contract.input, contract.output)
        ]
        return messages.ModelMetadataResponse(
            name=contract.name,
            versions=[VERSION],
            platform=PLATFORM,
            inputs=described[:1],
            outputs=described[1:],
        )

    async def _model_config(self, request: Message, caller: Caller) -> Message:
        check_version(request.version)
        contract = self._hosted.contract(request.name)
        taken, given = contract.input, contract.output
        # One that varies has no batch: its one row is all of its shape.
        most, dims = (0, [1, -1]) if taken.varies else (taken.max_batch, list(taken.shape))
        out = [1, *given.shape] if taken.varies else list(given.shape)
        config = messages.ModelConfig(
            name=contract.name,
            platform=PLATFORM,
            backend="onnxruntime",
            max_batch_size=most,
            input=[messages.ModelInput(name=taken.name, data_type=_type_of(taken), dims=dims)],
            output=[messages.ModelOutput(name=given.name, data_type=_type_of(given), dims=out)],
        )
        return messages.ModelConfigResponse(config=config)

    async def _index(self, request: Message, caller: Caller) -> Message:
        state = "READY" if self.readiness.ready else "UNAVAILABLE"
        if request.ready and state != "READY":
            return messages.RepositoryIndexResponse()
        row = messages.RepositoryIndexResponse.ModelIndex
        return messages.RepositoryIndexResponse(
            models=[row(name=name, version=VERSION, state=state) for name in self._names()]
        )

    async def _infer_or_hold(self, raw: bytes, caller: Caller) -> bytes:
        """Answer; while the server `hold`s, who is refused because it ends hears so at the end."""
        try:
            return await self._infer(raw, caller)
        except Stopping:
            if self._holding:
                self._held += 1
                await self._gone.wait()
            raise


def _type_of(form: Form) -> str:
    """Triton's name of the type of an array of ``form``."""
    return f"TYPE_{datatype_of(form.dtype)}"


def _everybody(_name: str, _by: str) -> bool:
    """Without a gate all who came in stay."""
    return True
