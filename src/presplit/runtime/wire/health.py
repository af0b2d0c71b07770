"""The health of a server as gRPC's own clients and proxies ask for it.

Source: grpc.health.v1 (``grpc/health/v1/health.proto``). The services are "" and the Open Inference
Protocol's, which stand for the whole server, and every model by its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from presplit.runtime.hosted import Hosted, UnknownModel
from presplit.runtime.wire import messages
from presplit.runtime.wire.arriving import Arriving
from presplit.runtime.wire.calls import Caller, Message, unary
from presplit.runtime.wire.readiness import Readiness

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
"""`ServingStatus`, by the numbers that travel."""
MOST_WATCHERS = 256
"""Streams that watch at once; one more is refused."""


class Health:
    """The two calls of the health service, in front of ``hosted``."""

    def __init__(self, hosted: Hosted, readiness: Readiness) -> None:
        self._hosted, self._readiness = hosted, readiness
        self._watchers = 0

    def handlers(self, arriving: Arriving) -> dict[str, Any]:
        """The calls by name; requests are read by ``arriving``."""

        async def watch(_: Any, context: Any) -> AsyncIterator[bytes]:
            async for told in self._watch(await arriving.read(context), context):
                yield told

        stream: Any = grpc.stream_stream_rpc_method_handler
        check = unary(messages.HealthCheckRequest, self._check, arriving)
        return {"Check": check, "Watch": stream(watch)}

    async def _check(self, request: Message, caller: Caller) -> Message:
        status = self._status(request.service)
        if status == SERVICE_UNKNOWN:
            raise UnknownModel(f"no service {request.service[:128]!r} here")
        return messages.HealthCheckResponse(status=status)

    async def _watch(self, raw: bytes, context: Any) -> AsyncIterator[bytes]:
        """The status now, and at every change, until the server ends."""
        if self._watchers >= MOST_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already")
        try:
            service = messages.HealthCheckRequest.FromString(raw).service
        except messages.DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
            raise
        self._watchers += 1
        try:
            told = None
            while True:
                status = self._status(service)
                if status != told:
                    yield messages.HealthCheckResponse(status=status).SerializeToString()
                told = status
                if self._readiness.ended:
                    return
                await self._readiness.changed()
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> int:
        """How ``service`` is."""
        if service not in ("", messages.SERVICE):
            try:
                self._hosted.contract(service)
            except UnknownModel:
                return SERVICE_UNKNOWN
        return SERVING if self._readiness.ready else NOT_SERVING
