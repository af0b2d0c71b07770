"""The guard before a server: who is gone or would be late is not asked, and is found when back."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import SpecError
from presplit.core.plans import Plan
from presplit.lab.processes import Process, free_port
from presplit.runtime import Edge
from presplit.runtime.hosted import Reply
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.upstreams.first_of import FirstOf
from presplit.runtime.upstreams.guard import OPENS_AFTER, Guarded

Start = Callable[..., contextlib.AbstractContextManager[tuple[str, Process]]]
LOGITS = np.array([[9, 1, 2, 3]], np.float32)
REQUEST = Request("small", np.zeros((1, 12), np.float32), 4)


class Pending:
    """A reply that is there after a while, or when its server lets it."""

    server_s = 0.0

    def __init__(self, server: Server) -> None:
        self.server, self.asked_at = server, time.monotonic()
        self.given_up = threading.Event()

    def wait(self, until: float) -> Reply | Failure:
        while True:
            now = time.monotonic()
            if self.given_up.is_set():
                return Failure("link_down", "nobody waits any more")
            if isinstance(self.server.does, Failure):
                return self.server.does
            if self.server.does is not None and now >= self.asked_at + self.server.does:
                return LOGITS
            if now >= until:
                return Failure("late", "no reply in time")
            self.given_up.wait(0.001)

    def cancel(self) -> None:
        self.given_up.set()


class Server:
    """One that answers after ``does`` seconds, never (None), or fails."""

    def __init__(self, does: float | Failure | None) -> None:
        self.does = does
        self.asked = list[str]()

    def greet(self, name: str) -> None:
        pass

    def ask(self, request: Request, until: float) -> Pending:
        self.asked.append(request.model)
        return Pending(self)

    def close(self) -> None:
        pass


def outcome(up: Any, within_s: float = 0.03) -> str:
    """What comes of one request."""
    until = time.monotonic() + within_s
    asked = up.ask(REQUEST, until)
    reply = asked if isinstance(asked, Failure) else asked.wait(until)
    if isinstance(reply, Failure) and not isinstance(asked, Failure):
        asked.cancel()
    return reply.why if isinstance(reply, Failure) else "server"


def becomes(up: Any, wanted: str, within_s: float = 2.0) -> bool:
    """Whether that comes of a request before long."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if outcome(up) == wanted:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def test_an_overloaded_server_is_left_alone_as_long_as_it_asks_and_never_for_long() -> None:
    server = Server(Failure("overloaded", "full", again_s=0.1))
    guard = Guarded(lambda: server)
    assert [outcome(guard) for _ in range(20)] == ["overloaded"] * 20
    assert len(server.asked) == 1
    asked = guard.ask(REQUEST, time.monotonic() + 1)
    assert isinstance(asked, Failure) and "asks to be left alone" in asked.detail
    server.does = 0.001
    time.sleep(0.1)
    assert outcome(guard) == "server"
    server.does = Failure("overloaded", "full", again_s=1e9)
    assert outcome(guard) == "overloaded"
    server.does = 0.001
    assert becomes(guard, "server")
    guard.close()


def test_after_some_misses_nobody_waits_and_one_probe_finds_the_server_again() -> None:
    server = Server(0.001)
    guard = Guarded(lambda: server)
    assert outcome(guard) == "server"
    server.does = None
    assert [outcome(guard) for _ in range(OPENS_AFTER)] == ["late"] * OPENS_AFTER
    began = time.monotonic()
    assert [outcome(guard) for _ in range(50)] == ["late"] * 50
    assert time.monotonic() - began < 0.2  # one request would wait 30 ms
    time.sleep(0.05)
    assert guard.not_asked and len(server.asked) <= 1 + OPENS_AFTER + 2
    server.does = 0.001
    assert becomes(guard, "server", within_s=1.0)
    counts = dict(guard.counts)
    assert (counts["breaks"], counts["late"]) == (1, OPENS_AFTER)
    assert counts["probes"] <= 5
    assert counts["not asked"] >= 50
    guard.close()


def test_a_probe_whose_connection_is_given_up_is_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its end may look like a word of the server's."""
    monkeypatch.setattr("presplit.runtime.upstreams.guard.MOST_PROBES", 1)
    monkeypatch.setattr("presplit.runtime.upstreams.guard.EVERY_S", (0.01, 0.02))
    monkeypatch.setattr("presplit.runtime.upstreams.guard.SOON_S", (0.01, 0.02))
    made = list[Server]()

    class Closed(Server):
        def close(self) -> None:
            self.does = Failure("overloaded", "the channel was closed")

    def make() -> Server:
        made.append(Closed(None))
        return made[-1]

    guard = Guarded(make)
    for _ in range(OPENS_AFTER):
        outcome(guard)
    time.sleep(0.2)
    assert guard.not_asked and len(made) > 3
    made[-1].does = 0.0
    guard.close()


def test_a_breaker_that_opens_again_at_once_still_has_somebody_who_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that probes may be busy connecting meanwhile, or fail to."""
    monkeypatch.setattr("presplit.runtime.upstreams.guard.EVERY_S", (0.01, 0.02))
    monkeypatch.setattr("presplit.runtime.upstreams.guard.SOON_S", (0.01, 0.02))
    server = Server(None)
    connecting, goes_on = threading.Event(), threading.Event()
    made = list[int]()

    def make() -> Server:
        made.append(len(made))
        if made == [0, 1]:
            connecting.set()
            goes_on.wait(5)
            raise OSError("too many open files")
        return server

    guard = Guarded(make, retries=False)
    assert [outcome(guard, 0.005) for _ in range(OPENS_AFTER)] == ["late"] * OPENS_AFTER
    assert guard.not_asked and connecting.wait(5)
    server.does = 0.0  # the probe that waits is answered
    assert becomes(guard, "server")
    server.does = Failure("link_down", "UNAVAILABLE")
    assert {outcome(guard) for _ in range(OPENS_AFTER)} == {"link_down"}
    assert guard.not_asked
    server.does = 0.0
    time.sleep(0.05)
    assert guard.not_asked and guard.counts["breaks"] == 2
    goes_on.set()
    assert becomes(guard, "server")
    guard.close()


def test_a_server_that_is_gone_is_asked_little_more_than_once_for_each_request() -> None:
    server = Server(Failure("link_down", "UNAVAILABLE"))
    guards = [Guarded(lambda: server) for _ in range(5)]
    offered = 60
    for guard in guards:
        assert {outcome(guard) for _ in range(offered)} == {"link_down"}
    assert len(server.asked) <= 1.1 * offered * len(guards)
    assert sum(guard.counts["retries"] for guard in guards) == len(guards)
    for guard in guards:
        guard.close()


def test_one_failed_connection_is_tried_again_if_that_fits() -> None:
    server = Server(0.0)
    real = server.ask

    def once(request: Request, until: float) -> Any:
        server.ask = real  # type: ignore[method-assign]
        return SimpleNamespace(
            wait=lambda until: Failure("link_down", "UNAVAILABLE"), cancel=lambda: None
        )

    guard = Guarded(lambda: server)
    server.ask = once  # type: ignore[method-assign]
    assert outcome(guard) == "server"
    assert (guard.counts["retries"], guard.not_asked) == (1, {})
    guard.close()


def test_what_a_server_refuses_is_said_once_and_not_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(Failure("refused", "no model of that name"))
    guard = Guarded(lambda: server, address="10.0.0.1:8443")
    assert [outcome(guard) for _ in range(5)] == ["refused"] * 5
    assert len(server.asked) == 1
    assert caplog.messages == ["10.0.0.1:8443 refuses small: no model of that name"]
    guard.close()


def test_a_request_that_even_a_fast_reply_would_be_too_late_for_is_not_sent() -> None:
    server = Server(0.05)
    guard = Guarded(lambda: server)
    assert outcome(guard, 1.0) == "server"
    assert (outcome(guard, 0.02), len(server.asked)) == ("no_time", 1)
    assert outcome(guard, 1.0) == "server"
    guard.close()


def test_a_reply_that_is_not_needed_any_more_is_no_miss() -> None:
    server = Server(None)
    guard = Guarded(lambda: server)
    for _ in range(2 * OPENS_AFTER):
        asked = guard.ask(REQUEST, time.monotonic() + 5)
        assert not isinstance(asked, Failure)
        asked.cancel()
    assert not guard.not_asked
    guard.close()


def test_of_several_servers_the_fastest_is_asked_and_another_when_it_fails() -> None:
    slow, fast = Server(0.02), Server(0.002)
    ups = FirstOf([Guarded(lambda: slow, retries=False), Guarded(lambda: fast, retries=False)])
    assert {outcome(ups, 1.0) for _ in range(30)} == {"server"}
    assert len(fast.asked) >= 28
    fast.does = Failure("link_down", "UNAVAILABLE")
    assert {outcome(ups, 1.0) for _ in range(10)} == {"server"}
    assert ups.counts["passed to another server"] >= 1
    slow.does = Failure("overloaded", "no place")
    assert outcome(ups, 1.0) in ("overloaded", "link_down")
    ups.close()


def test_an_edge_of_several_servers_answers_while_one_of_them_lives(
    bundle: Bundle, promised: SimpleNamespace, server: str
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with Edge.open(bundle, server=f"{nobody}, {server}", plan=Plan(1, deadline_s=2.0)) as edge:
        answers = [edge.answer(promised.IMAGE) for _ in range(10)]
        counts = edge.counts
    assert {answer.why for answer in answers} == {"server"}
    assert (counts["answers server"], counts["replies"]) == (10, 10)
    for wrong in (f"{server},{server}", "", f"{server},nowhere"):
        with pytest.raises(SpecError, match="server"):
            Edge.open(bundle, server=wrong, plan=Plan(1))


def test_a_server_that_hangs_or_was_restarted_is_used_again_at_once(
    bundle: Bundle, promised: SimpleNamespace, start: Start
) -> None:
    port = str(free_port())
    serving = ("presplit", "serve", str(bundle.path), "--json", "--port", port)
    with contextlib.ExitStack() as last:
        with start(*serving) as (address, process):
            plan = Plan(1, deadline_s=promised.DEADLINE_S)
            edge = last.enter_context(Edge.open(bundle, server=address, plan=plan))
            assert promised.comes_back(edge)
            process.send_signal(signal.SIGSTOP)
            answers = promised.answers_in_time(edge, count=40)
            waited = [answer for answer in answers if answer.elapsed_s > 0.05]
            assert len(waited) <= 5
            process.send_signal(signal.SIGCONT)
            assert back_within(edge, promised.IMAGE, 2.0)
        promised.answers_in_time(edge, count=5)
        last.enter_context(start(*serving))
        assert back_within(edge, promised.IMAGE, 2.0)
        assert edge.counts["breaks"] >= 2


@pytest.mark.long
def test_a_link_on_which_connecting_takes_seconds_is_used(
    bundle: Bundle, promised: SimpleNamespace, server: str, start: Start
) -> None:
    """The connection alone takes two round trips; one that fails is no reason to hurry the next."""
    slow = ("--target", server, "--rtt-s", "1.5", "--up-bps", "60e3", "--down-bps", "60e3")
    with (
        start("presplit.lab.shaper", *slow) as (address, _),
        Edge.open(bundle, server=address, plan=Plan(1, deadline_s=2.0)) as edge,
    ):
        assert edge.answer(promised.IMAGE).why == "late"  # it is not even connected
        assert back_within(edge, promised.IMAGE, 20.0)


def back_within(edge: Edge, image: np.ndarray, seconds: float) -> bool:
    """Whether the server answers before long; the promise is half a second on a quiet machine."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if edge.answer(image).why == "server":
            return True
        time.sleep(0.01)
    return False
