"""A request over gRPC: waited for as long as one likes, given up, and nothing of it is kept."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from presplit.runtime.measuring.asking import echo_here
from presplit.runtime.serving.echo import BLOCK, echo_name
from presplit.runtime.upstream import Failure, Pending, Request
from presplit.runtime.wire.client import Client

ECHO = Request(echo_name(10), np.zeros((1, BLOCK), np.int8), 10)
UNKNOWN = Request("nobody", np.zeros((1, BLOCK), np.int8), 10)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def asked(client: Client, request: Request = ECHO, until: float | None = None) -> Pending:
    found = client.ask(request, soon() if until is None else until)
    assert not isinstance(found, Failure)
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with echo_here() as address:
        found = Client(address, patience_s=2.0)
        assert not isinstance(asked(found).wait(soon()), Failure)
        yield found
        found.close()


@pytest.fixture(scope="module")
def unanswered() -> Iterator[Client]:
    """A client of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = Client(f"127.0.0.1:{silent.getsockname()[1]}", patience_s=60.0)
        yield found
        found.close()


def test_a_reply_may_be_waited_for_again_and_read_twice(client: Client) -> None:
    pending = asked(client)
    replies = [pending.wait(soon(0.5)), pending.wait(soon(0.0)), pending.wait(soon())]
    for reply in replies:
        assert not isinstance(reply, Failure) and reply.shape == (1, 10)
    assert 0 <= (pending.server_s or 0.0) < 0.5


def test_who_waits_is_answered_when_time_is_up_and_when_it_is_given_up(
    unanswered: Client,
) -> None:
    pending = asked(unanswered)
    began = time.monotonic()
    assert pending.wait(soon(0.05)) == Failure("late", "no reply in time")
    assert time.monotonic() - began < 0.5
    threading.Timer(0.05, pending.cancel).start()
    reply = pending.wait(soon())
    assert isinstance(reply, Failure) and reply.why == "link_down"
    assert time.monotonic() - began < 2


def test_a_call_ends_by_itself_not_after_its_time(unanswered: Client) -> None:
    for limit_s in (0.02, 0.1):
        until = soon(limit_s)
        reply = asked(unanswered, until=until).wait(until)
        over_s = time.monotonic() - until
        assert isinstance(reply, Failure) and reply.why == "late"
        assert -0.01 < over_s < 0.1


def kept_kb(client: Client, use: Callable[[Client], object], times: int) -> float:
    """How many KB each use leaves behind."""
    for _ in range(times):
        use(client)
    pages = []
    for _ in range(2):
        pages.append(int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]))
        for _ in range(times):
            use(client)
    return 4 * (pages[1] - pages[0]) / times


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own count")
@pytest.mark.parametrize(
    "use",
    [
        lambda client: asked(client).wait(soon()),
        lambda client: asked(client, UNKNOWN).wait(soon()),
        lambda client: asked(client).cancel(),
        lambda client: asked(client, until=soon(0.0005)).wait(soon(0.0005)),
    ],
    ids=["answered", "refused", "given up", "late"],
)
def test_nothing_of_a_request_is_kept(client: Client, use: Callable[[Client], object]) -> None:
    assert kept_kb(client, use, 300) < 8  # a call of gRPC that is not let go of keeps 20


def test_many_threads_share_a_client(client: Client) -> None:
    failures: list[object] = []

    def ask() -> None:
        for _ in range(20):
            reply = asked(client).wait(soon())
            if isinstance(reply, Failure):
                failures.append(reply)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_client_that_is_closed_greets_nobody_and_asks_in_vain() -> None:
    with echo_here() as address:
        client = Client(address, patience_s=2.0)
        client.close()
        client.greet(ECHO.model)
        failure = client.ask(ECHO, soon())
        assert isinstance(failure, Failure) and failure.why == "link_down"


def test_a_signal_ends_the_wait_for_a_reply_and_what_is_done_after_it(unanswered: Client) -> None:
    """Ctrl-C while the reply is on its way over a slow link, for which nobody waits any more."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupted)
    main = threading.main_thread().ident or 0
    pending = asked(unanswered, until=soon(2.0))
    threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1)).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            pending.wait(soon(2.0))
    finally:
        signal.signal(signal.SIGUSR1, before)
    pending.cancel()
    failure = pending.wait(soon(2.0))
    assert isinstance(failure, Failure) and failure.why == "link_down"
    assert time.monotonic() - began < 1
