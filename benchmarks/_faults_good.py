"""A good client as a process, until its input ends.

Its words: ``ADDRESS MODEL RATE DEADLINE_S GOLDEN_HEX KEYS``. It sends at its rate whatever becomes
of the replies, and prints what it saw as one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._faults import credentials, good_request
from presplit.runtime.wire import messages

PER_CONNECTION = 100
"""Requests a second on each connection: a server bounds the calls on one."""


class _Client:
    """Its connections, and what became of each request."""

    def __init__(self, address: str, keys: str, rate: float, model: str, golden: bytes) -> None:
        self._raw = good_request(model).SerializeToString()
        count = math.ceil(rate / PER_CONNECTION)
        path = messages.path("ModelInfer")
        self._calls: list[Any] = [_connected(address, keys).unary_unary(path) for _ in range(count)]
        self._golden = np.frombuffer(golden, np.float32)
        self.statuses: Counter[str] = Counter()
        self.took: list[float] = []
        self.refused: list[float] = []
        self.wrong = self.sent = 0

    async def first(self) -> None:
        """A request on each connection that may take its time."""
        for call in self._calls:
            await call(self._raw, timeout=10)

    async def send(self, deadline_s: float) -> None:
        """One request and what becomes of it."""
        call = self._calls[self.sent % len(self._calls)]
        self.sent += 1
        began = time.monotonic()
        try:
            raw = await call(self._raw, timeout=deadline_s)
        except grpc.RpcError as error:
            self.statuses[error.code().name] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refused.append(time.monotonic() - began)
            return
        self.statuses["OK"] += 1
        self.took.append(time.monotonic() - began)
        logits = messages.ModelInferResponse.FromString(raw).raw_output_contents[0]
        # Computed in a batch with others, the last bits may differ.
        close = np.allclose(np.frombuffer(logits, np.float32), self._golden, rtol=1e-4, atol=1e-5)
        self.wrong += not close


def _connected(address: str, keys: str) -> Any:
    """A connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    if not keys:
        return grpc.aio.insecure_channel(address, options=own)
    return grpc.aio.secure_channel(address, credentials(Path(keys)), options=own)


async def main(words: list[str]) -> None:
    """Send until the standard input ends."""
    address, model, rate, deadline_s, golden, keys = words
    client = _Client(address, keys, float(rate), model, bytes.fromhex(golden))
    await client.first()
    print("{}", flush=True)
    gc.freeze()
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    tasks: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    while not ended.done():
        while client.sent < (time.monotonic() - began) * float(rate):
            task = asyncio.create_task(client.send(float(deadline_s)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0)
        await asyncio.sleep(min(0.002, 1 / float(rate)))
    seconds = time.monotonic() - began
    if tasks:
        await asyncio.wait(tasks, timeout=float(deadline_s) + 5)
    seen = {
        "n": client.sent,
        "answered": client.statuses["OK"],
        "wrong": client.wrong,
        "p99_s": p99(client.took or [float(deadline_s)]),
        "refused_p99_s": p99(client.refused or [0.0]),
        "seconds": seconds,
        "statuses": dict(client.statuses),
    }
    print(json.dumps(seen), flush=True)


def p99(took: list[float]) -> float:
    """What 99 of 100 stay below."""
    return sorted(took)[int(0.99 * (len(took) - 1))]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
