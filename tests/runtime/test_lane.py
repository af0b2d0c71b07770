"""A lane to a server on the same machine: as guarded as gRPC, and gone without harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.runtime.hosted import Array, Layer, Overloaded, Reply
from presplit.runtime.serving.echo import BLOCK, Nothing, echo_name, echoing
from presplit.runtime.upstream import Failure, Pending, Request
from presplit.runtime.wire import lanes as lanes_file
from presplit.runtime.wire.client import Client
from presplit.runtime.wire.frames import (
    ASK,
    FORGET,
    HELLO,
    REFUSAL,
    REPLY,
    WELCOME,
    Reader,
    frame,
)
from presplit.runtime.wire.lane import Lane, LanePending
from presplit.runtime.wire.replies import packed
from presplit.runtime.wire.server import Listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="lanes are Linux's")

MODEL = echo_name(4)
ECHO = Request(MODEL, np.zeros((1, BLOCK), np.int8), 4)
UNKNOWN = Request("nobody", np.zeros((1, BLOCK), np.int8), 4)


class Held(Layer):
    """Echoes, but requests of two blocks wait for `go`, and it keeps who asked."""

    def __init__(self) -> None:
        super().__init__(echoing(Nothing()))
        self.waiting: list[Future[Reply]] = []
        self.clients: set[str] = set()

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        self.clients.add(client)
        if len(array) == 3:
            raise Overloaded("full", again_s=0.02)
        if len(array) != 2:
            return super().run(name, array, until=until, client=client)
        found: Future[Reply] = Future()
        self.waiting.append(found)
        return found

    def go(self) -> None:
        for found in self.waiting:
            if found.set_running_or_notify_cancel():
                found.set_result(np.zeros((1, 4), np.float32))


SLOW = Request(MODEL, np.zeros((2, BLOCK), np.int8), 4)
SHED = Request(MODEL, np.zeros((3, BLOCK), np.int8), 4)


class Stage:
    """A server on a thread of its own loop."""

    def __init__(self) -> None:
        self.loop, self.held = asyncio.new_event_loop(), Held()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.listener, self.address = self.there(self.begin())

    def there(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    async def begin(self) -> tuple[Listener, str]:
        listener = Listener(self.held, name="presplit", version="test")
        return listener, await listener.start("127.0.0.1", 0)

    def raw(self) -> socket.socket:
        """A lane in the hands of somebody who may send what he likes."""
        _, name, ticket = self.listener._lanes.offer("somebody").split(" ")
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(5)
        found.connect(f"\0{name}")
        found.sendall(frame(HELLO, 0, ticket.encode()))
        assert next(iter(frames(found))).kind == WELCOME
        return found

    def look(self) -> None:
        """Have lanes looked at now."""
        self.loop.call_soon_threadsafe(self.listener._lanes._look)

    def close(self) -> None:
        self.there(self.listener.stop(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def frames(lane: socket.socket) -> Iterator[Any]:
    """The frames that come, until the lane is closed."""
    reader = Reader(2**20)
    while data := lane.recv(65536):
        yield from reader.feed(data)


def asking(number: int, request: Request = ECHO, left_s: float = 5.0) -> bytes:
    return frame(ASK, number, packed(request, str(number)), left_s)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def eventually(holds: Callable[[], object]) -> None:
    until = soon()
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.002)


def on_lane(client: Client, stage: Stage) -> None:
    """Greet, and wait until the lane is up."""
    client.greet(MODEL)
    eventually(lambda: client._lane is not None and client._lane.is_up)


def asked(client: Client, request: Request = ECHO, until: float | None = None) -> Pending:
    found = client.ask(request, soon() if until is None else until)
    assert not isinstance(found, Failure)
    return found


@pytest.fixture
def stage() -> Iterator[Stage]:
    found = Stage()
    yield found
    found.close()


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    found = Client(stage.address, patience_s=2.0)
    on_lane(found, stage)
    yield found
    found.close()


def test_requests_go_by_the_lane_and_are_answered_as_over_grpc(
    stage: Stage, client: Client
) -> None:
    pending = asked(client)
    assert isinstance(pending, LanePending)
    reply = pending.wait(soon())
    assert not isinstance(reply, Failure) and reply.shape == (1, 4)
    assert 0 <= (pending.server_s or -1) < 5
    by_grpc = Client(stage.address, patience_s=2.0, lane=False)
    by_grpc.greet(MODEL)
    said = [asked(each, UNKNOWN).wait(soon()) for each in (client, by_grpc)]
    assert said[0] == said[1] and isinstance(said[0], Failure) and said[0].why == "refused"
    by_grpc.close()
    assert stage.held.clients == {"127.0.0.1"}


def test_a_slow_request_holds_up_no_other_and_may_be_given_up(stage: Stage, client: Client) -> None:
    slow, given_up = asked(client, SLOW), asked(client, SLOW)
    assert not isinstance(asked(client).wait(soon()), Failure)
    assert slow.wait(soon(0.01)) == Failure("late", "no reply in time")
    threading.Timer(0.02, given_up.cancel).start()
    gone = given_up.wait(soon())
    assert isinstance(gone, Failure) and gone.why == "link_down"
    eventually(lambda: stage.held.waiting[1].cancelled())
    stage.loop.call_soon_threadsafe(stage.held.go)
    assert not isinstance(slow.wait(soon()), Failure)


def test_who_is_shed_hears_for_how_long_by_either_way(stage: Stage, client: Client) -> None:
    by_grpc = Client(stage.address, patience_s=5, lane=False)
    on_lane(client, stage)
    for each in (client, by_grpc):
        reply = asked(each, SHED).wait(soon())
        assert isinstance(reply, Failure)
        assert (reply.why, reply.again_s) == ("overloaded", 0.02)
    by_grpc.close()


def test_a_server_that_ends_answers_what_is_inside_and_one_that_breaks_fails_it(
    stage: Stage, client: Client
) -> None:
    slow = asked(client, SLOW)
    eventually(lambda: stage.held.waiting)
    ending = asyncio.run_coroutine_threadsafe(stage.listener.stop(5.0), stage.loop)
    eventually(lambda: not client._lane.is_up)
    assert not ending.done()
    stage.loop.call_soon_threadsafe(stage.held.go)
    assert not isinstance(slow.wait(soon()), Failure)
    ending.result(5)


def test_a_lane_that_breaks_fails_what_is_on_its_way_and_comes_back(
    stage: Stage, client: Client
) -> None:
    slow = asked(client, SLOW)
    eventually(lambda: stage.listener._lanes.open)
    for lane in tuple(stage.listener._lanes.open):
        stage.loop.call_soon_threadsafe(lane._transport.abort)
    began = time.monotonic()
    broke = slow.wait(soon())
    assert isinstance(broke, Failure) and broke.why == "link_down"
    assert time.monotonic() - began < 1
    client._offered = 0.0
    assert not isinstance(asked(client).wait(soon()), Failure)  # by gRPC
    eventually(lambda: client._lane.is_up)
    assert isinstance(asked(client), LanePending)


def test_who_stands_between_edge_and_server_is_not_gone_round(stage: Stage) -> None:
    """A proxy, a shaped link: the port that was dialled is not the server's own."""
    port = int(stage.address.rpartition(":")[2])
    with contextlib.ExitStack() as ends, socket.create_server(("127.0.0.1", 0)) as between:

        def carry(here: socket.socket, there: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := here.recv(65536):
                    there.sendall(data)

        def accept() -> None:
            near = ends.enter_context(between.accept()[0])
            far = ends.enter_context(socket.create_connection(("127.0.0.1", port)))
            for way in ((near, far), (far, near)):
                threading.Thread(target=carry, args=way, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        client = Client(f"127.0.0.1:{between.getsockname()[1]}", patience_s=2.0)
        client.greet(MODEL)
        eventually(lambda: client._most_bytes)
        assert client._lane is None
        assert not isinstance(asked(client).wait(soon()), Failure)
        client.close()


def test_nobody_comes_in_without_a_good_ticket(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = stage.listener._lanes.offer("me")
    assert good is not None
    _, name, ticket = good.split(" ")
    monkeypatch.setattr(lanes_file, "TICKET_S", -1.0)
    _, _, old = stage.listener._lanes.offer("me").split(" ")
    for wrong in (ticket[:-1], ticket[1:], "", "9999999999.bWU=." + "0" * 64, old, "\xff" * 9):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lane:
            lane.settimeout(5)
            lane.connect(f"\0{name}")
            lane.sendall(frame(HELLO, 0, wrong.encode("latin-1")) + asking(1))
            assert list(frames(lane)) == []
    assert stage.held.clients == set()
    refused = Lane(name, "no", 2**20)
    eventually(lambda: refused._ends)
    assert not refused.is_up


def test_a_wrong_request_harms_no_other_on_its_lane(stage: Stage) -> None:
    most = stage.listener._most_bytes
    wrong = [
        frame(ASK, 2, b""),
        frame(ASK, 2, b"\xff" * 40, 5.0),
        frame(ASK, 2, bytes(most + 100)),
        frame(77, 2, b"what"),
        asking(2, left_s=float("nan")),
        asking(2, left_s=-1.0),
    ]
    with stage.raw() as lane:
        found = frames(lane)
        for bad in wrong:
            for piece in (bad[:5], bad[5:] + asking(1)):
                lane.sendall(piece)
            while (each := next(found)).number != 1:
                assert each.kind in (REFUSAL, REPLY)
            assert each.kind == REPLY


@settings(max_examples=20, deadline=None)
@given(raw=st.binary(max_size=64))
def test_random_bytes_never_break_the_server(raw: bytes) -> None:
    stage = random_stage()
    with stage.raw() as lane:
        lane.sendall(raw)
    with stage.raw() as lane:
        lane.sendall(asking(1))
        assert next(frames(lane)).kind == REPLY


STAGES: list[Stage] = []


def random_stage() -> Stage:
    if not STAGES:
        STAGES.append(Stage())
    return STAGES[0]


@pytest.fixture(scope="module", autouse=True)
def closes_stages() -> Iterator[None]:
    yield
    while STAGES:
        STAGES.pop().close()


def test_a_lane_has_bounded_places_and_who_is_silent_or_slow_is_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_file, "MOST_INSIDE", 3)
    with stage.raw() as lane:
        lane.sendall(b"".join(asking(number, SLOW) for number in range(1, 5)))
        assert next(frames(lane)).number == 4
    for name, seconds in (("LOOK_S", 0.02), ("HELLO_S", 0.05)):
        monkeypatch.setattr(lanes_file, name, seconds)
    stage.listener._lanes.arriving._within_s = stage.listener._lanes.arriving._look_s = 0.05
    with stage.raw() as slow, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.settimeout(5)
        silent.connect(f"\0{stage.listener._lanes._name}")
        slow.sendall(asking(1)[:20])
        stage.look()
        assert list(frames(slow)) == list(frames(silent)) == []
    monkeypatch.setattr(lanes_file, "MOST_LANES", 1)
    with stage.raw(), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as second:
        second.settimeout(5)
        second.connect(f"\0{stage.listener._lanes._name}")
        assert list(frames(second)) == []


def test_an_old_lane_ends_and_nothing_is_lost(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = asked(client, SLOW)
    eventually(lambda: stage.held.waiting)
    monkeypatch.setattr(lanes_file, "AGE_S", 0.0)
    first = client._lane
    stage.look()
    eventually(lambda: not first.is_up)
    assert not isinstance(asked(client).wait(soon()), Failure)
    stage.loop.call_soon_threadsafe(stage.held.go)
    assert not isinstance(slow.wait(soon()), Failure)


def test_a_lane_that_is_over_writes_to_nothing_that_has_its_number_now() -> None:
    lane = Lane("where-nobody-listens", "", 100)
    eventually(lambda: lane._socket.fileno() < 0)
    others = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(64)]
    lane.close()
    for other in others:
        with pytest.raises(BlockingIOError):
            os.eventfd_read(other)
        os.close(other)


def test_a_request_that_is_given_up_before_it_begins_leaves_nothing_inside(stage: Stage) -> None:
    most = lanes_file.MOST_INSIDE
    with stage.raw() as lane:
        lane.sendall(b"".join(asking(n) + frame(FORGET, n) for n in range(1, most)) + asking(0))
        assert next(frames(lane)).kind == REPLY
        eventually(lambda: not any(each.inside for each in stage.listener._lanes.open))


def test_a_client_has_one_lane_and_closes_all_that_it_ever_opened(
    stage: Stage, client: Client
) -> None:
    lanes = stage.listener._lanes
    slow = asked(client, SLOW)
    eventually(lambda: stage.held.waiting)
    for lane in tuple(lanes.open):
        stage.loop.call_soon_threadsafe(lane.end)
    first = client._lane
    assert first is not None
    eventually(lambda: first.ends)
    for _ in range(4):
        client._welcomed(client._greetings[MODEL])
    eventually(lambda: client._lane.is_up)
    assert len(lanes.open) == 2 and not first.is_gone
    client.close()
    gone = slow.wait(soon())
    assert isinstance(gone, Failure) and gone.why == "link_down"
    eventually(lambda: not lanes.open)
    client._welcomed(client._greetings[MODEL])
    assert client._lane.ends
