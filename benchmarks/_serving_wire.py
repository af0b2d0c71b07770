"""The wire beside bare gRPC and beside other servers: one caller's latency, many callers' rate.

All servers are processes of their own and do the same: take bytes, give ten zeros.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._serving import Asked, Found, in_turns, median_ms, ratio
from benchmarks._serving_peers import BLOCK
from presplit.core.errors import ServerError
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.wire.client import Client

SIZES = {"1 KB": 1024, "100 KB": 100 * 1024}
CALLERS = 16
PATIENCE_S = 10.0
ENDING_S = 30.0
STARTING_S = 120.0
"""Ray takes long to start."""
HTTP_PEERS = ("FastAPI", "LitServe", "BentoML", "Ray Serve")
FILE = Path(__file__).with_name("_serving_peers.py")

Call = Callable[[], bytes]


@contextlib.contextmanager
def serving(kind: str, python: str = "") -> Generator[int]:
    """The port of a server of ``kind`` in a process of its own; raises `ServerError`."""
    process = subprocess.Popen(
        [python or sys.executable, str(FILE), kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield _port(process, kind)
    finally:
        # Some of the peers have processes of their own, in the same session.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _port(process: subprocess.Popen[str], kind: str) -> int:
    """The first line that is a number."""
    assert process.stdout is not None
    until = time.monotonic() + STARTING_S
    while time.monotonic() < until:
        if select.select([process.stdout], [], [], 1.0)[0]:
            line = process.stdout.readline()
            if line.strip().isdigit():
                return int(line)
            if not line:
                break
    raise ServerError(f"{kind} does not start; is it installed there?")


@contextlib.contextmanager
def asking(port: int, nbytes: int, *, lane: bool) -> Generator[Callable[[], Call]]:
    """Makes callers of presplit's server, which all share one client."""
    request = Request("no-op", np.zeros((nbytes // BLOCK, BLOCK), np.int8), 10)
    client = Client(f"127.0.0.1:{port}", patience_s=PATIENCE_S, lane=lane)
    client.greet(request.model)
    time.sleep(0.5)  # until the lane is open

    def call() -> bytes:
        until = time.monotonic() + PATIENCE_S
        asked = client.ask(request, until)
        reply = asked if isinstance(asked, Failure) else asked.wait(until)
        if isinstance(reply, Failure):
            raise ServerError(f"no reply: {reply}")
        assert isinstance(reply, np.ndarray)
        return reply.tobytes()

    try:
        yield lambda: call
    finally:
        client.close()


@contextlib.contextmanager
def bare(port: int, nbytes: int, method: str) -> Generator[Callable[[], Call]]:
    """Makes callers of a bare unary call."""
    body = bytes(nbytes)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer: Any = channel.unary_unary(f"/bare/{method}")
        yield lambda: lambda: infer(body, timeout=PATIENCE_S)


@contextlib.contextmanager
def posting(port: int, nbytes: int) -> Generator[Callable[[], Call]]:
    """Makes callers of HTTP, each with a connection of its own and as little work as can be."""
    head = (
        f"POST /infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: "
        f"application/octet-stream\r\nContent-Length: {nbytes}\r\n\r\n"
    )
    message = head.encode() + bytes(nbytes)
    with contextlib.ExitStack() as closing:

        def opened() -> socket.socket:
            connection = closing.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(PATIENCE_S)
            return connection

        def caller() -> Call:
            connection = opened()

            def call() -> bytes:
                nonlocal connection
                try:
                    return _posted(connection, message)
                except OSError:  # it was idle for too long while others had their turn
                    connection = opened()
                    return _posted(connection, message)

            return call

        yield caller


def _posted(connection: socket.socket, message: bytes) -> bytes:
    """The body of the reply to ``message``."""
    connection.sendall(message)
    got = b""
    while b"\r\n\r\n" not in got:
        got += _received(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        raise ServerError(f"no reply: {head[:60]!r}")
    while len(body) < 40:
        body += _received(connection)
    return body


def _received(connection: socket.socket) -> bytes:
    got = connection.recv(65536)
    if not got:
        raise ConnectionResetError("the peer closed the connection")
    return got


def latency(asked: Asked) -> Found:
    """One caller: a round trip through client and server beside a bare unary echo."""
    found, rounds = Found(), 20 if asked.quick else 150
    with serving("bare gRPC") as echo, serving("presplit") as port:
        for size, nbytes in SIZES.items():
            with (
                bare(echo, nbytes, "Echo") as echoing,
                bare(echo, nbytes, "Zeros") as zeros,
                asking(port, nbytes, lane=False) as unary,
                asking(port, nbytes, lane=True) as lane,
            ):
                works = {
                    "bare unary gRPC, the bytes back": echoing(),
                    "bare unary gRPC, ten zeros back": zeros(),
                    "presplit, unary gRPC": unary(),
                    "presplit, lane": lane(),
                }
                assert len({work() for work in list(works.values())[1:]}) == 1
                took = in_turns(works, rounds=rounds)
            _latencies(found, size, took)
    return found


def _latencies(found: Found, size: str, took: dict[str, list[list[float]]]) -> None:
    """Rows and checks for one size."""
    base, *others = took
    for who in took:
        middle, low, high = ratio(took[who], took[base])
        spread = f"{low:.2f}..{high:.2f}"
        found.row("latency", size, who, ms=median_ms(took[who]), ratio=middle, spread=spread)
    for who, goal in zip(others[1:], (1.2, 0.5), strict=True):
        middle, _, _ = ratio(took[who], took[base])
        found.check(f"{who} over a bare echo, {size}", middle, goal, at_most=True)


def throughput(asked: Asked) -> Found:
    """Sixteen callers of one process, 100 KB each: ours, bare gRPC and HTTP servers in turns."""
    found, nbytes = Found(), SIZES["100 KB"]
    slice_s, rounds = (0.4, 2) if asked.quick else (1.5, 5)
    with contextlib.ExitStack() as closing:
        callers: dict[str, list[Call]] = {}
        for who, made in _contestants(asked, nbytes, found):
            with contextlib.suppress(ServerError, OSError):
                make = closing.enter_context(made)
                there = [make() for _ in range(CALLERS)]
                assert there[0]() == bytes(40)
                callers[who] = there
                continue
            found.row("throughput", "100 KB", who, why="is not installed or does not start")
        seen: dict[str, list[tuple[float, float]]] = {who: [] for who in callers}
        for _ in range(rounds):
            for who in random.Random(rounds).sample(list(callers), len(callers)):
                if who in seen:
                    rate = _rate(callers[who], slice_s)
                    if isinstance(rate, str):
                        found.row("throughput", "100 KB", who, why=rate)
                        del seen[who]
                    else:
                        seen[who].append(rate)
    _rates(found, seen, asked)
    return found


def _contestants(asked: Asked, nbytes: int, found: Found) -> Iterator[tuple[str, Any]]:
    """Who takes part, and what makes its callers."""

    @contextlib.contextmanager
    def ours(*, lane: bool) -> Generator[Callable[[], Call]]:
        with serving("presplit") as port, asking(port, nbytes, lane=lane) as make:
            yield make

    @contextlib.contextmanager
    def grpc_() -> Generator[Callable[[], Call]]:
        with serving("bare gRPC") as port, bare(port, nbytes, "Zeros") as make:
            yield make

    @contextlib.contextmanager
    def http(kind: str) -> Generator[Callable[[], Call]]:
        with serving(kind, asked.peers_python) as port, posting(port, nbytes) as make:
            yield make

    yield "presplit, lane", ours(lane=True)
    yield "presplit, unary gRPC", ours(lane=False)
    yield "bare unary gRPC", grpc_()
    for kind in HTTP_PEERS:
        yield kind, http(kind)


def _rate(callers: list[Call], seconds: float) -> tuple[float, float] | str:
    """Requests a second of all ``callers`` at once, and the 99th percentile in milliseconds.

    Why not, if one of them failed.
    """
    times: list[list[float]] = [[] for _ in callers]
    failures: list[str] = []
    until = time.monotonic() + seconds

    def call_on(call: Call, took: list[float]) -> None:
        try:
            call()  # what warms up does not count
            while time.monotonic() < until:
                began = time.perf_counter()
                call()
                took.append(time.perf_counter() - began)
        except (OSError, ServerError, grpc.RpcError) as error:
            failures.append(f"failed: {error}")

    threads = [
        threading.Thread(target=call_on, args=pair) for pair in zip(callers, times, strict=True)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - began
    if failures:
        return failures[0]
    flat = sorted(one for each in times for one in each)
    return len(flat) / took_s, 1e3 * flat[int(0.99 * len(flat))]


def _rates(found: Found, seen: dict[str, list[tuple[float, float]]], asked: Asked) -> None:
    """Rows and checks of what was ``seen``; a peer that was not passes only where it is quick."""
    best = "presplit, lane"
    rates = {who: [rate for rate, _ in each] for who, each in seen.items()}
    late = {who: statistics.median(p99 for _, p99 in each) for who, each in seen.items()}
    for who, each in rates.items():
        times = statistics.median(one / other for one, other in zip(rates[best], each, strict=True))
        found.row(
            "throughput",
            "100 KB",
            who,
            requests_per_s=statistics.median(each),
            p99_ms=late[who],
            ours_over_it=times,
            spread=f"{min(each):.0f}..{max(each):.0f}",
        )
        if who in HTTP_PEERS:
            found.check(f"requests a second over {who}", times, _goal(who))
            found.check(f"p99 over {who}", late[best] / late[who], 1.0, at_most=True)
    for who in HTTP_PEERS:
        if who not in rates and not asked.quick:
            found.unmeasured(f"requests a second over {who}", f">= {_goal(who):g}")
            found.unmeasured(f"p99 over {who}", "<= 1")
    for who in ("presplit, lane", "presplit, unary gRPC"):
        found.check(f"requests a second, {who}", statistics.median(rates[who]), 1200)


def _goal(who: str) -> float:
    """So many times as many requests a second as this peer answers."""
    return 2.0 if who == "Ray Serve" else 1.0


PARTS = {"latency": latency, "throughput": throughput}
