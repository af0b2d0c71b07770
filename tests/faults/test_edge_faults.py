"""The edge when the server is absent, killed or hanging, or the link is down.

It answers in time, gives a true reason, and goes back to the server when that is there again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.lab.processes import Process, free_port
from presplit.runtime import Edge
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import InProcess

Start = Callable[..., contextlib.AbstractContextManager[tuple[str, Process]]]


@pytest.mark.parametrize("split", [0, 1, 2])
def test_without_a_server_the_edge_answers_at_once_as_well_as_the_server_would(
    bundle: Bundle, promised: SimpleNamespace, split: int
) -> None:
    for server in (None, f"127.0.0.1:{free_port()}"):
        with Edge.open(bundle, server=server, plan=Plan(split)) as edge:
            answers = promised.answers_in_time(edge)
        promised.assert_own(answers, bundle, split=split, why={"link_down"})
        middle = sorted(answer.elapsed_s for answer in answers)[len(answers) // 2]
        assert middle < promised.DEADLINE_S / 4


def test_a_host_that_does_not_exist_is_a_link_that_is_down(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    with Edge.open(bundle, server="no-such-host.invalid:8001", plan=Plan(1)) as edge:
        answers = promised.answers_in_time(edge, count=3)
    promised.assert_own(answers, bundle, split=1, why={"link_down", "late"})


def test_a_server_that_hangs_dies_and_comes_back_loses_no_answer(
    bundle: Bundle, promised: SimpleNamespace, start: Start
) -> None:
    port = str(free_port())
    serving = ("presplit", "serve", str(bundle.path), "--json", "--port", port)
    with contextlib.ExitStack() as last:
        with start(*serving) as (address, process):
            edge = last.enter_context(Edge.open(bundle, server=address, plan=Plan(1)))
            assert edge.answer(promised.IMAGE, deadline_s=5.0).why == "server"
            process.send_signal(signal.SIGSTOP)
            answers = promised.answers_in_time(edge, count=5)
            promised.assert_own(answers, bundle, split=1, why={"late", "link_down"})
            assert "late" in {answer.why for answer in answers}
            process.send_signal(signal.SIGCONT)
            assert promised.comes_back(edge)

            # Stopped, so that the request is surely under way when the server dies.
            process.send_signal(signal.SIGSTOP)
            threading.Timer(0.05, process.kill).start()
            began = time.monotonic()
            answer = edge.answer(promised.IMAGE, deadline_s=2.0)
            broken = "a broken connection is known at once, not at the deadline"
            assert time.monotonic() - began < 1.0, broken
            promised.assert_own([answer], bundle, split=1, why={"link_down"})
        answers = promised.answers_in_time(edge)
        promised.assert_own(answers, bundle, split=1, why={"link_down"})
        last.enter_context(start(*serving))
        assert promised.comes_back(edge)


def test_a_server_of_another_bundle_is_refused(
    bundle: Bundle, other_bundle: Bundle, promised: SimpleNamespace
) -> None:
    hosted = hosting(other_bundle)
    with Edge.open(bundle, upstream=InProcess(hosted), plan=Plan(1)) as edge:
        answers = promised.answers_in_time(edge)
    hosted.close()
    promised.assert_own(answers, bundle, split=1, why={"refused"})


def test_a_port_that_speaks_no_grpc_is_not_believed(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def babble() -> None:
            listener.settimeout(0.05)
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=babble)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with Edge.open(bundle, server=address, plan=Plan(1)) as edge:
            answers = promised.answers_in_time(edge, count=4)
        stopped.set()
        thread.join()
    promised.assert_own(answers, bundle, split=1, why={"link_down", "late"})


@pytest.mark.long
def test_an_outage_of_the_link_loses_no_answer_and_heals(
    bundle: Bundle, promised: SimpleNamespace, server: str, start: Start
) -> None:
    with start("presplit.lab.shaper", "--target", server, "--rtt-s", "0.01") as (
        address,
        shaper,
    ):
        assert shaper.stdin is not None
        with Edge.open(bundle, server=address, plan=Plan(1)) as edge:
            assert promised.comes_back(edge)
            for order in ('{"outage": true}', '{"outage": true, "reset": true}'):
                print(order, file=shaper.stdin, flush=True)
                time.sleep(0.05)
                answers = promised.answers_in_time(edge, count=6)
                promised.assert_own(answers, bundle, split=1, why={"late", "link_down"})
                print('{"outage": false}', file=shaper.stdin, flush=True)
                assert promised.comes_back(edge)


@pytest.mark.long
def test_a_server_killed_and_restarted_behind_a_slow_link_loses_no_answer(
    bundle: Bundle, promised: SimpleNamespace, start: Start
) -> None:
    port = str(free_port())
    link = ("presplit.lab.shaper", "--target", f"127.0.0.1:{port}", "--rtt-s", "0.02")
    serving = ("presplit", "serve", str(bundle.path), "--json", "--port", port)
    with start(*link) as (address, _), contextlib.ExitStack() as last:
        with start(*serving):
            edge = last.enter_context(Edge.open(bundle, server=address, plan=Plan(0)))
            assert promised.comes_back(edge)
        answers = promised.answers_in_time(edge)
        promised.assert_own(answers, bundle, split=0, why={"link_down", "late"})
        last.enter_context(start(*serving))
        assert promised.comes_back(edge)
