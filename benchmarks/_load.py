"""A load on a server, from a process of its own: ``python -m benchmarks._load SPEC``.

``SPEC`` is JSON, see `Wanted`; what came of it is printed as JSON. Clients with a rate are an open
loop: requests leave at random moments whatever becomes of those before, and their time counts from
the moment at which they should have left. A closed loop would slow down with the server, and so
hide its collapse.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np

from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import send
from presplit.runtime.wire.words import EXIT_KEY, PUSHBACK_KEY

MARK = EXIT_KEY.encode()
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


class Client(msgspec.Struct, frozen=True):
    """Who asks: so many ``callers`` in a closed loop, or ``rate_hz`` requests a second.

    ``samples`` is a ``.npy`` file; its rows are sent in turn. ``keys`` are the files of a
    certificate authority, a certificate and its key, if the server wants to know who asks.
    """

    name: str
    model: str
    samples: str
    deadline_s: float
    callers: int = 0
    rate_hz: float = 0.0
    keys: tuple[str, str, str] | None = None


class Wanted(msgspec.Struct, frozen=True):
    """All ``clients`` at once for ``seconds``; requests of the first ``warm_s`` do not count."""

    address: str
    clients: tuple[Client, ...]
    seconds: float
    warm_s: float = 0.5
    seed: int = 0


class Seen(msgspec.Struct):
    """What came of one client's requests."""

    ok: list[float] = []
    """Seconds of those that were answered."""
    refused: list[float] = []
    """Seconds of those that the server had no place for."""
    codes: dict[str, int] = {}
    early: int = 0
    """How many an exit answered."""
    late: list[float] = []
    """By how many seconds each left too late, because the load itself was late."""


class _Asker:
    """One client with its connection."""

    def __init__(self, address: str, client: Client) -> None:
        self._client = client
        self._counts_from = self._until = 0.0
        self._channel = _channel(address, client)
        self._infer: Any = self._channel.unary_unary(messages.path("ModelInfer"))
        rows = np.load(client.samples)
        self._requests = [_request(client.model, row[None]) for row in rows]
        self._sent = 0
        self._codes: Counter[str] = Counter()
        self.seen = Seen()

    def counts(self, begin: float, until: float) -> None:
        """Requests that are due from ``begin`` on are counted; after ``until`` there are none."""
        self._counts_from, self._until = begin, until

    async def ask(self, due: float) -> None:
        """One request that should leave at ``due``."""
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        late_s = time.monotonic() - due
        left_s = self._client.deadline_s - late_s
        if due >= self._counts_from:
            self.seen.late.append(late_s)
        try:
            raw = await self._infer(request, timeout=max(0.0, left_s))
        except grpc.aio.AioRpcError as error:
            self._failed(error.code(), due)
            words = dict(error.trailing_metadata() or ())
            if self._client.callers and PUSHBACK_KEY in words:
                await asyncio.sleep(int(words[PUSHBACK_KEY]) / 1000)
            return
        took_s = time.monotonic() - due
        if due >= self._counts_from:
            self._codes["OK"] += 1
            self.seen.ok.append(took_s)
            self.seen.early += MARK in raw

    def _failed(self, code: grpc.StatusCode, due: float) -> None:
        if due < self._counts_from:
            return
        self._codes[code.name] += 1
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self.seen.refused.append(time.monotonic() - due)

    async def closed(self) -> None:
        """One caller, who asks again as soon as there is a reply."""
        while (now := time.monotonic()) < self._until:
            await self.ask(now)

    async def open(self, chance: np.random.Generator) -> None:
        """Requests at random moments, at the client's rate."""
        due, running = time.monotonic(), set[asyncio.Task[None]]()
        while due < self._until:
            due += chance.exponential(1 / self._client.rate_hz)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.ensure_future(self.ask(due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def close(self) -> None:
        """Let go of the connection."""
        self.seen.codes = dict(self._codes)
        await self._channel.close()

    async def ready(self) -> None:
        """Connected, and the model is there."""
        ready = self._channel.unary_unary(messages.path("ModelReady"))
        name = self._client.model
        await ready(messages.ModelReadyRequest(name=name).SerializeToString(), timeout=30)


def _channel(address: str, client: Client) -> Any:
    """A connection of the client's own."""
    if client.keys is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    authority, certificate, key = (Path(file).read_bytes() for file in client.keys)
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)


def _request(model: str, row: np.ndarray) -> bytes:
    """A request with one sample."""
    tensor = send("boundary", row)
    head = messages.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
    request = messages.ModelInferRequest(
        model_name=model, id="1", inputs=[head], raw_input_contents=[tensor.raw]
    )
    return request.SerializeToString()


async def load(wanted: Wanted) -> dict[str, Seen]:
    """What came of it, by the clients' names."""
    askers = [_Asker(wanted.address, client) for client in wanted.clients]
    await asyncio.gather(*(asker.ready() for asker in askers))
    began = time.monotonic()
    works: list[Any] = []
    for number, (asker, client) in enumerate(zip(askers, wanted.clients, strict=True)):
        asker.counts(began + wanted.warm_s, began + wanted.seconds)
        if client.rate_hz:
            works.append(asker.open(np.random.default_rng([wanted.seed, number])))
        works += [asker.closed() for _ in range(client.callers)]
    await asyncio.gather(*works)
    for asker in askers:
        await asker.close()
    return {c.name: a.seen for c, a in zip(wanted.clients, askers, strict=True)}


if __name__ == "__main__":
    found = asyncio.run(load(msgspec.json.decode(sys.argv[1], type=Wanted)))
    sys.stdout.buffer.write(msgspec.json.encode(found))
