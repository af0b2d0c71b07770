"""What planning reckons a request to send is what passes the wire."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from presplit.core.cost import REPLY_BYTES
from presplit.runtime.measuring.asking import Asking, echo_here
from presplit.runtime.measuring.measure_link import SMALL_DOWN, SMALL_UP
from presplit.runtime.serving.echo import BLOCK

ASKED = 20


@contextlib.contextmanager
def counted(target: str) -> Iterator[tuple[str, dict[str, int]]]:
    """An address before ``target``, and the bytes that pass it each way."""
    host, port = target.rsplit(":", 1)
    passed = {"up": 0, "down": 0}

    def carry(here: socket.socket, there: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while piece := here.recv(65536):
                passed[way] += len(piece)
                there.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as ends:

        def accept() -> None:
            near = ends.enter_context(listener.accept()[0])
            far = ends.enter_context(socket.create_connection((host, int(port))))
            for ways in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=carry, args=ways, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", passed


def test_requests_and_replies_have_the_bytes_that_plans_reckon_with() -> None:
    with echo_here() as target, counted(target) as (address, passed), Asking(address) as asking:
        asking.seconds()
        time.sleep(0.05)
        passed.update(up=0, down=0)
        for _ in range(ASKED):
            asking.seconds(BLOCK, 4)
        # Now and then a ping of 17 bytes and its window of 13 come with a request.
        assert passed["up"] / ASKED == pytest.approx(SMALL_UP, abs=8)
        assert passed["down"] / ASKED == pytest.approx(SMALL_DOWN, abs=8)
    # Ten classes, and the name of a tail in place of the echo's.
    assert REPLY_BYTES - SMALL_DOWN == 36 + 12
