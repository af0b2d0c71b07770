"""The lane's frames: what passes between edge and server on one machine, beside gRPC.

A frame is a head of nine bytes (size of what follows, number of the request, kind), little-endian,
and what follows. Requests and replies are the protocol's own messages; what gRPC says beside them,
time left and why a request failed, is said here in so many words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD = struct.Struct("<IIB")
"""Bytes that follow, number of the request, kind."""
LEFT = struct.Struct("<d")
"""Seconds until the reply is worthless; before a request."""

# What an edge sends.
HELLO, ASK, FORGET = 0, 1, 2
# What a server sends.
WELCOME, REPLY, REFUSAL, BYE = 10, 11, 12, 13


@dataclass(frozen=True)
class Frame:
    """A frame of ``kind`` for the request ``number``; ``body`` is None if it was too large."""

    kind: int
    number: int
    body: bytes | None


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    """A frame as it travels.

    >>> list(Reader(16).feed(frame(REPLY, 7, b"abc")))
    [Frame(kind=11, number=7, body=b'abc')]
    """
    return HEAD.pack(len(body), number, kind) + body


class Reader:
    """Frames from bytes as they come in; a body of more than ``most_bytes`` is passed over."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._skip = 0

    @property
    def is_between(self) -> bool:
        """True if no frame is half here."""
        return not self._buffer and not self._skip

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that are whole with ``data``."""
        buffer = self._buffer
        buffer += data
        while True:
            if self._skip:
                passed = min(self._skip, len(buffer))
                del buffer[:passed]
                self._skip -= passed
            if self._skip or len(buffer) < HEAD.size:
                return
            size, number, kind = HEAD.unpack_from(buffer)
            if size > self._most_bytes:
                del buffer[: HEAD.size]
                self._skip = size
                yield Frame(kind, number, None)
                continue
            end = HEAD.size + size
            if len(buffer) < end:
                return
            with memoryview(buffer) as view:
                body = bytes(view[HEAD.size : end])
            del buffer[:end]
            yield Frame(kind, number, body)
