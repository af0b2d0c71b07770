"""REST and metrics: the same answers as over gRPC, and bounds of their own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import SpecError
from presplit.lab.processes import end, start
from presplit.runtime import http as ours
from presplit.runtime import serve
from presplit.runtime.http import Http, Request, Response
from presplit.runtime.serving.config import Config
from presplit.runtime.wire import messages
from presplit.runtime.wire.tensors import send

VALUES = np.random.default_rng(0).random((2, 12), dtype=np.float32)


@pytest.fixture(scope="module")
def said(bundle: Bundle) -> Iterator[dict[str, Any]]:
    process = start("presplit", "serve", str(bundle.path), "--port=0", "--http=0", "--json")
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        end(process)


Said = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def ask(said: dict[str, Any]) -> Iterator[Any]:
    connection = http.client.HTTPConnection(said["http"], timeout=5)

    def asked(method: str, path: str, body: bytes = b"", **headers: str) -> Said:
        words = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, words)
        found = connection.getresponse()
        return found.status, {k.lower(): v for k, v in found.getheaders()}, found.read()

    yield asked
    connection.close()


def told(found: Said) -> Any:
    assert found[0] == 200, found
    return json.loads(found[2])


def infer(changes: dict[str, Any], raw: bytes = b"", **input_: Any) -> tuple[bytes, int]:
    """A request's body, and how long its JSON is; ``input_`` changes its one input."""
    one = {"name": "boundary", "shape": [2, 12], "datatype": "FP32", "data": VALUES.tolist()}
    one = {key: value for key, value in {**one, **input_}.items() if value is not None}
    text = json.dumps({"id": "7", "inputs": [one], **changes}).encode()
    return text + raw, len(text)


def test_it_answers_as_over_grpc_in_json_and_in_bytes(
    bundle: Bundle, said: dict[str, Any], ask: Any
) -> None:
    name = bundle.manifest.model_name(1, "float32")
    path = f"/v2/models/{name}/infer"
    tensor = send("boundary", VALUES)
    one = messages.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
    request = messages.ModelInferRequest(
        model_name=name, inputs=[one], raw_input_contents=[tensor.raw]
    )
    with grpc.insecure_channel(said["address"]) as channel:
        raw = channel.unary_unary(messages.path("ModelInfer"))(request.SerializeToString())
    expected = messages.ModelInferResponse.FromString(raw).raw_output_contents[0]

    reply = told(ask("POST", path, infer({})[0]))
    assert (reply["id"], reply["model_name"]) == ("7", name)
    [output] = reply["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [2, 4])
    assert np.array(output["data"], np.float32).tobytes() == expected

    body, length = infer(
        {"parameters": {"binary_data_output": True}},
        tensor.raw,
        data=None,
        parameters={"binary_data_size": 96},
    )
    status, headers, found = ask("POST", path, body, Inference_Header_Content_Length=str(length))
    cut = int(headers["inference-header-content-length"])
    assert status == 200 and found[cut:] == expected
    assert json.loads(found[:cut])["outputs"][0]["parameters"] == {"binary_data_size": 32}


def test_it_tells_what_there_is(bundle: Bundle, said: dict[str, Any], ask: Any) -> None:
    name = bundle.manifest.model_name(1, "int8")
    assert told(ask("GET", "/v2"))["name"] == "presplit"
    assert told(ask("GET", "/v2/health/live")) == {"live": True}
    assert told(ask("GET", "/v2/health/ready")) == {"ready": True}
    assert told(ask("GET", f"/v2/models/{name}/versions/1/ready")) == {"ready": True}
    assert told(ask("GET", f"/v2/models/{name}"))["inputs"] == [
        {"name": "boundary", "datatype": "INT8", "shape": [-1, 12]}
    ]
    config = told(ask("GET", f"/v2/models/{name}/config"))
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (64, "TYPE_INT8")
    index = told(ask("POST", "/v2/repository/index"))
    assert {row["name"] for row in index} == set(said["models"])


@pytest.mark.parametrize(
    ("changes", "input_", "text"),
    [
        ({}, {"name": "image"}, "expected a tensor named 'boundary'"),
        ({}, {"datatype": "FP64"}, "must be FP32"),
        ({}, {"shape": [2, 13]}, "must have shape"),
        ({}, {"shape": [2**62, 12]}, "must have shape"),
        ({}, {"shape": [1, 12]}, "has 48 bytes, got 96"),
        ({}, {"shape": "x"}, "not the protocol's JSON"),
        ({}, {"data": [[1, 2], [3]]}, "one array of numbers"),
        ({}, {"data": ["a"] * 24}, "data must be numbers"),
        ({}, {"data": [True] * 24}, "data must be numbers"),
        ({}, {"data": [1e300] * 24}, "must be finite"),
        ({}, {"data": None}, "binary_data_size must be the 0 bytes"),
        ({}, {"data": None, "parameters": {"binary_data_size": 96}}, "binary_data_size must be"),
        ({}, {"parameters": {"binary_data_size": 0}}, "got both"),
        ({"outputs": [{"name": "labels"}]}, {}, "the only output is 'logits'"),
        ({"id": "x" * 200}, {}, "id must have at most 128"),
        ({"inputs": []}, {}, "expected one input, got 0"),
        ({"parameters": {"timeout": "1"}}, {}, "timeout must be a whole number"),
    ],
    ids=str,
)
def test_a_bad_request_is_refused_with_a_sentence(
    bundle: Bundle, ask: Any, changes: dict[str, Any], input_: dict[str, Any], text: str
) -> None:
    path = f"/v2/models/{bundle.manifest.model_name(1, 'float32')}/infer"
    status, _, found = ask("POST", path, infer(changes, **input_)[0])
    assert (status, list(json.loads(found))) == (400, ["error"])
    assert text in json.loads(found)["error"] and len(found) < 500
    assert ask("POST", path, infer({})[0])[0] == 200


def test_what_is_no_request_of_the_protocol_harms_nobody(bundle: Bundle, ask: Any) -> None:
    path = f"/v2/models/{bundle.manifest.model_name(1, 'int8')}/infer"
    good = f"/v2/models/{bundle.manifest.model_name(1, 'float32')}/infer"
    for body, text in (
        (b"", "JSON"),
        (b"\xff", "JSON"),
        (b"[" * 100_000, "JSON"),
        (infer({}, datatype="INT8", data=[1.5] * 24)[0], "whole numbers"),
        (infer({}, datatype="INT8", data=[128] * 24)[0], "in -128..127"),
        (infer({}, datatype="INT8", data=[2**70] * 24)[0], "numbers"),
    ):
        status, _, found = ask("POST", path, body)
        assert (status, text in json.loads(found)["error"]) == (400, True), found
    for length in ("-1", "99999999999", "x", str(10**30)):
        status, _, found = ask("POST", path, infer({})[0], Inference_Header_Content_Length=length)
        assert status == 400 and len(found) < 300
    for wanted, code in (
        ("/", 404),
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/versions/2", 404),
        ("/v2/repository/models/x/load", 404),
    ):
        assert ask("GET", wanted)[0] == code
    assert ask("POST", good, infer({"parameters": {"timeout": 1}})[0])[0] in (429, 504)
    assert ask("POST", good, b"x" * 4_000_000)[0] == 413
    assert ask("POST", good, infer({})[0])[0] == 200


def test_pages_of_the_web_do_not_reach_it(ask: Any) -> None:
    assert ask("GET", "/v2", Host="example.com")[0] == 403
    assert ask("GET", "/v2", Origin="https://example.com")[0] == 403
    assert ask("GET", "/v2", Origin="http://localhost:1")[0] == 403


def test_whatever_is_asked_is_answered_and_its_place_is_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ours, "CONNECTIONS", 2)

    async def answer(request: Request) -> Response:
        return Response(200, b"hello")

    async def scenario() -> None:
        server = Http(answer, most_bytes=100)
        host, port = (await server.start("127.0.0.1", 0)).split(":")

        async def hears(line: str, *headers: str) -> bytes:
            lines = [f"{line} HTTP/1.1", "Connection: close", *headers]
            if not any(each.startswith("Host") for each in headers):
                lines.append("Host: localhost")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write("\r\n".join([*lines, "", ""]).encode())
            found = await reader.read()
            writer.close()
            return found

        many = "9" * 5000
        for _ in range(3):
            head = await hears("HEAD /")
            assert head[9:12] == b"200" and head.endswith(b"\r\n\r\n"), head
            assert b"content-length: 5" in head
            for code, asked in (
                (b"400", ("GET /", "Host: [")),
                (b"400", ("GET /", "Origin: http://[")),
                (b"400", ("POST /", f"Content-Length: {many}")),
                (b"405", ("CONNECT a:1",)),
                (b"200", ("GET /", "Upgrade: x")),
            ):
                found = await hears(*asked)
                assert found[9:12] == code, (asked, found)
        assert (await hears("GET /")).endswith(b"hello")
        await server.stop(1)

    asyncio.run(scenario())


def test_metrics_tell_what_was_served(bundle: Bundle, ask: Any) -> None:
    name = bundle.manifest.model_name(2, "float32")
    path = f"/v2/models/{name}/infer"
    body = infer({}, shape=[3, 8], data=[0.5] * 24)[0]
    for _ in range(3):
        assert ask("POST", path, body)[0] == 200
    ask("POST", path, b"{}")
    status, headers, found = ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    lines = dict(line.rsplit(" ", 1) for line in found.decode().splitlines() if line[0] != "#")
    assert lines[f'presplit_requests_total{{exit="",model="{name}",why="server"}}'] == "3.0"
    assert float(lines['presplit_requests_total{exit="",model="",why="refused"}']) >= 1
    assert lines[f'presplit_request_samples_bucket{{le="4",model="{name}"}}'] == "3.0"
    assert lines[f'presplit_received_bytes_total{{model="{name}"}}'] == "288.0"
    assert lines[f'presplit_request_seconds_count{{model="{name}"}}'] == "3.0"
    assert float(lines["presplit_wait_seconds_count"]) >= 3
    assert float(lines["presplit_compute_seconds_sum"]) > 0
    assert (lines["presplit_inside"], lines["presplit_ready"]) == ("0.0", "1.0")
    key, sha256 = name.partition(".from")[0], bundle.manifest.model_hash
    assert lines[f'presplit_bundle_info{{bundle="{key}",sha256="{sha256}"}}'] == "1.0"
    assert float(lines["process_open_fds"]) > 5
    assert float(lines['presplit_admission_total{what="admitted"}']) >= 3


def test_who_is_slow_or_half_sent_is_let_go_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, seconds in (("IDLE_S", 0.9), ("HEAD_S", 0.2), ("BODY_S", 0.2)):
        monkeypatch.setattr(ours, name, seconds)
    monkeypatch.setattr(ours, "CONNECTIONS", 6)

    async def answer(request: Request) -> Response:
        return Response(200, request.body)

    async def hears(address: str, sent: bytes) -> tuple[bytes, float]:
        began = time.monotonic()
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        found = await reader.read()
        writer.close()
        return found, time.monotonic() - began

    async def scenario() -> None:
        server = Http(answer, most_bytes=100)
        address = await server.start("127.0.0.1", 0)
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
        slow = (b"", b"POST", head, head + b"\r\nab")
        found = await asyncio.gather(*(hears(address, sent) for sent in slow))
        assert [raw[:12] for raw, _ in found] == [b"", b"", b"", b"HTTP/1.1 408"]
        assert all(took < 2 for _, took in found)
        assert found[0][1] < 0.8, "who has sent nothing yet is given less time than a pause"
        # A client that is as it should be, one after another on a connection, then no more.
        raw, _ = await hears(address, 2 * (head + b"\r\nabc"))
        assert raw.count(b"HTTP/1.1 200") == 2
        for sent, code in (
            (b"\x00\x01\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, b"431"),
            (head.replace(b": 3", b": 101") + b"\r\n" + b"x" * 101, b"413"),
            (head.replace(b": 3", b": -3") + b"\r\n", b"400"),
            (head.replace(b": 3", b": 101") + b"\r\n", b"413"),  # before any of it has come
            (head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
            (head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"400"),
        ):
            raw, _ = await hears(address, sent)
            assert raw[9:12] == code, (sent[:40], raw)
        # One more than may be open is let go at once.
        held = [socket.create_connection(address.split(":")) for _ in range(6)]
        await asyncio.sleep(0.05)
        assert await hears(address, b"") < (b"", 0.2)
        for each in held:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
        await asyncio.sleep(0.05)
        assert (await hears(address, head + b"Connection: close\r\n\r\nabc"))[0].endswith(b"abc")
        await server.stop(1)

    asyncio.run(scenario())


def test_rest_that_cannot_tell_who_calls_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from presplit.runtime.serving.process import check_http
    from presplit.runtime.wire.credentials import Secured
    from presplit.runtime.wire.gate import Gate

    with pytest.raises(SpecError, match="REST sees no certificates"):
        check_http(Config(http=0), Secured(gate=Gate()))
    with pytest.raises(SpecError, match=r"Config.http: expected `int` <= 65535"):
        serve(bundle, Config(http=70_000))
