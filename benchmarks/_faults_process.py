"""Promises of a server's life: it drains when it is stopped, and holds no more after long use."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter as Count
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import grpc
import numpy as np

from benchmarks._faults import MB, Callers, Row, Rows, Server, good_request, running, serving
from benchmarks._faults_nets import small_bundle
from presplit.bundle import Bundle
from presplit.runtime.wire import messages

EXIT_S = 10.0
"""A server that is stopped is gone after so long."""
SURELY_S = 0.005
"""A call that began so long before the signal was surely on its way."""
SLOPE_MB = 1.0
"""What a server may grow by in 10,000 requests."""


class _Probe:
    """Asks again and again whether a server is ready, and whether its port is open."""

    def __init__(self, server: Server) -> None:
        self._server, self._ended = server, threading.Event()
        self._threads = [threading.Thread(target=go) for go in (self._ready, self._port)]
        self.unready_at = self.closed_at = float("inf")

    def __enter__(self) -> _Probe:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ready(self) -> None:
        with grpc.insecure_channel(self._server.address) as channel:
            ask = channel.unary_unary(messages.path("ServerReady"))
            while not self._ended.wait(0.002):
                try:
                    reply = messages.ServerReadyResponse.FromString(ask(b"", timeout=1))
                except grpc.RpcError:
                    return
                if not reply.ready:
                    self.unready_at = min(self.unready_at, time.monotonic())

    def _port(self) -> None:
        while not self._ended.wait(0.002):
            try:
                socket.create_connection(("127.0.0.1", self._server.port), timeout=1).close()
            except OSError:
                self.closed_at = time.monotonic()
                return


def drained(quick: bool) -> Iterator[Row]:
    """Promise 22."""
    times = 10 if quick else 50
    with TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder) / "slow.bundle", slow=12)
        drains = [_drain(bundle) for _ in range(times)]
    inside = sum(drain.inside for drain in drains)
    lost = sum((drain.lost for drain in drains), Count())
    after = sum((drain.after for drain in drains), Count())
    slowest = max(drain.took_s for drain in drains)
    told = f"{inside} calls were inside, lost: {dict(lost) or 'none'}; begun later: {dict(after)}"
    allowed = set(after) <= {"OK", "UNAVAILABLE"}
    yield Row(
        22,
        f"SIGTERM under load {times} times: no call inside is lost",
        told,
        inside,
        not lost and allowed and inside > 0,
    )
    early = sum(drain.unready_first for drain in drains)
    yield Row(
        22,
        "it says that it is not ready before its port closes",
        f"{early} of {times}",
        times,
        early == times,
    )
    codes = Count(drain.code for drain in drains)
    said = f"{slowest:.1f} s at most, exit codes {dict(codes)}"
    yield Row(
        22,
        f"it is gone within {EXIT_S:.0f} s with exit code 0",
        said,
        times,
        slowest <= EXIT_S and set(codes) == {0},
    )


class _Drain(NamedTuple):
    """What one stop showed: ``lost`` and ``after`` count the statuses of calls."""

    inside: int
    lost: Count[str]
    after: Count[str]
    unready_first: bool
    took_s: float
    code: int


def _drain(bundle: Bundle) -> _Drain:
    """Stop a server with many callers."""
    with serving(bundle=bundle) as server:
        with Callers(server) as callers, _Probe(server) as probe:
            time.sleep(0.5)
            stopped = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(30)
            took = time.monotonic() - stopped
        inside = [c for c in callers.calls if c.began < stopped - SURELY_S and c.ended > stopped]
        lost = Count(call.status for call in inside if call.status != "OK")
        after = Count(call.status for call in callers.calls if call.began >= stopped)
        return _Drain(len(inside), lost, after, probe.unready_at < probe.closed_at, took, code)


def soaked(quick: bool) -> Iterator[Row]:
    """Promise 15."""
    with serving() as server:
        yield _soak(server, 20_000 if quick else 1_000_000, leaks=False)
    with TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder) / "small.bundle")
        words = ("benchmarks._faults_leaky", str(bundle.path))
        with running(*words, bundle=bundle) as server:
            yield _soak(server, 4_000 if quick else 20_000, leaks=True)


def _soak(server: Server, count: int, *, leaks: bool) -> Row:
    """So many requests, good, bad and given up, and how much more is held after each."""
    _mixed(server, count // 10)  # pools are filled, engines warm
    before, held = server.counters(), []
    steps = 40
    for _ in range(steps):
        _mixed(server, count // steps)
        held.append(server.counters().rss / MB)
    half = held[steps // 2 :]
    done = np.arange(len(half)) * (count / steps / 10_000)
    slope = float(np.polyfit(done, half, 1)[0])
    harm = server.harm() or server.left(before, within_s=5, rss_mb=10_000)
    said = f"{slope:+.2f} MB in 10,000 over the second half; {held[-1] - held[0]:+.1f} MB in all"
    if leaks:
        asked = "control: a server that leaks 1 kB with each request is caught"
        return Row(15, asked, said, count, slope > SLOPE_MB)
    asked = f"requests good, bad and given up: memory grows by <= {SLOPE_MB:g} MB in 10,000"
    return Row(
        15, asked, f"{said}; {harm}" if harm else said, count, slope <= SLOPE_MB and not harm
    )


def _mixed(server: Server, count: int) -> None:
    """Of ten requests eight are good, one is bad, one is given up; eight callers at once."""
    good = good_request(server.model).SerializeToString()
    infer = server.channel.unary_unary(messages.path("ModelInfer"))

    def go(number: int) -> None:
        for k in range(number, count, 8):
            if k % 10 == 9:
                infer.future(good, timeout=5).cancel()
                continue
            try:
                infer(good[:-1] if k % 10 == 5 else good, timeout=10)
            except grpc.RpcError:
                assert k % 10 == 5, "a good request is answered"

    threads = [threading.Thread(target=go, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


PARTS: dict[int, Rows] = {15: soaked, 22: drained}
