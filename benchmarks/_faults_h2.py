"""HTTP/2 frame by frame: calls that are sent by half, wrong, or slowly, and what comes of them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from presplit.runtime.wire import messages

DATA, HEADERS, RST_STREAM, GOAWAY = 0, 1, 3, 7
"""Types of frames."""
Headers = list[tuple[str, str]]


def framed(message: bytes, *, claimed: int | None = None, compressed: bool = False) -> bytes:
    """A message as gRPC sends it; ``claimed`` is the length that it says it has."""
    return struct.pack(">BI", compressed, len(message) if claimed is None else claimed) + message


def headers(*, method: str = "ModelInfer", timeout: str = "", encoding: str = "") -> Headers:
    """The head of a call."""
    found = [
        *((":method", "POST"), (":scheme", "http"), (":path", messages.path(method))),
        *((":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc")),
    ]
    if timeout:
        found.append(("grpc-timeout", timeout))
    if encoding:
        found.append(("grpc-encoding", encoding))
    return found


def connection() -> h2.connection.H2Connection:
    """A client's end of a connection, which has something to send."""
    # What is wrong is sent as it is: the library would mend it.
    config = h2.config.H2Configuration(
        client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    found = h2.connection.H2Connection(config)
    found.initiate_connection()
    return found


def opening() -> bytes:
    """What a client says first."""
    return connection().data_to_send()


def beginning(head: Headers, body: bytes, *, calls: int = 1, end: bool = False) -> bytes:
    """The bytes of a connection on which so many calls begin, each with ``body``."""
    found = connection()
    for stream in range(1, 2 * calls, 2):
        found.send_headers(stream, head)
        if body:
            found.send_data(stream, body, end_stream=end)
    return found.data_to_send()


def one_byte() -> bytes:
    """A frame with one more byte of the first call's body."""
    found = connection()
    found.send_headers(1, headers())
    found.data_to_send()
    found.send_data(1, b"\0")
    return found.data_to_send()


def frames(received: bytes) -> Iterator[tuple[int, int]]:
    """The type and the stream of each whole frame in what a server sent."""
    at = 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3], "big")
        yield received[at + 3], int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFFFFFF
        at += 9 + length


def exchange(port: int, head: Headers, body: bytes, *, within_s: float = 10.0) -> str:
    """The number of the status that ends a call sent as it is; what happened, if none does."""
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as found:
        return _Exchange(found, body).run(head, within_s)


class _Exchange:
    """One call on a connection of its own, by the rules of flow control."""

    def __init__(self, found: socket.socket, body: bytes) -> None:
        self._socket, self._left = found, memoryview(body)
        self._http = connection()
        self._ended = False

    def run(self, head: Headers, within_s: float) -> str:
        """See `exchange`."""
        self._http.send_headers(1, head)
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                self._write()
            readable, _, _ = select.select([self._socket], [], [], 0.5)
            if not readable:
                continue
            try:
                received = self._socket.recv(65536)
            except OSError:
                return "reset"
            if not received:
                return "closed"
            if (status := self._status(received)) is not None:
                return status
        return "nothing"

    def _write(self) -> None:
        """As much of the body as may be sent now."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            while self._left and (room := self._room()):
                self._http.send_data(1, self._left[:room].tobytes())
                self._left = self._left[room:]
                self._socket.sendall(self._http.data_to_send())
            if not self._left and not self._ended:
                self._ended = True
                self._http.end_stream(1)
        self._socket.sendall(self._http.data_to_send())

    def _room(self) -> int:
        """Bytes that may be sent at once."""
        return min(self._http.local_flow_control_window(1), self._http.max_outbound_frame_size)

    def _status(self, received: bytes) -> str | None:
        """The end of the call, if it is in what was received."""
        for event in self._http.receive_data(received):
            if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                said = {_text(name): _text(value) for name, value in event.headers or []}
                if "grpc-status" in said:
                    return said["grpc-status"]
            if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return "reset"
        return None


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode("latin-1")
