"""A server as a process: what it hosts, how it changes while it runs, and how it ends."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.types import Runnable
from presplit.lab.processes import end, start
from presplit.runtime.engines import ENGINES, Arrays, Stop
from presplit.runtime.serving import process
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.process import Started
from presplit.runtime.serving.served import Served
from presplit.runtime.serving.server import serve
from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import send


@dataclass
class Running:
    """A server's process, what it said when it was ready, and what it logged."""

    process: subprocess.Popen[str]
    said: dict[str, Any] = field(default_factory=dict)
    logged: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.process.stdout is not None and self.process.stderr is not None
        threading.Thread(target=self._read, daemon=True).start()
        line = self.process.stdout.readline()
        assert line, self.logged
        self.said = json.loads(line)

    @property
    def address(self) -> str:
        return self.said["address"]

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.logged.append(json.loads(line))

    def until(self, event: str) -> dict[str, Any]:
        """The first line of the log about ``event`` that has not been seen."""
        for _ in range(500):
            for number, line in enumerate(self.logged):
                if line["event"] == event:
                    return self.logged.pop(number)
            time.sleep(0.01)
        raise AssertionError(f"no {event} in {self.logged}")


def serving(*words: str) -> Running:
    return Running(start("presplit", "serve", *words, "--port", "0", "--json", "--log", "json"))


@pytest.fixture(scope="module")
def folder(bundle: Bundle, other_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    shutil.copytree(bundle.path, path / "one.bundle")
    shutil.copytree(other_bundle.path, path / "damaged.bundle")
    (path / "damaged.bundle" / "segment-00.onnx").write_bytes(b"")
    return path


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    found = serving(str(folder), "--watch", "0")
    try:
        yield found
    finally:
        end(found.process)


def call(channel: grpc.Channel, name: str, request: Any, kind: Any, path: str = "") -> Any:
    asked = channel.unary_unary(
        path or messages.path(name),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kind.FromString,
    )
    return asked(request, timeout=5)


def health(channel: grpc.Channel, service: str = "") -> int:
    request = messages.HealthCheckRequest(service=service)
    path = f"/{messages.HEALTH_SERVICE}/Check"
    return call(channel, "", request, messages.HealthCheckResponse, path).status


def request(bundle: Bundle) -> bytes:
    """A good request to the tail from boundary 1."""
    tensor = send("boundary", np.ones((1, 12), np.float32))
    one = messages.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
    return messages.ModelInferRequest(
        model_name=bundle.manifest.model_name(1, "float32"),
        inputs=[one],
        raw_input_contents=[tensor.raw],
    ).SerializeToString()


def test_it_says_what_it_hosts_and_what_is_damaged(
    running: Running, folder: Path, bundle: Bundle
) -> None:
    name = bundle.manifest.model_name(2, "int8")
    assert running.said["models"][name] == str(folder / "one.bundle")
    [problem] = running.said["broken"].values()
    assert "segment-00.onnx: damaged" in problem
    line = running.until("bundle_broken")
    assert (line["level"], line["path"]) == ("warning", str(folder / "damaged.bundle"))
    with grpc.insecure_channel(running.address) as channel:
        assert health(channel) == health(channel, name) == 1
        assert health(channel, messages.SERVICE) == 1
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, "nobody")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_it_may_open_as_many_connections_as_the_system_allows(bundle: Bundle) -> None:
    """Though it was started with few."""
    serve = f"exec {sys.executable} -m presplit serve {bundle.path} --port=0 --json"
    process = subprocess.Popen(
        ["sh", "-c", f"ulimit -Sn 256; {serve}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["address"]
        few, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert few == most > 256
    finally:
        end(process)


def test_what_tritons_clients_ask_for_is_told(running: Running, bundle: Bundle) -> None:
    name = bundle.manifest.model_name(1, "int8")
    with grpc.insecure_channel(running.address) as channel:
        asked = messages.ModelConfigRequest(name=name)
        config = call(channel, "ModelConfig", asked, messages.ModelConfigResponse).config
        assert (config.name, config.max_batch_size, config.backend) == (name, 64, "onnxruntime")
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
            ("boundary", 6, [12])  # TYPE_INT8
        ]
        assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
            ("logits", 11, [4])  # TYPE_FP32
        ]
        asked = messages.RepositoryIndexRequest(ready=True)
        index = call(channel, "RepositoryIndex", asked, messages.RepositoryIndexResponse)
        assert {row.name for row in index.models} == set(running.said["models"])
        assert {row.state for row in index.models} == {"READY"}
        server = messages.ServerMetadataRequest()
        told = call(channel, "ServerMetadata", server, messages.ServerMetadataResponse)
        assert "model_configuration" in told.extensions


def test_a_signal_makes_it_look_again_and_no_request_is_lost(
    running: Running, folder: Path, bundle: Bundle, other_bundle: Bundle
) -> None:
    seen, over = Counter[str](), threading.Event()

    def asking() -> None:
        with grpc.insecure_channel(running.address) as channel:
            infer = channel.unary_unary(messages.path("ModelInfer"))
            while not over.is_set():
                infer(request(bundle), timeout=5)
                seen["good"] += 1

    threads = [threading.Thread(target=asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    shutil.rmtree(folder / "damaged.bundle")
    shutil.copytree(other_bundle.path, folder / "two.bundle")
    for plan in range(3):  # the bundle that is asked is read anew each time
        (folder / "one.bundle" / "manifest.json").touch()
        running.process.send_signal(signal.SIGHUP)
        assert running.until("bundle_replaced")["path"].endswith("one.bundle"), plan
        assert running.until("reloaded")["bundles"] == 2
    assert running.until("bundle_loaded")["path"].endswith(".bundle")
    over.set()
    for thread in threads:
        thread.join()
    assert seen["good"] > 0
    with grpc.insecure_channel(running.address) as channel:
        infer = channel.unary_unary(messages.path("ModelInfer"))
        infer(request(other_bundle), timeout=5)


def drained(bundle: Bundle) -> tuple[Counter[str], Running]:
    """What 16 callers heard whose busy server was told to end; each asks again twice."""
    heard: Counter[str] = Counter()
    running = serving(str(bundle.path))

    def asking() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        refused = 0
        with grpc.insecure_channel(running.address, options=options) as channel:
            infer = channel.unary_unary(messages.path("ModelInfer"))
            while refused < 3:
                began = time.monotonic()
                try:
                    infer(request(bundle), timeout=10)
                    heard["good"] += 1
                except grpc.RpcError as error:
                    refused += 1
                    when = "before" if began < told_at else "after"
                    heard[f"{when} {error.code().name}"] += 1

    told_at = float("inf")
    try:
        threads = [threading.Thread(target=asking) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        told_at = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert running.process.wait(10) == 0
        assert time.monotonic() - told_at < 10
    finally:
        end(running.process)
    return heard, running


def test_whoever_is_inside_is_answered_before_it_ends_and_the_others_hear_why(
    busy_bundle: Bundle,
) -> None:
    heard, running = drained(busy_bundle)
    assert set(heard) == {"good", "after UNAVAILABLE"}, heard
    assert heard["after UNAVAILABLE"] == 48
    assert running.until("stopping")["level"] == "info"
    counts = running.until("ended")
    assert counts["requests"]["server"] == heard["good"]
    assert 0 < counts["p50_s"] <= counts["p99_s"]


@pytest.mark.long
def test_no_request_is_lost_in_twenty_ends(busy_bundle: Bundle) -> None:
    for _ in range(20):
        heard, _ = drained(busy_bundle)
        assert set(heard) == {"good", "after UNAVAILABLE"}, heard


def test_who_watches_its_health_hears_that_it_ends(bundle: Bundle) -> None:
    running = serving(str(bundle.path))
    try:
        with grpc.insecure_channel(running.address) as channel:
            watch = channel.unary_stream(
                f"/{messages.HEALTH_SERVICE}/Watch",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages.HealthCheckResponse.FromString,
            )
            told = watch(messages.HealthCheckRequest(), timeout=5)
            unknown = watch(messages.HealthCheckRequest(service="nobody"), timeout=5)
            assert (next(told).status, next(unknown).status) == (1, 3)
            running.process.send_signal(signal.SIGTERM)
            assert [each.status for each in told] == [2]
        assert running.process.wait(5) == 0
    finally:
        end(running.process)


def test_a_server_that_drains_is_not_ready_again(bundle: Bundle) -> None:
    """Though it looks for new bundles all the while."""
    heard = list[int]()

    def ask(started: Started) -> None:
        def asking() -> None:
            with grpc.insecure_channel(started.address) as channel:
                watch = channel.unary_stream(
                    f"/{messages.HEALTH_SERVICE}/Watch",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=messages.HealthCheckResponse.FromString,
                )
                told = watch(messages.HealthCheckRequest(), timeout=5)
                heard.append(next(told).status)
                os.kill(os.getpid(), signal.SIGTERM)
                heard.extend(each.status for each in told)

        asks.append(threading.Thread(target=asking))
        asks[0].start()

    asks = list[threading.Thread]()
    serve(bundle, Config(port=0, log="none", watch_s=0.01, moment_s=0.15), ready=ask)
    asks[0].join(5)
    assert heard == [1, 2]


def test_who_watches_a_server_is_told_of_every_request(bundle: Bundle) -> None:
    seen = list[Served]()

    def ask(started: Started) -> None:
        def asking() -> None:
            with grpc.insecure_channel(started.address) as channel:
                infer = channel.unary_unary(messages.path("ModelInfer"))
                infer(request(bundle), timeout=5)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=asking).start()

    config = Config(port=0, log="none", moment_s=0)
    serve(bundle, config, ready=ask, watch=seen.append)
    [one] = seen
    assert one[:3] == (bundle.manifest.model_name(1, "float32"), "127.0.0.1", "server")
    assert (one.batch, one.up_bytes, one.down_bytes, one.exit) == (1, 48, 16, "")
    assert 0 < one.seconds < 5


def test_an_engine_that_hangs_does_not_hold_the_end_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LAST_S", 0.05)
    hangs, go = threading.Event(), threading.Event()

    class Hanging:
        """ONNX Runtime, until it hangs."""

        def __init__(self, model: Runnable, threads: int) -> None:
            self.inner = ENGINES["onnxruntime"](model, threads)

        def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
            if hangs.is_set():
                go.wait(10)
            return self.inner.run(inputs, stop=stop)

    heard = list[grpc.StatusCode]()

    def ask(started: Started) -> None:
        def asking() -> None:
            hangs.set()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            with grpc.insecure_channel(started.address) as channel:
                infer = channel.unary_unary(messages.path("ModelInfer"))
                try:
                    infer(request(bundle), timeout=5)
                except grpc.RpcError as error:
                    heard.append(error.code())

        threading.Thread(target=asking).start()

    config = Config(port=0, log="none", moment_s=0, drain_s=0.2)
    began = time.monotonic()
    with pytest.raises(process.Hung, match="an engine still computes"):
        serve(bundle, config, load=Hanging, ready=ask)
    assert time.monotonic() - began < 3
    go.set()
    assert heard[0] in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
