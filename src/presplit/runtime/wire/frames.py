"""The lane's frames: what passes between edge and server on one machine, beside gRPC.

A frame is a head of 17 bytes (size of what follows, number of the request, kind, and for a request
the seconds until its reply is worthless), little-endian, and what follows. Requests and replies are
the protocol's own messages; what gRPC says beside them, why a request failed, is said in words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEAD = struct.Struct("<IIBd")
"""Bytes that follow, number of the request, kind, seconds left."""

# What an edge sends.
HELLO, ASK, FORGET = 0, 1, 2
# What a server sends.
WELCOME, REPLY, REFUSAL, BYE = 10, 11, 12, 13


@dataclass(frozen=True)
class Frame:
    """A frame of ``kind`` for the request ``number``; ``body`` is None if it was too large."""

    kind: int
    number: int
    left_s: float
    body: bytes | None


def frame(kind: int, number: int, body: bytes = b"", left_s: float = 0.0) -> bytes:
    """A frame as it travels.

    >>> list(Reader(16).feed(frame(REPLY, 7, b"abc")))
    [Frame(kind=11, number=7, left_s=0.0, body=b'abc')]
    """
    return HEAD.pack(len(body), number, kind, left_s) + body


class Reader:
    """Frames from bytes as they come in; a body of more than ``most_bytes`` is passed over."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._buffer = bytearray()
        self._skip = 0

    @property
    def is_between(self) -> bool:
        """True if no frame is half here."""
        return not self._buffer and not self._skip

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that are whole with ``data``."""
        buffer = self._buffer
        if self.is_between and (whole := self._alone(data)) is not None:
            yield whole
            return
        buffer += data
        while True:
            if self._skip:
                passed = min(self._skip, len(buffer))
                del buffer[:passed]
                self._skip -= passed
            if self._skip or len(buffer) < HEAD.size:
                return
            size, number, kind, left_s = HEAD.unpack_from(buffer)
            if size > self.most_bytes:
                del buffer[: HEAD.size]
                self._skip = size
                yield Frame(kind, number, left_s, None)
                continue
            end = HEAD.size + size
            if len(buffer) < end:
                return
            with memoryview(buffer) as view:
                body = bytes(view[HEAD.size : end])
            del buffer[:end]
            yield Frame(kind, number, left_s, body)

    def _alone(self, data: bytes | memoryview) -> Frame | None:
        """The one frame that ``data`` is, as it mostly is: then it is copied only once."""
        if len(data) < HEAD.size:
            return None
        size, number, kind, left_s = HEAD.unpack_from(data)
        if HEAD.size + size != len(data) or size > self.most_bytes:
            return None
        return Frame(kind, number, left_s, bytes(data[HEAD.size :]))
