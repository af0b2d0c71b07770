"""What the server speaks, told to tools that ask: ``grpcurl`` and its like need no file for it.

Source: gRPC's server reflection, ``grpc.reflection.v1`` and, for older tools, ``v1alpha``; the
library for it would register everything in the process's one pool, see
`presplit.runtime.wire.messages`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory

from presplit.runtime.wire import messages

PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
SERVICES = tuple(f"{package}.ServerReflection" for package in PACKAGES)
TABLE: dict[str, dict[str, str]] = {
    "ServerReflectionRequest": {
        "host": "1 string",
        "file_by_filename": "3 string|message_request",
        "file_containing_symbol": "4 string|message_request",
        "list_services": "7 string|message_request",
    },
    "ServerReflectionResponse": {
        "valid_host": "1 string",
        "original_request": "2 ServerReflectionRequest",
        "file_descriptor_response": "4 FileDescriptorResponse|message_response",
        "list_services_response": "6 ListServiceResponse|message_response",
        "error_response": "7 ErrorResponse|message_response",
    },
    "FileDescriptorResponse": {"file_descriptor_proto": "1 bytes*"},
    "ListServiceResponse": {"service": "1 ServiceResponse*"},
    "ServiceResponse": {"name": "1 string"},
    "ErrorResponse": {"error_code": "1 int32", "error_message": "2 string"},
}
"""The messages, as in `messages.TABLE`; of what may be asked, what a server of ours can tell."""
STREAM_S = 30.0
"""How long one who asks may keep on asking."""
MOST_STREAMS = 32
"""Who may ask at once; one more is refused."""
CALLS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"),
    *("ModelInfer", "ModelConfig", "RepositoryIndex"),
)
"""The protocol's calls: each takes the message of its name and Request, and gives Response."""


class Reflection:
    """The one call of the reflection service, in both of its packages."""

    def __init__(self) -> None:
        pool: Any = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(_own(PACKAGES[0]).SerializeToString())
        self._request, self._response = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{SERVICES[0]}{kind}"))
            for kind in ("Request", "Response")
        )
        files = [_inference(), _health(), *map(_own, PACKAGES)]
        self._files: dict[str, bytes] = {}
        for file in files:
            raw = file.SerializeToString()
            self._files |= {symbol: raw for symbol in (file.name, *_symbols(file))}
        self._streams = 0

    def handlers(self) -> dict[str, Any]:
        """The call by name: a stream of requests as bytes, each with one reply."""
        stream: Any = grpc.stream_stream_rpc_method_handler
        return {"ServerReflectionInfo": stream(self._answer)}

    async def _answer(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        if self._streams >= MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask already")
        self._streams += 1
        try:
            async with asyncio.timeout(STREAM_S):
                async for raw in requests:
                    yield self._told(raw).SerializeToString()
        except (messages.DecodeError, TimeoutError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no request came, or not one")
        finally:
            self._streams -= 1

    def _told(self, raw: bytes) -> Any:
        """The reply to one request."""
        asked: Any = self._request.FromString(raw)
        reply: Any = self._response(valid_host=asked.host, original_request=asked)
        kind = asked.WhichOneof("message_request")
        if kind == "list_services":
            for name in (messages.SERVICE, messages.HEALTH_SERVICE, *SERVICES):
                reply.list_services_response.service.add(name=name)
            return reply
        file = self._files.get(getattr(asked, kind)) if kind else None
        if file is None:
            code = grpc.StatusCode.NOT_FOUND if kind else grpc.StatusCode.UNIMPLEMENTED
            reply.error_response.error_code = code.value[0]
            reply.error_response.error_message = "no such file or symbol here"
            return reply
        reply.file_descriptor_response.file_descriptor_proto.append(file)
        return reply


def _inference() -> Any:
    """The protocol's file with its service."""
    file = messages.file_of(messages.TABLE)
    service = file.service.add(name=messages.SERVICE.rpartition(".")[2])
    for call in CALLS:
        _add_call(service, call, f"{messages.PACKAGE}.{call}")
    return file


def _health() -> Any:
    """The health service's file."""
    package = messages.HEALTH_PACKAGE
    file = messages.file_of(
        messages.HEALTH, messages.HEALTH_ENUMS, name="health.proto", package=package
    )
    service = file.service.add(name="Health")
    _add_call(service, "Check", f"{package}.HealthCheck")
    _add_call(service, "Watch", f"{package}.HealthCheck", gives_stream=True)
    return file


def _own(package: str) -> Any:
    """The reflection service's own file."""
    name = f"{package.replace('.', '_')}.proto"
    file = messages.file_of(TABLE, {}, name=name, package=package)
    service = file.service.add(name="ServerReflection")
    called = f"{package}.ServerReflection"
    _add_call(service, "ServerReflectionInfo", called, takes_stream=True, gives_stream=True)
    return file


def _add_call(
    service: Any, name: str, start: str, *, takes_stream: bool = False, gives_stream: bool = False
) -> None:
    """Add the call ``name``, whose messages are called ``start`` and Request or Response."""
    service.method.add(
        name=name,
        input_type=f".{start}Request",
        output_type=f".{start}Response",
        client_streaming=takes_stream,
        server_streaming=gives_stream,
    )


def _symbols(file: Any) -> Iterator[str]:
    """The full names of all that a file declares."""
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{call.name}" for call in service.method)
    yield from (f"{file.package}.{enum.name}" for enum in file.enum_type)
    for message in file.message_type:
        yield f"{file.package}.{message.name}"
        yield from (f"{file.package}.{message.name}.{inner.name}" for inner in message.nested_type)
