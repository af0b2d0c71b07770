"""Clients that are slow on purpose, a thousand at once, on one loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from benchmarks._faults_h2 import GOAWAY, HEADERS, RST_STREAM, frames


@dataclass
class Attack:
    """What a slow client sends: ``first`` at once, then ``drip`` again and again."""

    name: str
    first: bytes
    drip: bytes = b""
    every_s: float = 1.0
    in_turn: bool = False
    """Whether ``drip`` goes out byte by byte, each byte once."""
    calls: int = 1
    """How many calls ``first`` begins."""
    gone_s: float = 15.0
    """When the server is to have ended it."""


@dataclass
class Ended:
    """How many of the attackers a server got rid of, and after how long."""

    n: int
    refused: int
    after_s: list[float]

    def within(self, seconds: float) -> int:
        """Those that were gone by then."""
        return self.refused + sum(after <= seconds for after in self.after_s)


async def attacking(attack: Attack, port: int, count: int, seconds: float) -> Ended:
    """``count`` such clients at once for so long."""
    ended = Ended(count, 0, [])
    await asyncio.gather(
        *(_one(attack, port, ended, seconds, start=attack.calls * k / 1000) for k in range(count))
    )
    return ended


async def _one(attack: Attack, port: int, ended: Ended, seconds: float, *, start: float) -> None:
    """One client, from its connection until the server ends it or the time is over."""
    await asyncio.sleep(start)
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        ended.refused += 1
        return
    dripping = asyncio.create_task(_drip(attack, writer))
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(seconds):
            await _until_ended(reader)
            ended.after_s.append(time.monotonic() - began)
    dripping.cancel()
    with contextlib.suppress(OSError):
        writer.transport.abort()


async def _drip(attack: Attack, writer: asyncio.StreamWriter) -> None:
    """Send what there is to send, slowly."""
    with contextlib.suppress(OSError):
        writer.write(attack.first)
        position = 0
        while attack.drip and position < len(attack.drip):
            await asyncio.sleep(attack.every_s)
            writer.write(attack.drip[position : position + 1] if attack.in_turn else attack.drip)
            position += attack.in_turn
            await writer.drain()


async def _until_ended(reader: asyncio.StreamReader) -> None:
    """Return when the server ends the call, or the connection."""
    received = b""
    try:
        while chunk := await reader.read(4096):
            received += chunk
            kinds = {kind for kind, _ in frames(received)}
            if kinds & {HEADERS, RST_STREAM, GOAWAY}:
                return
    except ConnectionError:
        return
