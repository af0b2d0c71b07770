"""Promises of what is too large: messages, what they are when they are unpacked, their heads."""

from __future__ import annotations

import random
import socket
import threading
import time
import zlib
from collections import Counter as Count
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks._faults import MB, Row, Rows, Server, good_client, good_request, serving
from benchmarks._faults_h2 import connection, exchange, framed, headers
from presplit.runtime.wire import messages
from presplit.runtime.wire.words import MOST_KEY

EXHAUSTED = "RESOURCE_EXHAUSTED"


def oversize(quick: bool) -> Iterator[Row]:
    """Promise 3."""
    with serving() as server:
        most = _most_bytes(server)
        yield from _around(server, most)
        yield _bombs(server, 20 if quick else 100, (256 if quick else 900) * MB)
        yield _spoilt(server, 100)
        yield _heads(server)
        yield _half_sent(server, most, 6 if quick else 30)


def _most_bytes(server: Server) -> int:
    """The largest request, as the server says it."""
    call = server.channel.unary_unary(messages.path("ModelReady"))
    raw = messages.ModelReadyRequest(name=server.model).SerializeToString()
    _, told = call.with_call(raw, timeout=5)
    return int(dict(told.trailing_metadata())[MOST_KEY])


def _around(server: Server, most: int) -> Iterator[Row]:
    """Messages a byte below the bound, at it, and beyond it."""
    for name, size in {
        "a byte less than": most - 1,
        "exactly": most,
        "a byte more than": most + 1,
    }.items():
        expected = EXHAUSTED if size > most else "OK"
        before = server.counters()
        statuses = Count(_status(server, _echo_of(size)) for _ in range(20))
        harm = server.harm() or server.left(before, within_s=5)
        told = ", ".join(f"{n} {status}" for status, n in statuses.items())
        yield Row(
            3,
            f"a message of {name} the bound: {expected}",
            f"{told}; {harm}" if harm else told,
            20,
            set(statuses) == {expected} and not harm,
        )


def _status(server: Server, raw: bytes) -> str:
    try:
        server.call("ModelInfer", raw)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def _echo_of(size: int) -> bytes:
    """A legal request of exactly so many bytes: the largest echo, with a parameter to fill up."""
    request = messages.ModelInferRequest(model_name="presplit-echo.to-1")
    request.inputs.add(name="boundary", datatype="INT8", shape=[MB // 64, 64])
    request.raw_input_contents.append(bytes(MB))
    request.parameters["fill"].string_param = "x" * 1000
    missing = size - request.ByteSize()
    request.parameters["fill"].string_param = "x" * (1000 + missing)
    while (over := request.ByteSize() - size) > 0:
        filled = request.parameters["fill"].string_param
        request.parameters["fill"].string_param = filled[over:]
    return request.SerializeToString()


class _Peak:
    """The most memory that a server holds while something happens, beyond what it held before."""

    def __init__(self, server: Server) -> None:
        self._server, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.mb = 0.0

    def __enter__(self) -> _Peak:
        self._before = self._server.counters().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.mb = max(self.mb, (self._server.counters().rss - self._before) / MB)


def _bombs(server: Server, count: int, size: int) -> Row:
    """Messages that are small only as long as they are compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join([*(packer.compress(bytes(MB)) for _ in range(size // MB)), packer.flush()])
    with _Peak(server) as peak:
        statuses = Count(
            exchange(server.port, headers(encoding="gzip"), framed(body, compressed=True))
            for _ in range(count)
        )
    harm = server.harm()
    said = f"{_told(statuses)}, memory at most {peak.mb:.0f} MB more"
    # 8 is RESOURCE_EXHAUSTED.
    ok = set(statuses) == {"8"} and peak.mb < 32 and not harm
    return Row(
        3,
        f"gzip bombs of {size // MB} MB: refused, memory < 32 MB more",
        f"{said}; {harm}" if harm else said,
        count,
        ok,
    )


def _spoilt(server: Server, count: int) -> Row:
    """Messages that say they are compressed, and are not."""
    chance = random.Random(0)
    with _Peak(server) as peak:
        statuses = Count(
            exchange(
                server.port,
                headers(encoding="gzip"),
                framed(b"\x1f\x8b\x08" + chance.randbytes(100_000), compressed=True),
            )
            for _ in range(count)
        )
    harm = server.harm()
    said = f"{_told(statuses)}, memory at most {peak.mb:.0f} MB more"
    ok = "0" not in statuses and "nothing" not in statuses and peak.mb < 32 and not harm
    return Row(
        3,
        "gzip that is none: refused, memory < 32 MB more",
        f"{said}; {harm}" if harm else said,
        count,
        ok,
    )


def _heads(server: Server) -> Row:
    """Metadata beyond its bound."""
    raw = good_request(server.model).SerializeToString()
    infer = server.channel.unary_unary(messages.path("ModelInfer"))
    statuses: Count[str] = Count()
    for size in (20_000, 100_000, 1_000_000):
        try:
            infer(raw, timeout=5, metadata=[("fill", "x" * size)])
            statuses["OK"] += 1
        except grpc.RpcError as error:
            statuses[error.code().name] += 1
    harm = server.harm()
    told = _told(statuses)
    return Row(
        3,
        "metadata of 20 kB to 1 MB: refused",
        f"{told}; {harm}" if harm else told,
        3,
        "OK" not in statuses and not harm,
    )


def _half_sent(server: Server, most: int, connections: int) -> Row:
    """Calls of the largest size, 100 on each connection, that lack their last byte."""
    calls, room = 100, 128
    ended = threading.Event()
    threads = [
        threading.Thread(target=_hold, args=(server.port, calls, most, ended))
        for _ in range(connections)
    ]
    with _Peak(server) as peak, good_client(server) as good:
        for thread in threads:
            thread.start()
        time.sleep(5.0)
        ended.set()
        for thread in threads:
            thread.join()
        seen = good.seen()
    harm = server.harm()
    # What is read, and 64 KB ahead of each other call.
    bound = room * 1.3 + connections * calls / 16 + 32
    said = f"{peak.mb:.0f} MB, {connections * calls * most / MB:.0f} MB were sent; {seen}"
    ok = peak.mb <= bound and seen.share >= 0.9 and not harm
    return Row(
        3,
        f"half-sent calls of the largest size: memory < {bound:.0f} MB more",
        f"{said}; {harm}" if harm else said,
        connections * calls,
        ok,
    )


def _hold(port: int, calls: int, most: int, ended: threading.Event) -> None:
    """Send all but the last byte of so many calls, as far as the server lets it, and hold them."""
    http, left = connection(), {}
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as found:
        for stream in range(1, 2 * calls, 2):
            http.send_headers(stream, headers())
            left[stream] = memoryview(framed(bytes(most - 1), claimed=most))
        while not ended.is_set():
            try:
                for stream in list(left):
                    _send_some(http, stream, left, found)
                found.sendall(http.data_to_send())
                if not (received := found.recv(65536)):
                    return
                for event in http.receive_data(received):
                    left.pop(getattr(event, "stream_id", 0) if _over(event) else 0, None)
            except TimeoutError:
                continue
            except OSError:
                return


def _over(event: object) -> bool:
    return type(event).__name__ in ("StreamReset", "StreamEnded")


def _send_some(http: Any, stream: int, left: dict[int, memoryview], found: socket.socket) -> None:
    """As much of one call as its window allows."""
    while len(left[stream]):
        room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size)
        if room <= 0:
            return
        http.send_data(stream, left[stream][:room].tobytes())
        left[stream] = left[stream][room:]
        found.sendall(http.data_to_send())


def _told(statuses: Count[str]) -> str:
    return ", ".join(f"{n} times {status}" for status, n in sorted(statuses.items()))


PARTS: dict[int, Rows] = {3: oversize}
