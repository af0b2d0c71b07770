"""The server's end of the wire.

It is the Open Inference Protocol on grpc.aio, in front of whatever is `Hosted`.

Every request is parsed and answered here with the status that the protocol's clients expect;
nothing of what was sent, and no traceback, goes back. grpc.aio, because a few half-sent requests
stop grpc's threaded server; limits on size, metadata, streams, handshakes and the age of
connections, because a peer may be slow or hostile.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from presplit.core.errors import BundleError, InputError, ServerError
from presplit.runtime.wire import open_inference_pb2 as messages
from presplit.runtime.wire.tensors import Form, Sent

Request = TypeVar("Request", bound=Message)

SERVICE = "inference.GRPCInferenceService"
VERSION = "1"
"""The one version of every model: another model has another hash, and so another name."""
MESSAGE_ROOM_BYTES = 4096
"""What a request may hold besides its payload."""
MAX_ID = 128
"""Characters of a request's id."""

OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.server_handshake_timeout_ms", 3_000),  # silent connections do not stay
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 500),  # the edge's keepalive is welcome
]


class UnknownModel(Exception):
    """No such model is hosted here."""


class Overloaded(Exception):
    """No place for one more request."""


class TooLate(Exception):
    """The deadline passed before the request was run."""


@dataclass(frozen=True)
class Contract:
    """What the model ``name`` takes and gives."""

    name: str
    input: Form
    output: Form


class Hosted(Protocol):
    """What can be served: models by name, each with a contract."""

    name: str
    version: str

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that any model takes."""
        ...

    def contract(self, name: str) -> Contract:
        """The contract of the model ``name``; raises `UnknownModel`."""
        ...

    async def warm(self, name: str) -> None:
        """Return when the model ``name`` is ready to run; raises `UnknownModel`, `Overloaded`."""
        ...

    async def infer(self, name: str, tensor: Sent, *, until: float | None) -> Sent:
        """The model's output; raises `UnknownModel`, `InputError`, `Overloaded`, `TooLate`."""
        ...


class Listener:
    """A server that listens, in front of ``hosted``."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._draining = False
        size = hosted.max_payload_bytes + MESSAGE_ROOM_BYTES
        options = [*OPTIONS, ("grpc.max_receive_message_length", min(size, 2**31 - 1))]
        self._server: Any = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, self._handlers())]
        )

    async def start(self, host: str, port: int) -> str:
        """Listen on ``host`` and ``port`` (0: any free one) and give ``HOST:PORT``.

        Raises `ServerError`.
        """
        literal = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{literal}:{port}")
        except RuntimeError as error:
            cure = "choose another port, or 0 for a free one"
            raise ServerError(
                f"cannot listen on {literal}:{port} ({_why_not(host, port)}); {cure}"
            ) from error
        await self._server.start()
        return f"{literal}:{bound}"

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, finish the ones that are here within ``grace_s``, and close."""
        self._draining = True
        await self._server.stop(grace_s)

    def _handlers(self) -> dict[str, Any]:
        """The protocol's six calls."""
        return {
            "ServerLive": _unary(messages.ServerLiveRequest, self._live),
            "ServerReady": _unary(messages.ServerReadyRequest, self._ready),
            "ModelReady": _unary(messages.ModelReadyRequest, self._model_ready),
            "ServerMetadata": _unary(messages.ServerMetadataRequest, self._metadata),
            "ModelMetadata": _unary(messages.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": _unary(messages.ModelInferRequest, self._infer),
        }

    async def _live(self, request: messages.ServerLiveRequest, until: float | None) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, request: messages.ServerReadyRequest, until: float | None) -> Message:
        return messages.ServerReadyResponse(ready=not self._draining)

    async def _metadata(
        self, request: messages.ServerMetadataRequest, until: float | None
    ) -> Message:
        return messages.ServerMetadataResponse(name=self._hosted.name, version=self._hosted.version)

    async def _model_ready(
        self, request: messages.ModelReadyRequest, until: float | None
    ) -> Message:
        _check_version(request.version)
        await self._hosted.warm(request.name)
        return messages.ModelReadyResponse(ready=not self._draining)

    async def _model_metadata(
        self, request: messages.ModelMetadataRequest, until: float | None
    ) -> Message:
        _check_version(request.version)
        contract = self._hosted.contract(request.name)
        described = [
            messages.ModelMetadataResponse.TensorMetadata(
                name=form.name, datatype=form.datatype, shape=[-1, *form.shape]
            )
            for form in (contract.input, contract.output)
        ]
        return messages.ModelMetadataResponse(
            name=contract.name,
            versions=[VERSION],
            platform="onnxruntime_onnx",
            inputs=described[:1],
            outputs=described[1:],
        )

    async def _infer(self, request: messages.ModelInferRequest, until: float | None) -> Message:
        _check_version(request.model_version)
        tensor = _only_input(request, self._hosted.contract(request.model_name))
        found = await self._hosted.infer(request.model_name, tensor, until=until)
        output = messages.ModelInferResponse.InferOutputTensor(
            name=found.name, datatype=found.datatype, shape=found.shape
        )
        return messages.ModelInferResponse(
            model_name=request.model_name,
            model_version=VERSION,
            id=request.id,
            outputs=[output],
            raw_output_contents=[found.raw],
        )


def _only_input(request: messages.ModelInferRequest, contract: Contract) -> Sent:
    """The request's one tensor, not yet checked.

    Raises `InputError` if the request itself breaks the contract.
    """
    if len(request.id) > MAX_ID:
        raise InputError(f"id must have at most {MAX_ID} characters, got {len(request.id)}")
    if (
        len(request.inputs) != 1
        or len(request.raw_input_contents) != 1
        or request.inputs[0].HasField("contents")
    ):
        counts = f"{len(request.inputs)} and {len(request.raw_input_contents)}"
        raise InputError(
            f"expected one input and its values in raw_input_contents alone, got {counts}"
        )
    for output in request.outputs:
        if output.name != contract.output.name:
            raise InputError(
                f"the only output is {contract.output.name!r}, got {output.name[:64]!r}"
            )
    tensor = request.inputs[0]
    return Sent(tensor.name, tensor.datatype, tuple(tensor.shape), request.raw_input_contents[0])


def _check_version(version: str) -> None:
    """Raise `UnknownModel` for a version that no model here has."""
    if version not in ("", VERSION):
        raise UnknownModel(f"every model here has version {VERSION}, got {version[:16]!r}")


def _unary(
    kind: type[Request], answer: Callable[[Request, float | None], Awaitable[Message]]
) -> Any:
    """A call from raw bytes to raw bytes.

    So parsing errors and refusals all get their status in one place.

    ``answer`` is told when its reply becomes worthless, on the clock of `time.monotonic`.
    """

    async def handle(raw: bytes, context: Any) -> bytes:
        remaining: float | None = context.time_remaining()
        until = None if remaining is None else time.monotonic() + remaining
        try:
            return (await answer(kind.FromString(raw), until)).SerializeToString()
        except DecodeError:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a {kind.__name__}"
        except InputError as error:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except UnknownModel as error:
            code, text = grpc.StatusCode.NOT_FOUND, str(error)
        except Overloaded as error:
            code, text = grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        except TooLate as error:
            code, text = grpc.StatusCode.DEADLINE_EXCEEDED, str(error)
        except BundleError:
            code, text = grpc.StatusCode.INTERNAL, "the model cannot be run here"
        await context.abort(code, text)
        raise AssertionError("abort always raises")

    return grpc.unary_unary_rpc_method_handler(handle)  # pyright: ignore[reportUnknownVariableType]


def _why_not(host: str, port: int) -> str:
    """Why nothing can listen there, in the system's words: gRPC does not say."""
    try:
        with socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ):
            return "gRPC refused the address"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
