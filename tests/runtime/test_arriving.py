"""Calls that send half of a request, on a real server: they are ended, and the others served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from presplit.runtime.hosted import TooLate
from presplit.runtime.wire.arriving import FEWEST, Arriving
from presplit.runtime.wire.calls import unary
from presplit.runtime.wire.messages import ModelReadyRequest, ModelReadyResponse
from presplit.runtime.wire.words import WHY_KEY

CALL = "/test/Ready"
WHOLE = ModelReadyRequest(name="net").SerializeToString()


async def ready(request: Any, caller: Any) -> Any:
    return ModelReadyResponse(ready=request.name == "net")


class Server:
    """A server of one call that gives requests ``within_s`` seconds to arrive."""

    def __init__(self, *, within_s: float) -> None:
        # So large that only the fewest are kept.
        self.arriving = Arriving(2**30, within_s=within_s)
        self.server: Any = grpc.aio.server()
        handlers = {"Ready": unary(ModelReadyRequest, ready, self.arriving)}
        self.server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test", handlers)]
        )

    async def __aenter__(self) -> Server:
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.channel.close()
        await self.server.stop(0)

    def half(self) -> Any:
        """A call whose request never comes."""
        return self.channel.stream_unary(CALL)(never(), timeout=20)

    async def good(self) -> bytes:
        return await self.channel.unary_unary(CALL)(WHOLE, timeout=20)


async def never() -> AsyncIterator[bytes]:
    await asyncio.sleep(30)
    yield b""


async def ending(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """The status, the text and the reason that end a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    words = dict(caught.value.trailing_metadata())
    return caught.value.code(), caught.value.details() or "", words[WHY_KEY]


def test_a_request_that_does_not_arrive_in_time_is_ended_and_others_are_served() -> None:
    async def main() -> None:
        async with Server(within_s=0.1) as server:
            call = server.half()
            assert ModelReadyResponse.FromString(await server.good()).ready
            code, text, why = await ending(call)
            assert (code, why) == (grpc.StatusCode.DEADLINE_EXCEEDED, "late")
            assert text == "a request must arrive within 0.1 s"
            assert ModelReadyResponse.FromString(await server.good()).ready

    asyncio.run(main())


def test_where_too_many_requests_are_half_here_the_first_gives_way_to_a_good_one() -> None:
    async def main() -> None:
        async with Server(within_s=20) as server:
            calls = []
            for _ in range(FEWEST):
                calls.append(server.half())
                await calls[-1].wait_for_connection()
            await asyncio.sleep(0.1)  # all of their heads are there
            assert not any(call.done() for call in calls)
            assert ModelReadyResponse.FromString(await server.good()).ready
            code, text, why = await ending(calls[0])
            assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded")
            assert text == "too many requests are only half here; ask again later"
            assert not any(call.done() for call in calls[1:])
            for call in calls:
                call.cancel()

    asyncio.run(main())


def test_a_call_that_ends_without_a_request_and_one_that_is_given_up_leave_nothing() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for word in ():
            yield word

    async def main() -> None:
        async with Server(within_s=20) as server:
            empty = server.channel.stream_unary(CALL)(nothing(), timeout=20)
            code, text, _ = await ending(empty)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert text == "the call ended without a request"
            call = server.half()
            await call.wait_for_connection()
            await asyncio.sleep(0.05)
            assert call.cancel()
            async with asyncio.timeout(5):
                while server.arriving._half:
                    await asyncio.sleep(0.01)
            assert not server.arriving._ended

    asyncio.run(main())


def test_a_request_that_is_late_is_told_from_one_that_the_client_gave_up() -> None:
    class Silent:
        async def read(self) -> bytes:
            await asyncio.sleep(30)
            return b""

    async def main() -> None:
        arriving = Arriving(2**30, within_s=0.05)
        with pytest.raises(TooLate):
            await arriving.read(Silent())
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        given_up = asyncio.create_task(arriving.read(Silent()))
        await asyncio.sleep(0.01)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up

    asyncio.run(main())
