"""Promises of the server's REST: malformed requests, and clients that are slow on purpose."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks._faults import VALUES, Row, Rows, Server, serving
from benchmarks._faults_nets import BOUNDARY
from benchmarks._faults_slow import Attack, attacking

SECRETS = ("Traceback", '.py"', "/tmp", "File ")
"""What no reply may hold."""
GONE_S = 15.0
LENGTH = "Inference-Header-Content-Length"


class Case(NamedTuple):
    """Raw bytes of a request, and the statuses that are right for it."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


def http(path: str, body: bytes = b"", *, method: str = "POST", **headers: str) -> bytes:
    """A request of HTTP; the length is told unless a header says another."""
    told = {"Host": "localhost", "Content-Length": str(len(body)), "Connection": "close"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def inference(**changes: Any) -> bytes:
    """The JSON of the good request, with changes to its tensor."""
    tensor = {"name": "boundary", "datatype": "FP32", "shape": [1, BOUNDARY]}
    tensor["data"] = VALUES.ravel().tolist()
    return json.dumps({"inputs": [tensor | changes]}).encode()


def cases(model: str) -> list[Case]:
    """Every wrong request, and two that are right."""
    path = f"/v2/models/{model}/infer"
    good = inference()
    deep = b'{"inputs":' + b"[" * 250_000 + b"]" * 250_000 + b"}"
    bodies: dict[str, bytes] = {
        "no body": b"",
        "no JSON": b"hello",
        "half of the JSON": good[: len(good) // 2],
        "JSON 250,000 deep": deep,
        "an array in place of an object": b"[]",
        "a number in place of an object": b"1",
        "no inputs": b'{"inputs": []}',
        "inputs that are null": b'{"inputs": null}',
        "an input that is no object": b'{"inputs": [1]}',
        "NaN": good.replace(b"0.", b"NaN, 0.", 1),
        "1e400": inference(data=[1e300] * (BOUNDARY - 1) + [0]).replace(b"1e+300", b"1e400"),
        "infinity by name": good.replace(b"0.", b"Infinity, 0.", 1),
        "no UTF-8": b'{"inputs": [{"name": "\xff"}]}',
        "bytes after the JSON": good + b"more",
        "text among the numbers": inference(data=["one"] * BOUNDARY),
        "numbers too few": inference(data=[1.0]),
        "numbers too many": inference(data=[1.0] * (BOUNDARY + 1)),
        "a ragged array": inference(data=[[1.0], [1.0, 2.0]]),
        "another datatype": inference(datatype="INT8"),
        "a datatype that is a number": inference(datatype=7),
        "a shape that is text": inference(shape="1, 48"),
        "a negative shape": inference(shape=[-1, BOUNDARY]),
        "batch 0": inference(shape=[0, BOUNDARY], data=[]),
        "a shape of 2^62": inference(shape=[2**62, BOUNDARY]),
        "a shape beyond 64 bits": inference(shape=[2**70, BOUNDARY]),
        "another name": inference(name="image"),
        "an id of 129 characters": good[:-1] + b', "id": "' + b"i" * 129 + b'"}',
    }
    found = [Case(name, http(path, body), (400,)) for name, body in bodies.items()]
    raw = VALUES.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "boundary",
                    "datatype": "FP32",
                    "shape": [1, BOUNDARY],
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    for length in ("99999999999", "-1", "0", "x", "1e9", str(len(head) + 1), ""):
        told = {LENGTH: length}
        found.append(Case(f"JSON of {length!r} bytes", http(path, head + raw, **told), (400,)))
    right = {LENGTH: str(len(head))}
    nan = np.full_like(VALUES, np.nan).tobytes()
    found += [
        Case("NaN in binary", http(path, head + nan, **right), (400,)),
        Case("binary data too short", http(path, head + raw[:-1], **right), (400,)),
        Case("no such model", http("/v2/models/none/infer", good), (404,)),
        Case("no such path", http("/v2/../../etc/passwd", method="GET"), (404,)),
        Case("no such version", http(f"/v2/models/{model}/versions/2/infer", good), (404,)),
        Case("GET to infer", http(path, method="GET"), (404, 405)),
        Case("DELETE of a model", http(f"/v2/models/{model}", method="DELETE"), (404, 405)),
        Case("loading a model", http(f"/v2/repository/models/{model}/load"), (404, 405)),
        Case("a method that is none", http(path, method="BREW"), (400, 404, 405, 501)),
        Case("a length of -1", http(path, good, Content_Length="-1"), (400,)),
        Case("a length beyond the bound", http(path, Content_Length="99999999999"), (413,)),
        Case("two lengths", http(path, good, Transfer_Encoding="chunked"), (400,)),
        Case("a header of 1 MB", http(path, good, Fill="x" * 2**20), (400, 413, 431)),
        Case("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, (400,)),
        Case("right, as JSON", http(path, good), (200,)),
        Case("right, in binary", http(path, head + raw, **right), (200,)),
        Case(
            "duplicate keys", http(path, b'{"id": "a",' + good[1:-1] + b', "id": "b"}'), (200, 400)
        ),
    ]
    return found


def refused(quick: bool) -> Iterator[Row]:
    """Promise 1, over REST."""
    with serving("--http", "0") as server:
        port = _port(server)
        before = server.counters()
        found = cases(server.model)
        wrong = [text for case in found if (text := _wrong(server, port, case))]
        wrong += [text] if (text := server.left(before, within_s=5)) else []
    asked = "named cases over REST get the exact status, and the server answers as before"
    yield Row(1, asked, "; ".join(wrong) or "all", len(found), not wrong)


def slow(quick: bool) -> Iterator[Row]:
    """Promise 4, over REST."""
    count = 100 if quick else 1_000
    begun = b"POST /v2/models/x/infer HTTP/1.1\r\nHost: localhost\r\n"
    ways = [
        Attack("silent connections", b""),
        Attack("headers byte by byte", begun, b"X-Fill: " + b"x" * 1000, 1.0, in_turn=True),
        Attack("bodies byte by byte", begun + b"Content-Length: 1000\r\n\r\n", b"x", 1.0),
        Attack("half-sent bodies", begun + b"Content-Length: 1000\r\n\r\nx"),
    ]
    with serving("--http", "0") as server:
        port, before = _port(server), server.counters()
        for way, ended in zip(ways, asyncio.run(_all(ways, port, count)), strict=True):
            last = max(ended.after_s, default=0.0)
            said = f"{ended.within(GONE_S)} of {count}, the last after {last:.1f} s"
            asked = f"{way.name} over REST are ended within {GONE_S:.0f} s"
            yield Row(4, asked, said, count, ended.within(GONE_S) == count)
        harm = server.harm() or server.left(before, within_s=5)
    yield Row(4, "the server answers as before after them", harm or "yes", 1, not harm)


async def _all(ways: list[Attack], port: int, count: int) -> list[Any]:
    """What becomes of each."""
    return await asyncio.gather(*(attacking(way, port, count, GONE_S + 1) for way in ways))


def _port(server: Server) -> int:
    """Where REST is."""
    return int(str(server.said["http"]).rpartition(":")[2])


def _wrong(server: Server, port: int, case: Case) -> str:
    """What is wrong with how a case ends; nothing, if all is as it must be."""
    told = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
            found.sendall(case.raw)
            while received := found.recv(65536):
                told += received
    except ConnectionError:
        pass
    except TimeoutError:
        return f"{case.name}: no answer"
    words = told.split(b" ", 2)
    status = int(words[1]) if len(words) > 2 and words[1].isdigit() else 0
    if status not in case.statuses:
        return f"{case.name}: {status} {told[-150:]!r}"
    text = told.decode("utf-8", "replace")
    if len(told) > 3000 or any(word in text for word in SECRETS):
        return f"{case.name}: told {text[-200:]!r}"
    harm = server.harm()
    return f"{case.name}: {harm}" if harm else ""


PARTS: dict[int, Rows] = {1: refused, 4: slow}
