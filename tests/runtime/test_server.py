"""The tail server: what it answers, what it refuses and how, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.bundle import Bundle
from presplit.core.errors import BundleError, EngineError, ServerError
from presplit.core.plans import Plan
from presplit.runtime import Edge, serve
from presplit.runtime.engines import ENGINES
from presplit.runtime.hosted import Array, Layer, Overloaded
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire import messages
from presplit.runtime.wire.server import Listener
from presplit.runtime.wire.tensors import send
from presplit.runtime.wire.words import PUSHBACK_KEY, SERVER_S_KEY, WHY_KEY

Start = Callable[..., contextlib.AbstractContextManager[tuple[str, subprocess.Popen[str]]]]

VALUES = np.random.default_rng(0).random((1, 12), dtype=np.float32)
REFUSED, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture(scope="module")
def channel(server: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server) as found:
        yield found


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> Any:
    return Stub(channel)


class Stub:
    """The protocol's calls over a channel of gRPC, blocking or not."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def __getattr__(self, call: str) -> Any:
        return self.channel.unary_unary(
            messages.path(call),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(messages, f"{call}Response").FromString,
        )


def without_time(reply: Any) -> bytes:
    """A reply without what the server says that it took, which differs each time."""
    assert 0 < reply.parameters[SERVER_S_KEY].double_param < 5
    reply.ClearField("parameters")
    return reply.SerializeToString(deterministic=True)


def logits(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """What the tail from boundary 1 says, computed here."""
    tail = bundle.runnable(1, 3)
    return ENGINES["onnxruntime"](tail, 1).run({tail.input: values})[tail.logits["final"]]


def request(bundle: Bundle, values: np.ndarray = VALUES, **changes: Any) -> Any:
    """A good request to the tail from boundary 1, with ``changes`` to its fields."""
    tensor = send("boundary", values)
    fields = {
        "model": bundle.manifest.model_name(1, "float32"),
        "version": "",
        "id": "7",
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "raw": [tensor.raw],
        "count": 1,
        "outputs": [],
        "contents": None,
    } | changes
    one = messages.ModelInferRequest.InferInputTensor(
        name=fields["name"],
        datatype=fields["datatype"],
        shape=fields["shape"],
        contents=fields["contents"],
    )
    asked = [
        messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
        for name in fields["outputs"]
    ]
    return messages.ModelInferRequest(
        model_name=fields["model"],
        model_version=fields["version"],
        id=fields["id"],
        inputs=[one] * fields["count"],
        outputs=asked,
        raw_input_contents=fields["raw"],
    )


def test_a_good_request_gets_the_tails_logits_and_its_own_id(bundle: Bundle, stub: Any) -> None:
    reply = stub.ModelInfer(request(bundle, id="abc", outputs=["logits"], version="1"), timeout=5)
    assert (reply.id, reply.model_name, reply.model_version) == (
        "abc",
        bundle.manifest.model_name(1, "float32"),
        "1",
    )
    output = reply.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("logits", "FP32", [1, 4])
    assert reply.raw_output_contents[0] == logits(bundle, VALUES).tobytes()


@pytest.mark.parametrize("batch", [2, 64])
def test_a_batch_gets_an_answer_for_each_sample(bundle: Bundle, stub: Any, batch: int) -> None:
    values = np.random.default_rng(batch).random((batch, 12), dtype=np.float32)
    reply = stub.ModelInfer(request(bundle, values), timeout=5)
    found = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(batch, 4)
    np.testing.assert_allclose(found, logits(bundle, values), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"model": "small"}, MISSING, "no model 'small' here; hosted: small-"),
        ({"model": "small-000000000000.from-1"}, MISSING, "hosted: small-"),
        ({"model": ""}, MISSING, "hosted"),
        ({"model": "x" * 5000}, MISSING, "hosted"),
        ({"version": "2"}, MISSING, "has version 1, got '2'"),
        ({"name": "image"}, REFUSED, "expected a tensor named 'boundary', got 'image'"),
        ({"datatype": "FP64"}, REFUSED, "must be FP32, got 'FP64'"),
        ({"datatype": "INT8"}, REFUSED, "must be FP32, got 'INT8'"),
        ({"datatype": "BYTES"}, REFUSED, "must be FP32"),
        ({"datatype": ""}, REFUSED, "must be FP32"),
        ({"shape": [12]}, REFUSED, r"must have shape \(1..64, 12\), got \(12\)"),
        ({"shape": [1, 13]}, REFUSED, "must have shape"),
        ({"shape": [1, 1, 12]}, REFUSED, "must have shape"),
        ({"shape": []}, REFUSED, "must have shape"),
        ({"shape": [0, 12]}, REFUSED, "must have shape"),
        ({"shape": [0, 12], "raw": [b""]}, REFUSED, "must have shape"),
        ({"shape": [-1, 12]}, REFUSED, "must have shape"),
        ({"shape": [65, 12], "raw": [bytes(65 * 48)]}, REFUSED, "must have shape"),
        ({"shape": [2**62, 12]}, REFUSED, "must have shape"),
        ({"shape": [1] * 1000}, REFUSED, "and 992 more"),
        ({"shape": [2, 12]}, REFUSED, "has 96 bytes, got 48"),
        ({"raw": [b""]}, REFUSED, "has 48 bytes, got 0"),
        ({"raw": [bytes(47)]}, REFUSED, "has 48 bytes, got 47"),
        ({"raw": [bytes(49)]}, REFUSED, "has 48 bytes, got 49"),
        ({"raw": []}, REFUSED, "expected one input"),
        ({"raw": [bytes(48), bytes(48)]}, REFUSED, "expected one input"),
        ({"count": 0}, REFUSED, "expected one input"),
        ({"count": 2}, REFUSED, "expected one input"),
        (
            {"contents": messages.InferTensorContents(fp32_contents=[1.0] * 12)},
            REFUSED,
            "raw_input_contents alone",
        ),
        ({"raw": [np.full(12, np.nan, np.float32).tobytes()]}, REFUSED, "must be finite"),
        ({"raw": [np.full(12, -np.inf, np.float32).tobytes()]}, REFUSED, "must be finite"),
        ({"outputs": ["probabilities"]}, REFUSED, "the only output is 'logits'"),
        ({"id": "x" * 129}, REFUSED, "id must have at most 128"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_request_is_refused_and_harms_nobody(
    bundle: Bundle, stub: Any, changes: dict[str, Any], status: grpc.StatusCode, text: str
) -> None:
    golden = without_time(stub.ModelInfer(request(bundle), timeout=5))
    with pytest.raises(grpc.RpcError, match=text) as caught:
        stub.ModelInfer(request(bundle, **changes), timeout=5)
    assert caught.value.code() is status
    assert len(caught.value.details()) < 1000
    assert stub.ServerLive(messages.ServerLiveRequest(), timeout=5).live
    assert without_time(stub.ModelInfer(request(bundle), timeout=5)) == golden


@settings(max_examples=30)
@given(raw=st.binary(max_size=200))
def test_random_bytes_never_break_the_server(
    bundle: Bundle, channel: grpc.Channel, raw: bytes
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(messages.path("ModelInfer"))(raw, timeout=5)
    assert caught.value.code() in (REFUSED, MISSING)


@pytest.mark.parametrize("position", [0, 5, 20, 60])
def test_a_flipped_byte_is_refused_or_harmless(
    bundle: Bundle, channel: grpc.Channel, position: int
) -> None:
    raw = bytearray(request(bundle).SerializeToString())
    raw[position] ^= 0xFF
    try:
        channel.unary_unary(messages.path("ModelInfer"))(bytes(raw), timeout=5)
    except grpc.RpcError as error:
        assert error.code() in (REFUSED, MISSING)


def test_a_request_beyond_the_largest_legal_one_is_cut_off(bundle: Bundle, stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(bundle, raw=[bytes(2**20)]), timeout=5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(request(bundle), timeout=5).id == "7"


def test_health_and_metadata_tell_the_contract(bundle: Bundle, stub: Any) -> None:
    assert stub.ServerLive(messages.ServerLiveRequest(), timeout=5).live
    assert stub.ServerReady(messages.ServerReadyRequest(), timeout=5).ready
    assert stub.ServerMetadata(messages.ServerMetadataRequest(), timeout=5).name.startswith(
        "presplit"
    )
    for split, width in enumerate((16, 12, 8)):
        for codec, datatype in (("float32", "FP32"), ("float16", "FP16"), ("int8", "INT8")):
            name = bundle.manifest.model_name(split, codec)
            assert stub.ModelReady(messages.ModelReadyRequest(name=name), timeout=5).ready
            found = stub.ModelMetadata(messages.ModelMetadataRequest(name=name), timeout=5)
            assert (found.name, list(found.versions), found.platform) == (
                name,
                ["1"],
                "onnxruntime_onnx",
            )
            tensors = [(t.name, t.datatype, list(t.shape)) for t in (*found.inputs, *found.outputs)]
            assert tensors == [("boundary", datatype, [-1, width]), ("logits", "FP32", [-1, 4])]
    for call in (stub.ModelReady, stub.ModelMetadata):
        with pytest.raises(grpc.RpcError) as caught:
            call(
                messages.ModelMetadataRequest(name="none"), timeout=5
            )  # both requests have the same fields
        assert caught.value.code() is MISSING


def test_what_is_being_answered_is_answered_before_the_end(bundle: Bundle) -> None:
    class Slow(Layer):
        """What is inside, a little later."""

        pool = ThreadPoolExecutor(1)

        def run(
            self, name: str, array: Array, *, until: float | None, client: str = ""
        ) -> Future[np.ndarray]:
            def later() -> np.ndarray:
                time.sleep(0.1)
                return self._inner.run(name, array, until=until).result()

            return self.pool.submit(later)

    async def scenario() -> None:
        hosted = Slow(hosting(bundle))
        listener = Listener(hosted, name="slow", version="1")
        address = await listener.start("127.0.0.1", 0)
        async with grpc.aio.insecure_channel(address) as channel:
            call = Stub(channel).ModelInfer(request(bundle), timeout=5)
            await asyncio.sleep(0.05)
            await listener.stop(10.0)
            assert (await call).id == "7"
        hosted.close()
        hosted.pool.shutdown()

    asyncio.run(scenario())


def test_what_fails_in_the_server_is_told_as_its_own_fault_and_nothing_of_it(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither as the caller's, nor with a word of what it was."""

    class Failing(Layer):
        def run(
            self, name: str, array: Array, *, until: float | None, client: str = ""
        ) -> Future[np.ndarray]:
            raise errors[name.rpartition("-")[2]]

    errors: dict[str, Exception] = {
        "float16": EngineError("ONNX Runtime failed: /secret/path has no memory"),
        "int8": ValueError("/secret/path: unexpected"),
    }

    async def scenario() -> list[Any]:
        hosted = Failing(hosting(bundle))
        listener = Listener(hosted, name="failing", version="1")
        address = await listener.start("127.0.0.1", 0)
        found: list[Any] = []
        async with grpc.aio.insecure_channel(address) as channel:
            for codec in errors:
                values = VALUES.astype(codec)
                wanted = request(bundle, values, model=bundle.manifest.model_name(1, codec))
                with pytest.raises(grpc.RpcError) as caught:
                    await Stub(channel).ModelInfer(wanted, timeout=5)
                found.append(caught.value)
        await listener.stop(0)
        hosted.close()
        return found

    for error in asyncio.run(scenario()):
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "the server failed")
        assert dict(error.trailing_metadata())[WHY_KEY] == "failed"
    assert "/secret/path has no memory" in caplog.text


def test_what_is_hosted_hears_who_asks_and_who_is_refused_hears_when_to_ask_again(
    bundle: Bundle,
) -> None:
    class Full(Layer):
        clients: list[str] = []

        def run(
            self, name: str, array: Array, *, until: float | None, client: str = ""
        ) -> Future[np.ndarray]:
            self.clients.append(client)
            raise Overloaded("full", again_s=0.0121)

    def shut(client: str, until: float | None) -> None:
        assert until is not None and until > time.monotonic()
        raise Overloaded(f"not {client}", again_s=0.0121)

    async def scenario(**options: Any) -> Any:
        listener = Listener(full, name="full", version="1", **options)
        address = await listener.start("127.0.0.1", 0)
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await Stub(channel).ModelInfer(request(bundle), timeout=5)
        await listener.stop(0)
        return caught.value

    full = Full(hosting(bundle))
    # Where a client is known to have no chance, its request is not even read.
    errors: list[Any] = [asyncio.run(scenario()), asyncio.run(scenario(knock=shut))]
    full.close()
    assert full.clients == ["127.0.0.1"]
    assert [error.details() for error in errors] == ["full", "not 127.0.0.1"]
    for error in errors:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.trailing_metadata())[PUSHBACK_KEY] == "13"


def test_every_refusal_says_what_it_means_for_the_edge(bundle: Bundle, stub: Any) -> None:
    for changes in ({"model": "small"}, {"shape": [1, 13]}):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request(bundle, **changes), timeout=5)
        assert dict(caught.value.trailing_metadata())[WHY_KEY] == "refused"


def test_a_port_that_is_taken_is_one_sentence(bundle: Bundle, server: str) -> None:
    port = server.rpartition(":")[2]
    cure = "choose another port, or 0 for a free one"
    text = f"cannot listen on 127.0.0.1:{port} (Address already in use); {cure}"
    with pytest.raises(ServerError, match=re.escape(text)):
        serve(bundle, Config(port=int(port)))


def test_a_host_that_does_not_exist_is_one_sentence(bundle: Bundle) -> None:
    with pytest.raises(ServerError, match=r"cannot listen on no-such-host.invalid:0 \(.*known"):
        serve(bundle, Config(host="no-such-host.invalid", port=0, insecure=True))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_can_reach_must_be_asked_for(bundle: Bundle, host: str) -> None:
    with pytest.raises(ServerError, match="the server lacks TLS .* and a gate"):
        serve(bundle, Config(host=host))


@pytest.mark.parametrize("host", ["[::1]", "::1", "LOCALHOST", "::ffff:127.0.0.1"])
def test_this_machines_own_address_is_known_in_every_spelling(host: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        serve(tmp_path / "none.bundle", Config(host=host))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_it_listens_to_all_when_that_is_asked_for_until_a_signal_ends_it_under_load(
    bundle: Bundle, start: Start, number: signal.Signals
) -> None:
    words = ("--json", "--port", "0", "--host", "[::]", "--insecure")
    with start("presplit", "serve", str(bundle.path), *words) as (address, process):
        assert address.startswith("[::]:")
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            with Edge.open(bundle, server=f"{host}:{port}", plan=Plan(0, deadline_s=5.0)) as edge:
                assert edge.answer(np.ones(16, np.float32)).why == "server"
        with grpc.insecure_channel(f"[::1]:{port}") as channel:
            infer = Stub(channel).ModelInfer
            threading.Timer(0.1, process.send_signal, [number]).start()
            with pytest.raises(grpc.RpcError) as caught:
                while True:
                    infer(request(bundle), timeout=5)
            gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            assert caught.value.code() in gone
        assert process.wait(timeout=10) == 0
