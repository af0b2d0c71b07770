"""The edge's side of a lane: requests and replies over a socket of this machine.

A request is written by the thread that asks, as far as the socket takes it; the rest is written,
and all replies are read, by the lane's own thread. So nobody waits who only asks.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import time
from collections import deque

from presplit.core.types import Why
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure
from presplit.runtime.wire.frames import (
    ASK,
    BYE,
    FORGET,
    HEAD,
    HELLO,
    REFUSAL,
    REPLY,
    WELCOME,
    Frame,
    Reader,
    frame,
)
from presplit.runtime.wire.reasons import SAID
from presplit.runtime.wire.replies import Expected
from presplit.runtime.wire.words import pushed_back_s

TOLD: dict[str, Why] = {**SAID, "link_down": "link_down"}
"""What a refusal may say; a server that ends says that it is gone, for gRPC is not there to."""
CONNECT_S = 1.0
"""How long the lane's thread may take to be let in."""
MOST_UNSENT = 64
"""Requests that may wait to be written: the server does not read as fast as it is asked."""
READ_BYTES = 64 * 1024
LOST = Failure("link_down", "the lane to the server broke")
GONE = Failure("link_down", "nobody waits any more, or the lane was closed")
LATE = Failure("late", "no reply in time")


class Lane:
    """A lane by the ``name`` and the ``ticket`` that a greeting gave.

    Until it `is_up`, and when it is not any more, requests go another way. Replies of more than
    ``most_bytes`` are none.
    """

    def __init__(self, name: str, ticket: str, most_bytes: int) -> None:
        self._reader = Reader(most_bytes)
        self._lock, self._numbers = threading.Lock(), itertools.count(1)
        self._pending: dict[int, LanePending] = {}
        self._room = memoryview(bytearray(READ_BYTES))
        self._unsent: deque[memoryview] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.is_up, self._ends, self._is_closed = False, False, False
        args = (f"\0{name}", ticket.encode())
        threading.Thread(target=self._work, args=args, name="lane", daemon=True).start()

    @property
    def ends(self) -> bool:
        """True once it takes no more requests, and never will."""
        return self._ends

    @property
    def is_gone(self) -> bool:
        """True once its thread has ended."""
        return self._wake < 0

    def ask(self, message: bytes, until: float, expected: Expected) -> LanePending | Failure | None:
        """Put a request on its way; None if the lane is not there."""
        pending = LanePending(self, next(self._numbers) & 0xFFFFFFFF, expected)
        head = HEAD.pack(len(message), pending.number, ASK, until - time.monotonic())
        with self._lock:
            if not self.is_up:
                return None
            if len(self._unsent) >= MOST_UNSENT:
                return Failure("overloaded", f"{MOST_UNSENT} requests wait to be written already")
            self._pending[pending.number] = pending
            self._write([head, message])
        return pending

    def forget(self, pending: LanePending) -> None:
        """Have ``pending`` not answered any more."""
        with self._lock:
            if self._pending.pop(pending.number, None) is not None and self.is_up:
                self._write([frame(FORGET, pending.number)])

    def close(self) -> None:
        """Close the lane; what is on its way fails."""
        with self._lock:
            self.is_up, self._ends, self._is_closed = False, True, True
            self._rouse()

    def _write(self, parts: list[bytes]) -> None:
        """Write ``parts``, or as much as the socket takes, and leave the rest to the thread.

        The lock is held.
        """
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.sendmsg(parts)
            except BlockingIOError:
                pass
            except OSError:  # the thread finds it broken
                self._rouse()
                return
        size = sum(map(len, parts))
        if sent < size:
            self._unsent.append(memoryview(b"".join(parts))[sent:])
            self._rouse()

    def _rouse(self) -> None:
        """Wake the thread, if it is still there; the lock is held.

        Once the thread has ended, the number may be that of a file which is somebody else's.
        """
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _work(self, address: str, ticket: bytes) -> None:
        """What the lane's thread does."""
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(address)
            self._socket.sendall(frame(HELLO, 0, ticket))
            self._socket.settimeout(CONNECT_S)
            self._read()
            self._socket.setblocking(False)
            self._attend()
        except (OSError, ValueError):
            pass  # who asks goes another way
        finally:
            self._over()

    def _attend(self) -> None:
        """Read and write as it comes, until the lane ends."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        writes = False
        while not self._ends or self._pending:
            ready = dict(poll.poll())
            if self._wake in ready:
                os.eventfd_read(self._wake)
                if self._is_closed:
                    return
            with self._lock:
                self._flush()
                if writes != bool(self._unsent):
                    writes = not writes
                    poll.modify(self._socket, select.POLLIN | (select.POLLOUT if writes else 0))
            if ready.get(self._socket.fileno(), 0) & ~select.POLLOUT:
                self._read()

    def _flush(self) -> None:
        """Write what is left; the lock is held."""
        while self._unsent:
            first = self._unsent[0]
            try:
                sent = self._socket.send(first)
            except BlockingIOError:
                return
            if sent < len(first):
                self._unsent[0] = first[sent:]
                return
            self._unsent.popleft()

    def _read(self) -> None:
        """Take in what came; raises `OSError` where the server closed the lane."""
        size = self._socket.recv_into(self._room)
        if not size:
            raise ConnectionResetError("the server closed the lane")
        for each in self._reader.feed(self._room[:size]):
            self._take(each)

    def _take(self, found: Frame) -> None:
        """Do what a frame says."""
        if found.kind == WELCOME:
            with self._lock:
                self.is_up = not self._ends
        elif found.kind == BYE:
            with self._lock:
                self.is_up, self._ends = False, True
        else:
            pending = self._pending.pop(found.number, None)
            if pending is not None:
                pending.settle(found)

    def _over(self) -> None:
        """Nothing comes any more."""
        with self._lock:
            self.is_up, self._ends = False, True
            left = list(self._pending.values())
            self._pending.clear()
            os.close(self._wake)
            self._wake = -1
            self._socket.close()
        for pending in left:
            pending.settle(LOST)


class LanePending:
    """A request on its way over a lane."""

    def __init__(self, lane: Lane, number: int, expected: Expected) -> None:
        self.number = number
        self._lane, self._expected = lane, expected
        self._came: Frame | Failure = LATE
        self._reply: Reply | Failure | None = None
        # Shut until something came; a lock is the quickest to be waited for with a time.
        self._shut, self._settled = threading.Lock(), threading.Lock()
        self._shut.acquire()

    @property
    def server_s(self) -> float | None:
        """What the server says it took."""
        return self._expected.server_s

    def wait(self, until: float) -> Reply | Failure:
        """The logits, or why there are none."""
        if self._reply is not None:
            return self._reply
        self._expected.prepare()
        if not self._shut.acquire(timeout=max(0.0, until - time.monotonic())):
            return LATE
        self._shut.release()
        if self._reply is None:
            self._reply = self._read(self._came)
        return self._reply

    def cancel(self) -> None:
        """Ask no more."""
        self._lane.forget(self)
        self.settle(GONE)

    def settle(self, what: Frame | Failure) -> None:
        """Have ``what`` come of it, unless something has; it is read by who waits."""
        if self._settled.acquire(blocking=False):
            self._came = what
            self._shut.release()

    def _read(self, found: Frame | Failure) -> Reply | Failure:
        """What ``found`` says."""
        if isinstance(found, Failure):
            return found
        if found.body is None:
            return Failure("bad_reply", "a reply beyond all bounds")
        if found.kind == REPLY:
            return self._expected.read(found.body)
        if found.kind != REFUSAL:
            return Failure("bad_reply", f"a frame of kind {found.kind}")
        head, _, detail = found.body.decode("utf-8", "replace").partition("\n")
        why, _, again_ms = head.partition(" ")
        return Failure(TOLD.get(why, "bad_reply"), detail, pushed_back_s(again_ms))
