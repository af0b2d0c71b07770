"""Promises of the edge over links that fail, and before a proxy that mixes replies up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from benchmarks._faults import ONE_THREAD, Row, Rows, Server, serving
from benchmarks._faults_answers import BACK_S, IMAGES, asking, back, rights
from benchmarks._faults_edge import bundled
from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.wire import messages
from presplit.runtime.wire.client import Client

DEADLINE_S = 0.1
SPACE, NEAR, FAR = "presplit-faults", "10.231.77.1", "10.231.77.2"


class Wire:
    """A real link: a pair of virtual network cards, the server in a name space of its own."""

    def __init__(self, bundle: Bundle) -> None:
        for words in (
            ("ip", "netns", "add", SPACE),
            ("ip", "link", "add", "psf0", "type", "veth", "peer", "name", "psf1"),
            ("ip", "link", "set", "psf1", "netns", SPACE),
            ("ip", "addr", "add", f"{NEAR}/30", "dev", "psf0"),
            ("ip", "link", "set", "psf0", "up"),
            ("ip", "-n", SPACE, "addr", "add", f"{FAR}/30", "dev", "psf1"),
            ("ip", "-n", SPACE, "link", "set", "psf1", "up"),
            ("ip", "-n", SPACE, "link", "set", "lo", "up"),
        ):
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise OSError(done.stderr)
        serve = ("-m", "presplit", "serve", str(bundle.path), "--json", "--port", "0")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", SPACE, sys.executable, *serve, "--host", FAR, "--insecure"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, **ONE_THREAD},
        )
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["address"]

    def rate(self, bps: float) -> None:
        """So many bits a second, up and down."""
        words = ("root", "tbf", "rate", f"{bps:.0f}bit", "burst", "3200", "latency", "200ms")
        subprocess.run(("tc", "qdisc", "replace", "dev", "psf0", *words), check=True)
        subprocess.run(("tc", "-n", SPACE, "qdisc", "replace", "dev", "psf1", *words), check=True)

    def up(self, up: bool) -> None:
        """Plug it in or out, at the far end, so that the edge is not told."""
        words = ("ip", "-n", SPACE, "link", "set", "psf1", "up" if up else "down")
        subprocess.run(words, check=True)

    def close(self) -> None:
        """Take it all away."""
        self.process.kill()
        self.process.communicate()
        _take_away()


def _take_away() -> None:
    for words in (("ip", "netns", "del", SPACE), ("ip", "link", "del", "psf0")):
        subprocess.run(words, capture_output=True)


@contextlib.contextmanager
def wired(bundle: Bundle) -> Iterator[Wire | None]:
    """A link of name spaces, or None where that is not allowed."""
    _take_away()
    try:
        wire = Wire(bundle)
    except (OSError, ValueError):
        _take_away()
        yield None
        return
    try:
        yield wire
    finally:
        wire.close()


def _named(found: list[float]) -> str:
    if not found:
        return "never"
    return f"median {1000 * statistics.median(found):.0f} ms, most {1000 * max(found):.0f} ms"


def links(quick: bool) -> Iterator[Row]:
    """Promise 8: rates that fall, partitions, flapping, and connections that break oddly."""
    with bundled() as bundle:
        with wired(bundle) as wire:
            if wire is None:
                yield Row(8, "links of network name spaces", "not allowed here: skipped", 0, True)
            else:
                yield from _rates(wire, bundle, quick)
                yield from _partitions(wire, bundle, quick)
        yield from _odd(bundle, quick)


def _rates(wire: Wire, bundle: Bundle, quick: bool) -> Iterator[Row]:
    """Steps of the rate."""
    seconds = 1.5 if quick else 60.0
    with (
        Edge.open(bundle, server=wire.address, plan=Plan(1)) as edge,
        asking(edge, bundle, deadline_s=DEADLINE_S, rate=60) as record,
    ):
        back(record, 0.0)
        for bps in (100e6, 1e6, 0.05e6):
            wire.rate(bps)
            time.sleep(seconds)
        wire.rate(100e6)
        healed = time.monotonic()
        took_s = back(record, healed)
    yield record.row(8, "100, 1, 0.05 Mbit/s")
    yield Row(8, "used again 0.5 s after the rate is back", _named([took_s]), 1, took_s <= 5)


def _partitions(wire: Wire, bundle: Bundle, quick: bool) -> Iterator[Row]:
    """The link is gone for a while, and comes and goes."""
    down_s, flaps = (3.0, 2) if quick else (20.0, 60)
    backs = list[float]()
    with (
        Edge.open(bundle, server=wire.address, plan=Plan(1)) as edge,
        asking(edge, bundle, deadline_s=DEADLINE_S, rate=150) as record,
    ):
        back(record, 0.0)
        for pause_s in (down_s, *[0.5] * flaps):
            wire.up(False)
            time.sleep(pause_s)
            wire.up(True)
            healed = time.monotonic()
            backs.append(back(record, healed))
            time.sleep(max(0.0, healed + 0.5 - time.monotonic()))
    yield record.row(8, f"the link down for {down_s:g} s, then {flaps} times for 0.5 s")
    ok = statistics.median(backs) <= BACK_S and max(backs) <= 5
    yield Row(8, "used again within 0.5 s after a heal", _named(backs), len(backs), ok)


class Breaking:
    """A TCP proxy that breaks connections in odd ways; ``does`` says which, and may change."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.does = "pass"
        self._writers = set[asyncio.StreamWriter]()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        self.address = f"127.0.0.1:{started.result(5)}"

    async def _start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def be(self, does: str) -> None:
        """Do so from now on; what is to break breaks at once."""
        self.does = does
        self._loop.call_soon_threadsafe(self._break)

    def close(self) -> None:
        """Stop."""

        async def stop() -> None:
            self._server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _break(self) -> None:
        for writer in list(self._writers):
            if self.does == "reset":
                raw: Any = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            elif self.does == "half-close" and not writer.is_closing():
                with contextlib.suppress(OSError):
                    writer.write_eof()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, back=False),
                self._carry(far_reader, writer, back=True),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            far_writer.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool
    ) -> None:
        while piece := await reader.read(65536):
            if self.does == "reset":
                raise ConnectionResetError
            if back and self.does == "half-close":
                continue
            while back and self.does == "one byte a second" and piece:
                writer.write(piece[:1])
                piece = piece[1:]
                await asyncio.sleep(1.0)
            if piece:
                writer.write(piece)
                await writer.drain()
        writer.write_eof()


def _odd(bundle: Bundle, quick: bool) -> Iterator[Row]:
    """Resets, half-closed connections, replies byte by byte."""
    seconds = 1.5 if quick else 100.0
    with serving(bundle=bundle) as server:
        proxy = Breaking(server.address)
        for does in ("reset", "half-close", "one byte a second"):
            with (
                Edge.open(bundle, server=proxy.address, plan=Plan(1)) as edge,
                asking(edge, bundle, deadline_s=DEADLINE_S, rate=100) as record,
            ):
                back(record, 0.0)
                proxy.be(does)
                time.sleep(seconds)
                proxy.be("pass")
                took_s = back(record, time.monotonic())
            yield record.row(8, does)
            yield Row(8, f"used again after: {does}", _named([took_s]), 1, took_s <= 5)
        proxy.close()


class Mixing:
    """A gRPC proxy that delays, swaps and repeats replies; it counts what it does."""

    def __init__(self, server: Server, *, delay_s: float, share: float) -> None:
        self._server, self._delay_s, self._share = server, delay_s, share
        self._random, self._lock = np.random.default_rng(9), threading.Lock()
        self._earlier = b""
        self.did = Counter[str]()
        method = grpc.unary_unary_rpc_method_handler
        self._service = grpc.server(ThreadPoolExecutor(32))
        calls = {"ModelInfer": method(self._infer), "ModelReady": method(self._ready)}
        handlers = grpc.method_handlers_generic_handler(messages.SERVICE, calls)
        self._service.add_generic_rpc_handlers([handlers])
        self.address = f"127.0.0.1:{self._service.add_insecure_port('127.0.0.1:0')}"
        self._asks = server.channel.unary_unary(messages.path("ModelInfer"))
        self._service.start()

    def stop(self) -> None:
        """Let go of the port."""
        self._service.stop(0).wait()

    def _infer(self, raw: bytes, context: Any) -> bytes:
        reply = self._asks(raw, timeout=5)
        with self._lock:
            earlier, self._earlier = self._earlier, reply
            does = self._random.choice(["pass", "late", "another's", "twice"], p=self._odds())
            if not earlier and does in ("another's", "twice"):
                does = "pass"
            self.did[does] += 1
        if does == "late":
            time.sleep(self._delay_s)
        if does == "another's":
            return earlier  # the reply to the request before: swapped, or an old one once more
        if does == "twice":
            return reply + reply  # protobuf takes the last of each field, and both of a list
        return reply

    def _odds(self) -> list[float]:
        return [1 - self._share, self._share / 3, self._share / 3, self._share / 3]

    def _ready(self, raw: bytes, context: Any) -> bytes:
        return messages.ModelReadyResponse(ready=True).SerializeToString()


def mixed(quick: bool) -> Iterator[Row]:
    """Promise 9: late, swapped, repeated replies."""
    calls, deadline_s = (1000 if quick else 10_000), 0.06
    with serving() as server:
        proxy = Mixing(server, delay_s=0.2, share=0.15)
        client = Client(proxy.address, patience_s=2.0)  # without a guard, so that each is sent
        right, record = rights(server.bundle), list[tuple[int, Any]]()
        with Edge.open(server.bundle, upstream=client, plan=Plan(1)) as edge:
            until = time.monotonic() + 5
            while edge.answer(IMAGES[0], deadline_s=1.0).why != "server":
                assert time.monotonic() < until, "the proxy does not answer"
            proxy.did.clear()

            def ask(number: int) -> None:
                image = number % len(IMAGES)
                record.append((image, edge.answer(IMAGES[image], deadline_s=deadline_s)))

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(ask, range(calls)))
        client.close()
        proxy.stop()
    wrong = sum(
        not np.allclose(answer.scores, right[answer.exit][image], rtol=1e-4, atol=1e-4)
        for image, answer in record
    )
    whys = Counter(answer.why for _, answer in record)
    swapped = proxy.did["another's"]
    mix = f"{proxy.did['late']} late, {swapped} swapped, {proxy.did['twice']} doubled"
    yield Row(9, f"no answer is another request's ({mix})", f"{wrong} wrong", calls, wrong == 0)
    injected = proxy.did["another's"] + proxy.did["twice"]
    seen = f"{whys['bad_reply']} of {injected}"
    ok = 0 <= injected - whys["bad_reply"] <= max(2, 0.02 * calls)
    yield Row(9, "wrong replies are counted and ignored", seen, injected, ok)
    seen = f"{whys['late']} of {proxy.did['late']}"
    ok = 0 <= whys["late"] - proxy.did["late"] <= max(2, 0.02 * calls)
    yield Row(9, "late replies are counted and ignored", seen, proxy.did["late"], ok)


PARTS: dict[int, Rows] = {8: links, 9: mixed}
