"""Promises of the edge: a server killed or hung, no retry storm, and a device that slows down."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._faults import ONE_THREAD, Row, Rows
from benchmarks._faults_answers import BACK_S, IMAGES, Record, asking, back, until
from benchmarks._faults_nets import small_bundle
from presplit.bundle import Bundle
from presplit.core.plans import Conditions, Plan, PlanTable
from presplit.core.plans import Row as PlanRow
from presplit.lab.processes import free_port
from presplit.lab.slow_device import Slowed
from presplit.runtime import Edge
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import InProcess
from presplit.runtime.wire import messages

DEADLINE_S = 0.1
EDGES = 20


@contextlib.contextmanager
def bundled(*, slow: int = 0) -> Iterator[Bundle]:
    """A small bundle, gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        yield small_bundle(Path(folder) / "small.bundle", slow=slow)


class Again:
    """A server that is killed and started again at the same address."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self.port = bundle, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.process: Any = None

    def start(self) -> float:
        """Start it; the moment at which it says that it is ready."""
        words = ("presplit", "serve", str(self._bundle.path), "--json", "--port", str(self.port))
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
        )
        self.process.stdout.readline()
        return time.monotonic()

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.communicate()


def _times(found: list[float]) -> str:
    """The median and the most, in milliseconds."""
    return f"median {1000 * statistics.median(found):.0f} ms, most {1000 * max(found):.0f} ms"


def killed(quick: bool) -> Iterator[Row]:
    """Promise 6: kill -9 under load, again and again."""
    random, kills = np.random.default_rng(6), 6 if quick else 100
    with bundled() as bundle:
        server = Again(bundle)
        server.start()
        backs = list[float]()
        with (
            Edge.open(bundle, server=server.address, plan=Plan(1)) as edge,
            asking(edge, bundle, deadline_s=DEADLINE_S, rate=100, threads=2) as record,
        ):
            back(record, 0.0)
            for _ in range(kills):
                time.sleep(random.uniform(0.05, 0.3))
                server.kill()
                ready = server.start()
                backs.append(back(record, ready))
        server.kill()
    yield record.row(6, f"{kills} kills under load")
    ok = statistics.median(backs) <= BACK_S and max(backs) <= 5
    yield Row(6, "the server is used again 0.5 s after a restart", _times(backs), kills, ok)


def hung(quick: bool) -> Iterator[Row]:
    """Promise 7: a server that hangs."""
    times, seconds = (3, 2.5) if quick else (5, 30.0)
    waited, probed = list[int](), list[int]()
    took, backs = list[float](), list[float]()
    with bundled() as bundle:
        server = Again(bundle)
        server.start()
        with (
            Edge.open(bundle, server=server.address, plan=Plan(1)) as edge,
            asking(edge, bundle, deadline_s=DEADLINE_S, rate=100) as record,
        ):
            back(record, 0.0)
            spans = list[tuple[float, float]]()
            for _ in range(times):
                time.sleep(0.3)
                probes = edge.counts.get("probes", 0)
                server.process.send_signal(signal.SIGSTOP)
                stopped = time.monotonic()
                time.sleep(seconds)
                probed.append(edge.counts.get("probes", 0) - probes)
                server.process.send_signal(signal.SIGCONT)
                spans.append((stopped, time.monotonic()))
                backs.append(back(record, spans[-1][1]))
        server.kill()
    for stopped, healed in spans:
        during = [one for one in record.told if stopped <= one.began < healed]
        during = [one.took_s for one in during if not record.paused(one)]
        waited.append(sum(seconds > DEADLINE_S / 2 for seconds in during))
        took += [seconds for seconds in during if seconds <= DEADLINE_S / 2]
    yield record.row(7, f"a server stopped {times} times for {seconds:g} s")
    seen, ok = f"{max(waited)} waited", max(waited) <= 5
    yield Row(7, "at most 5 answers wait for it", seen, times, ok)
    p99_s = sorted(took)[int(0.99 * len(took))]
    seen = f"p99 {1000 * p99_s:.1f} ms"
    asked = "then answers take what the device takes: p99 <= 20 ms"
    yield Row(7, asked, seen, len(took), p99_s <= 0.02)
    seen, ok = f"{max(probed)} in {seconds:g} s", max(probed) <= seconds + 1
    yield Row(7, "at most one probe a second", seen, times, ok)
    yield Row(
        7, "used again within 0.5 s", _times(backs), times, statistics.median(backs) <= BACK_S
    )


class Unavailable:
    """A real gRPC server that says UNAVAILABLE to every request until it is healed."""

    def __init__(self) -> None:
        self.healed = False
        self.asked = list[float]()
        method = grpc.unary_unary_rpc_method_handler
        calls = {"ModelInfer": method(self._infer), "ModelReady": method(self._ready)}
        self._service = grpc.server(ThreadPoolExecutor(8))
        handlers = grpc.method_handlers_generic_handler(messages.SERVICE, calls)
        self._service.add_generic_rpc_handlers([handlers])
        self.address = f"127.0.0.1:{self._service.add_insecure_port('127.0.0.1:0')}"
        self._service.start()

    def stop(self) -> None:
        """Let go of the port."""
        self._service.stop(0).wait()

    def _infer(self, raw: bytes, context: Any) -> bytes:
        self.asked.append(time.monotonic())
        if not self.healed:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        request = messages.ModelInferRequest.FromString(raw)
        logits = np.zeros((1, 10), np.float32)
        output = messages.ModelInferResponse.InferOutputTensor(
            name="logits", datatype="FP32", shape=logits.shape
        )
        return messages.ModelInferResponse(
            model_name=request.model_name,
            id=request.id,
            outputs=[output],
            raw_output_contents=[logits.tobytes()],
        ).SerializeToString()

    def _ready(self, raw: bytes, context: Any) -> bytes:
        return messages.ModelReadyResponse(ready=True).SerializeToString()


def storm(quick: bool) -> Iterator[Row]:
    """Promise 17: many edges before a server that fails, and its return."""
    seconds, rate = (4.0, 10.0) if quick else (30.0, 20.0)
    server, offered, ended = Unavailable(), list[float](), threading.Event()
    with bundled() as bundle, contextlib.ExitStack() as stack:
        edges = [
            stack.enter_context(Edge.open(bundle, server=server.address, plan=Plan(1)))
            for _ in range(EDGES)
        ]

        def ask(number: int) -> None:
            pause = np.random.default_rng(number)
            while not ended.wait(pause.uniform(0.5, 1.5) / rate):
                offered.append(time.monotonic())
                edges[number].answer(IMAGES[0], deadline_s=DEADLINE_S)

        workers = [threading.Thread(target=ask, args=(n,)) for n in range(EDGES)]
        for worker in workers:
            worker.start()
        time.sleep(seconds)
        server.healed, healed = True, time.monotonic()
        time.sleep(max(3.0, seconds / 2))
        ended.set()
        for worker in workers:
            worker.join()
    server.stop()
    asked = sum(at < healed for at in server.asked)
    given = sum(at < healed for at in offered)
    seen = f"{asked} requests for {given} answers, {asked / given:.2f}x"
    yield Row(
        17,
        f"{EDGES} edges before a server that always fails send <= 1.1x",
        seen,
        given,
        asked <= 1.1 * given,
    )
    bins = np.histogram(
        [at for at in server.asked if at >= healed], np.arange(healed, server.asked[-1], 0.5)
    )[0]
    usual = 0.5 * EDGES * rate
    seen = (
        f"{bins.max(initial=0) / usual:.2f}x of what is offered, {bins[-1] / usual:.2f}x at the end"
    )
    ok = bins.max(initial=0) <= 1.5 * usual and bins[-1] >= 0.5 * usual
    yield Row(
        17, "when it is back, no peak of half a second above 1.5x", seen, int(bins.sum()), bool(ok)
    )


def slowed(quick: bool) -> Iterator[Row]:
    """Promise 21: a device that becomes four times as slow, and a table that knows another way."""
    seconds = 4.0 if quick else 300.0
    with bundled(slow=12) as bundle:
        last, hosted = bundle.net.last, hosting(bundle)
        with Edge(bundle, Plan(last)) as alone:
            took = [alone.answer(IMAGES[0], deadline_s=5.0).elapsed_s for _ in range(30)]
        whole_s = statistics.median(took)
        deadline_s = max(0.03, 8 * whole_s)
        here = PlanRow(Plan(last, {"middle": 2.0}), whole_s, 0.0, 0.0, 0.0, 0.9)
        away = PlanRow(Plan(1), 0.0, 1.0, 400.0, whole_s, 0.9, ask_s=1.5 * whole_s)
        table = PlanTable((here, away), usual=Conditions(1e9, 0.0001))
        device = Slowed(1)
        with (
            Edge(bundle, table, upstream=InProcess(hosted), load=device) as edge,
            asking(edge, bundle, deadline_s=deadline_s, rate=40) as record,
        ):
            time.sleep(1.0)
            device.factor, at = 6, time.monotonic()
            until(lambda: record.told[-1].answer.row == 1, 5.0)
            replanned = sum(one.began >= at for one in record.told)
            moved_s = time.monotonic() - at
            time.sleep(seconds)
        hosted.close()
    yield record.row(21, "a device six times as slow")
    seen = f"after {replanned} answers, {moved_s:.2f} s"
    ok = record.told[-1].answer is not None and (replanned <= 20 or moved_s <= 2)
    yield Row(21, "another row is taken within 20 answers or 2 s", seen, replanned, ok)
    yield Row(21, "at most one change of row in 2 s", *_changes(record, at, seconds))


def _changes(record: Record, at: float, seconds: float) -> tuple[str, int, bool]:
    """How often the row changed afterwards."""
    rows = [one.answer.row for one in record.told if one.began >= at and one.answer is not None]
    changes = sum(one != other for one, other in zip(rows, rows[1:], strict=False))
    return f"{changes} in {seconds:.0f} s", len(rows), changes <= 1 + seconds / 2


PARTS: dict[int, Rows] = {6: killed, 7: hung, 17: storm, 21: slowed}
