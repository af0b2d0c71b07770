"""Knocking: is anybody there, found out by bare TCP connections that carry nothing.

A connection that is being made over a link that was down waits longer and longer before it tries
again. So a new one begins every moment beside those that wait; the first that is there says that
the link and the machine behind it are back.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time

from presplit.runtime.address import bare

EVERY_S = 0.2
"""Between two knocks, on average."""
WAITS_S = 5.0
"""A knock that is not heard after so long is given up: slow radio links take seconds."""
STAYS_S = 0.03
"""A connection that is not ended within so long is taken for one."""


def knock(address: str, stop: threading.Event) -> bool:
    """Knock at ``HOST:PORT`` until somebody is there; True if the first knock was heard at once.

    "At once" is before the second one was due. Returns when ``stop`` is set, too.
    """
    host, _, port = address.rpartition(":")
    waiting = dict[socket.socket, float]()
    first = True
    try:
        while not stop.is_set():
            began, pause_s = time.monotonic(), EVERY_S * random.uniform(0.8, 1.2)
            one = _begin(bare(host), int(port))
            if one is not None:
                waiting[one] = began
            if _heard(waiting, began + pause_s, stop):
                return first
            first = False
    finally:
        for one in waiting:
            one.close()
    return False


def _begin(host: str, port: int) -> socket.socket | None:
    """A connection that is being made; None if it cannot even be begun."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        one = socket.socket(family, kind, protocol)
    except OSError:
        return None
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        try:
            one.connect(place)
        except BlockingIOError:
            raise
        except OSError:
            one.close()
            return None
    return one


def _heard(waiting: dict[socket.socket, float], until: float, stop: threading.Event) -> bool:
    """Whether one of those that wait is there by then; those that failed are dropped."""
    while (left_s := until - time.monotonic()) > 0 and not stop.is_set():
        if not waiting:
            stop.wait(left_s)
            continue
        with selectors.DefaultSelector() as looking:
            for one in waiting:
                looking.register(one, selectors.EVENT_WRITE)
            for key, _ in looking.select(min(left_s, EVERY_S)):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if _stays(one):
                    return True
                waiting.pop(one)
                one.close()
        for one, began in list(waiting.items()):
            if time.monotonic() - began > WAITS_S:
                waiting.pop(one)
                one.close()
    return False


def _stays(one: socket.socket) -> bool:
    """Whether a connection was made, and is not ended at once by the other side."""
    if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return False
    try:
        one.settimeout(STAYS_S)
        return one.recv(1, socket.MSG_PEEK) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
