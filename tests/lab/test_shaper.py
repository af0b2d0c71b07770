"""The shaped link keeps its word: rate, delay, outages, cuts.

Sockets are real, with a real echo or sink behind the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.lab.processes import running
from presplit.lab.shaper import Shaper, main, obey

TEN_MBIT = ("--up-bps", "10e6", "--down-bps", "10e6", "--rtt-s", "0.02")


@pytest.fixture
def echo() -> Iterator[str]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                connection.sendall(piece)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, size: int) -> None:
    while size:
        piece = connection.recv(min(size, 65536))
        assert piece, "the connection ended"
        size -= len(piece)


def round_trip(connection: socket.socket) -> float:
    began = time.monotonic()
    connection.sendall(b"x")
    receive(connection, 1)
    return time.monotonic() - began


def test_an_empty_round_trip_takes_the_links(echo: str) -> None:
    with (
        running("presplit.lab.shaper", "--target", echo, *TEN_MBIT) as (address, _),
        connect(address) as near,
    ):
        round_trip(near)
        assert min(round_trip(near) for _ in range(20)) == pytest.approx(0.0215, abs=0.0025)


def test_a_megabyte_at_ten_megabit_takes_its_time(echo: str) -> None:
    with (
        running("presplit.lab.shaper", "--target", echo, *TEN_MBIT) as (address, _),
        connect(address) as near,
    ):
        round_trip(near)

        def transfer() -> float:
            sender = threading.Thread(target=near.sendall, args=(bytes(10**6),))
            began = time.monotonic()
            sender.start()
            receive(near, 10**6)  # up and down overlap: one transfer, one round trip
            sender.join()
            return time.monotonic() - began

        took = [transfer() for _ in range(2)]
    assert min(took) == pytest.approx(0.8 + 0.02, rel=0.1)


def test_connections_that_stay_open_share_the_rate_and_do_not_lower_it(echo: str) -> None:
    with (
        running("presplit.lab.shaper", "--target", echo, *TEN_MBIT) as (address, _),
        contextlib.ExitStack() as all_,
    ):
        idle = [all_.enter_context(connect(address)) for _ in range(10)]
        busy = [all_.enter_context(connect(address)) for _ in range(2)]
        for near in (*idle, *busy):
            round_trip(near)

        def transfer() -> float:
            began = time.monotonic()
            for near in busy:
                threading.Thread(target=near.sendall, args=(bytes(250_000),)).start()
            for near in busy:
                receive(near, 250_000)
            return time.monotonic() - began

        assert min(transfer() for _ in range(2)) == pytest.approx(0.4 + 0.02, rel=0.15)


def test_a_target_that_refuses_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with running("presplit.lab.shaper", "--target", f"127.0.0.1:{port}") as (address, _):
        for _ in range(3):
            with connect(address) as near:
                began = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    assert near.recv(1) == b""
                assert time.monotonic() - began < 0.5


def test_an_end_of_stream_passes_with_all_that_came_before(echo: str) -> None:
    with (
        running("presplit.lab.shaper", "--target", echo, *TEN_MBIT) as (address, _),
        connect(address) as near,
    ):
        near.sendall(bytes(50_000))
        near.shutdown(socket.SHUT_WR)
        receive(near, 50_000)
        assert near.recv(1) == b""


def test_orders_change_the_link_while_it_runs(echo: str) -> None:
    with running("presplit.lab.shaper", "--target", echo, "--rtt-s", "0.0") as (
        address,
        process,
    ):
        assert process.stdin is not None

        def order(**changes: object) -> None:
            print(json.dumps(changes), file=process.stdin, flush=True)
            time.sleep(0.1)

        with connect(address) as near:
            assert round_trip(near) < 0.05
            order(rtt_s=0.2)
            assert 0.2 <= round_trip(near) < 0.3
            order(rtt_s=0.0, outage=True)
            near.sendall(b"x")
            near.settimeout(0.3)
            with pytest.raises(TimeoutError):
                near.recv(1)
            near.settimeout(10)
            order(outage=False)
            receive(near, 1)
            assert round_trip(near) < 0.05
            order(reset=True)
            with pytest.raises(ConnectionResetError):
                near.recv(1)
        with connect(address) as near:
            assert round_trip(near) < 0.05


def test_jitter_does_not_reorder(echo: str) -> None:
    data = bytes(range(256)) * 200
    with (
        running("presplit.lab.shaper", "--target", echo, *TEN_MBIT, "--jitter-s", "0.02") as (
            address,
            _,
        ),
        connect(address) as near,
    ):
        near.sendall(data)
        got = b""
        while len(got) < len(data):
            got += near.recv(65536)
    assert got == data


def test_closing_in_an_outage_does_not_hang(echo: str) -> None:
    async def scenario() -> None:
        shaper = Shaper(echo, Link("fast", up_bps=1e9, down_bps=1e9, rtt_s=0.0))
        host, port = (await shaper.start()).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        shaper.outage = True
        assert shaper.outage
        writer.write(b"y")
        await asyncio.wait_for(shaper.close(), 1.0)
        writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "line", [b"", b"{", b'{"outrage": true}', b'{"up_bps": 0}', b'{"rtt_s": -1}', b"\xff"]
)
def test_a_wrong_order_is_refused_and_changes_nothing(line: bytes) -> None:
    async def scenario() -> None:
        link = Link("fast", up_bps=1e9, down_bps=1e9, rtt_s=0.0)
        shaper = Shaper("127.0.0.1:1", link)
        with pytest.raises(SpecError, match="an order is one line of JSON"):
            obey(shaper, line)
        assert shaper.link == link

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "arguments",
    [("--target", "nowhere"), ("--target", "127.0.0.1:1", "--up-bps", "0"), ("--target", ":8001")],
)
def test_wrong_arguments_are_one_sentence(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
