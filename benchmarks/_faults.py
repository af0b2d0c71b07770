"""What the rows of ``faults`` share: a real server, what it must be after each bad case, a row."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil

from benchmarks._faults_nets import BOUNDARY, small_bundle
from presplit.bundle import Bundle
from presplit.core.errors import ServerError
from presplit.runtime.engines import ENGINES
from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import send

MB = 2**20
VALUES = np.random.default_rng(7).random((1, BOUNDARY), dtype=np.float32)
"""What every good request holds."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Row:
    """What was promised, what was asked of it and what was seen, in ``n`` tries."""

    promise: int
    asked: str
    seen: str
    n: int
    ok: bool


Rows = Callable[[bool], Iterator[Row]]
"""The rows of one promise; told whether to be quick."""


class Counters(NamedTuple):
    """What a process holds."""

    rss: int
    fds: int
    threads: int


class Server:
    """A ``presplit serve`` in a process of its own, and how to ask it by bare gRPC."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        said: dict[str, Any],
        bundle: Bundle,
        log: Path,
        keys: Path | None,
    ) -> None:
        address: str = said["address"]
        self.said = said
        self.process, self.address, self.bundle, self._log = process, address, bundle, log
        self.model = bundle.manifest.model_name(1, "float32")
        self.port = int(address.rpartition(":")[2])
        self._seen = psutil.Process(process.pid)
        self.keys = keys
        self.channel = channel(address, keys)
        self.golden = golden(bundle)

    def call(self, method: str, request: Any, timeout: float = 5.0) -> Any:
        """The reply to a message; raises `grpc.RpcError`."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        reply = self.channel.unary_unary(messages.path(method))(raw, timeout=timeout)
        return getattr(messages, f"{method}Response").FromString(reply)

    def counters(self) -> Counters:
        """What the process holds now."""
        with self._seen.oneshot():
            return Counters(
                self._seen.memory_info().rss, self._seen.num_fds(), self._seen.num_threads()
            )

    def log(self) -> str:
        """What it wrote to its standard error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def harm(self) -> str:
        """What is wrong with it; nothing, if it lives, is ready, and answers as it always did."""
        try:
            if not self.call("ServerLive", messages.ServerLiveRequest()).live:
                return "not live"
            if not self.call("ServerReady", messages.ServerReadyRequest()).ready:
                return "not ready"
            reply = self.call("ModelInfer", good_request(self.model))
        except grpc.RpcError as error:
            return f"a good request fails: {error.code().name}"
        if reply.raw_output_contents[0] != self.golden:
            return "a good request gets other logits"
        return ""

    def left(self, before: Counters, *, within_s: float, rss_mb: float = 32) -> str:
        """What it still holds too much of after ``within_s`` seconds; nothing, if all is as before.

        Threads of pools may come and stay; a few connections of other checks may be open.
        """
        until = time.monotonic() + within_s
        while True:
            now = self.counters()
            over = [
                f"{now.fds - before.fds} descriptors" if now.fds > before.fds + 8 else "",
                f"{now.threads - before.threads} threads"
                if now.threads > before.threads + 8
                else "",
                f"{(now.rss - before.rss) / MB:.0f} MB"
                if now.rss > before.rss + rss_mb * MB
                else "",
            ]
            text = ", ".join(word for word in over if word)
            if not text or time.monotonic() > until:
                return text and f"{text} more than before"
            time.sleep(0.1)


@contextlib.contextmanager
def serving(
    *options: str, bundle: Bundle | None = None, keys: Path | None = None
) -> Iterator[Server]:
    """A server of ``bundle`` (a small one, if None), killed at the end.

    With ``keys``, a folder that `make_keys` made, it admits only who has a certificate.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = bundle or small_bundle(Path(folder) / "small.bundle")
        files = {"tls-cert": "server.pem", "tls-key": "server.key", "tls-ca": "ca.pem"}
        files["allow"] = "allowed.txt"
        secure = [] if keys is None else [f"--{key}={keys / name}" for key, name in files.items()]
        words = ("presplit", "serve", str(found.path), *options, *secure)
        with running(*words, bundle=found, keys=keys) as server:
            yield server


@contextlib.contextmanager
def running(*words: str, bundle: Bundle, keys: Path | None = None) -> Iterator[Server]:
    """``python -m WORDS --port 0 --json``, which serves ``bundle`` and says so, as a server."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *words, "--port", "0", "--json"],
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                env={**os.environ, **ONE_THREAD},
            )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ServerError(f"the server ended: {log.read_text()[-500:]}")
            server = Server(process, json.loads(line), bundle, log, keys)
            try:
                yield server
            finally:
                server.channel.close()
        finally:
            process.kill()
            process.communicate()


def make_keys(folder: Path) -> Path:
    """An authority, a server's certificate for this machine, and one for the edge ``kitchen``."""
    words = ("keys", str(folder), "--server", "127.0.0.1", "--edge", "kitchen")
    subprocess.run([sys.executable, "-m", "presplit", *words], check=True, capture_output=True)
    return folder


def channel(address: str, keys: Path | None) -> grpc.Channel:
    """A bare channel of gRPC, as the edge ``kitchen`` where there are ``keys``."""
    if keys is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, credentials(keys))


def credentials(keys: Path) -> grpc.ChannelCredentials:
    """Those of the edge ``kitchen``."""
    names = ("ca.pem", "edge-kitchen.key", "edge-kitchen.pem")
    return grpc.ssl_channel_credentials(*((keys / name).read_bytes() for name in names))


def golden(bundle: Bundle) -> bytes:
    """The logits of the good request, computed here."""
    tail = bundle.runnable(1, bundle.net.last)
    last = tail.logits[bundle.net.exits[-1].name]
    return ENGINES["onnxruntime"](tail, 1).run({tail.input: VALUES})[last].tobytes()


def good_request(model: str, *, id: str = "good") -> Any:
    """A request that must be answered."""
    tensor = send("boundary", VALUES)
    head = messages.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
    return messages.ModelInferRequest(
        model_name=model, id=id, inputs=[head], raw_input_contents=[tensor.raw]
    )


@dataclass(frozen=True)
class Seen:
    """What a good client saw: how often it was answered, and its 99th percentile in seconds.

    ``refused_p99_s`` is that of refusals; it sent for ``seconds``.
    """

    n: int
    answered: int
    wrong: int
    p99_s: float
    refused_p99_s: float
    seconds: float
    statuses: dict[str, int]

    @property
    def share(self) -> float:
        """Of all requests, those that were answered rightly."""
        return (self.answered - self.wrong) / max(self.n, 1)

    @property
    def per_s(self) -> float:
        """Right answers a second."""
        return (self.answered - self.wrong) / self.seconds

    def __str__(self) -> str:
        said = f"{self.answered} of {self.n} answered, p99 {1000 * self.p99_s:.1f} ms"
        others = {name: count for name, count in self.statuses.items() if name != "OK"}
        return f"{said}, {others}" if others else said


class Good:
    """A good client in a process of its own: see `good_client`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seen(self) -> Seen:
        """End it; what it saw."""
        out, _ = self._process.communicate("")
        return Seen(**json.loads(out.splitlines()[-1]))


@contextlib.contextmanager
def good_client(server: Server, *, rate: float = 50, deadline_s: float = 2.0) -> Iterator[Good]:
    """A client that sends so many good requests a second until it is asked what it saw."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks._faults_good", server.address, server.model),
            *(str(rate), str(deadline_s), server.golden.hex(), str(server.keys or "")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **ONE_THREAD},
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # its first request was answered
        yield Good(process)
    finally:
        process.kill()
        process.communicate()


def undisturbed(server: Server, seconds: float) -> Seen:
    """What a good client sees when nobody else is there."""
    with good_client(server) as good:
        time.sleep(seconds)
        return good.seen()


class Call(NamedTuple):
    """When a call began and ended, and how."""

    began: float
    ended: float
    status: str


class Callers:
    """So many callers, each with one call after the other, until they are told to stop."""

    def __init__(self, server: Server, count: int = 16) -> None:
        self.calls: list[Call] = []
        self._server, self._ended = server, threading.Event()
        self._raw = good_request(server.model).SerializeToString()
        self._threads = [threading.Thread(target=self._go) for _ in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _go(self) -> None:
        infer = self._server.channel.unary_unary(messages.path("ModelInfer"))
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                infer(self._raw, timeout=10)
                status = "OK"
            except grpc.RpcError as error:
                status = error.code().name
            self.calls.append(Call(began, time.monotonic(), status))
            if status != "OK":
                time.sleep(0.01)


SLACK_S = 0.1
"""What a busy machine may stall for, which is not held against a server."""


def steady(seen: Seen, before: Seen, *, share: float = 0.99) -> bool:
    """Whether a good client was served through a fault as it was before."""
    slowest = max(2 * before.p99_s, before.p99_s + SLACK_S)
    return seen.wrong == 0 and seen.share >= share and seen.p99_s <= slowest
