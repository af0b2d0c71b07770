"""The edge when the server is absent, killed, hanging, lying or another's.

It answers in time, and gives a true reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.types import Answer, Net, Plan
from presplit.runtime import Edge
from presplit.runtime.engines.onnxruntime import Engine
from presplit.runtime.wire import open_inference_pb2 as messages
from presplit.runtime.wire.server import SERVICE

Start = Callable[..., contextlib.AbstractContextManager[tuple[str, subprocess.Popen[str]]]]

IMAGE = np.random.default_rng(0).random(16, dtype=np.float32)
DEADLINE_S = 0.2
SLACK_S = 0.01
"""What an answer may take beyond its deadline (the promise)."""
STALL_S = 0.25
"""How long a machine that is busy with other things may stall one answer out of many."""


def answers_in_time(edge: Edge, *, count: int = 20, deadline_s: float = DEADLINE_S) -> list[Answer]:
    """``count`` answers that are in time by the caller's clock.

    That is the rule, and none is held up by more than a stall.
    """
    found, took = [], []
    for _ in range(count):
        began = time.monotonic()
        found.append(edge.answer(IMAGE, deadline_s=deadline_s))
        took.append(time.monotonic() - began)
    assert statistics.median(took) <= deadline_s + SLACK_S
    assert max(took) <= deadline_s + STALL_S
    return found


def without_exits(bundle: Bundle) -> Bundle:
    """The same net with its own classifier only."""
    net = Net(bundle.net.boundaries, bundle.net.exits[-1:])
    return dataclasses.replace(
        bundle, manifest=msgspec.structs.replace(bundle.manifest, net=net, exits={})
    )


def held(bundle: Bundle, split: int) -> np.ndarray:
    """What the edge holds under `Plan(split)`: the exit at the split, or the next one."""
    name, stop = {0: ("early", 1), 1: ("early", 1), 2: ("middle", 2)}[split]
    return Engine(bundle.segment(0, stop, exits=[name])).run({"boundary": IMAGE[None]})[
        f"logits.{name}"
    ][0]


def assert_held(answers: list[Answer], bundle: Bundle, *, split: int, why: set[str]) -> None:
    """Every answer is the one that was held, degraded, for one of the reasons ``why``."""
    assert {(answer.where, answer.degraded) for answer in answers} == {("edge", True)}
    assert {answer.why for answer in answers} <= why
    for answer in answers:
        np.testing.assert_array_equal(answer.scores, held(bundle, split))


@contextlib.contextmanager
def asking(bundle: Bundle, start: Start) -> Iterator[tuple[Edge, subprocess.Popen[str]]]:
    """An edge that has just been answered by a server of its own."""
    with (
        start("presplit", "serve", str(bundle.path), "--json", "--port", "0") as (address, process),
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        assert edge.answer(IMAGE, deadline_s=5.0).why == "server"
        yield edge, process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("split", [0, 1, 2])
def test_without_a_server_the_held_answer_comes(bundle: Bundle, split: int) -> None:
    with Edge.open(bundle, plan=Plan(split)) as edge:
        assert_held(answers_in_time(edge), bundle, split=split, why={"link_down"})


@pytest.mark.parametrize("split", [0, 1, 2])
def test_an_absent_server_costs_no_waiting(bundle: Bundle, split: int) -> None:
    with Edge.open(bundle, server=f"127.0.0.1:{free_port()}", plan=Plan(split)) as edge:
        answers = answers_in_time(edge)
    assert_held(answers, bundle, split=split, why={"link_down"})
    assert sorted(answer.elapsed_s for answer in answers)[10] < DEADLINE_S / 4


def test_a_host_that_does_not_exist_is_a_link_that_is_down(bundle: Bundle) -> None:
    with Edge.open(bundle, server="no-such-host.invalid:8001", plan=Plan(1)) as edge:
        assert_held(answers_in_time(edge, count=5), bundle, split=1, why={"link_down", "late"})


def test_a_hanging_server_makes_no_answer_late(bundle: Bundle, start: Start) -> None:
    with asking(bundle, start) as (edge, process):
        process.send_signal(signal.SIGSTOP)
        answers = answers_in_time(edge, count=8)
        assert_held(answers, bundle, split=1, why={"late", "link_down"})
        assert answers[0].why == "late"
        process.send_signal(signal.SIGCONT)
        assert comes_back(edge)


def test_a_server_killed_while_it_is_asked_loses_no_answer(bundle: Bundle, start: Start) -> None:
    with asking(bundle, start) as (edge, process):
        process.send_signal(
            signal.SIGSTOP
        )  # so that the request is surely under way when the server dies
        threading.Timer(0.05, process.kill).start()
        began = time.monotonic()
        answer = edge.answer(IMAGE, deadline_s=2.0)
        assert time.monotonic() - began < 1.0, (
            "a broken connection is known at once, not at the deadline"
        )
        assert_held([answer], bundle, split=1, why={"link_down"})
        assert_held(answers_in_time(edge), bundle, split=1, why={"link_down"})


def test_a_server_that_is_back_is_used_again(bundle: Bundle, start: Start) -> None:
    port = str(free_port())
    plan = Plan(1)
    with start("presplit", "serve", str(bundle.path), "--json", "--port", "0", "--port", port) as (
        address,
        _,
    ):
        edge = Edge.open(bundle, server=address, plan=plan)
        assert edge.answer(IMAGE, deadline_s=5.0).why == "server"
    assert_held(answers_in_time(edge), bundle, split=1, why={"link_down"})
    with (
        edge,
        start("presplit", "serve", str(bundle.path), "--json", "--port", "0", "--port", port),
    ):
        assert comes_back(edge)


def comes_back(edge: Edge) -> bool:
    """True if the server answers again within 5 seconds (the promise)."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        if edge.answer(IMAGE, deadline_s=DEADLINE_S).why == "server":
            return True
        time.sleep(0.05)
    return False


def test_another_bundles_server_is_refused(
    bundle: Bundle, other_bundle: Bundle, start: Start
) -> None:
    with (
        start("presplit", "serve", str(other_bundle.path), "--json", "--port", "0") as (address, _),
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        assert_held(answers_in_time(edge, count=10), bundle, split=1, why={"refused"})


@contextlib.contextmanager
def liar(
    reply: Callable[[bytes], bytes], *, status: grpc.StatusCode | None = None
) -> Iterator[str]:
    """A real gRPC server whose ModelInfer answers with what ``reply`` makes of the request."""

    def infer(raw: bytes, context: Any) -> bytes:
        if status is not None:
            context.abort(status, "no")
        return reply(raw)

    service = grpc.server(ThreadPoolExecutor(2))
    method = grpc.unary_unary_rpc_method_handler(infer)
    service.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": method})]
    )
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        service.stop(0).wait()


def honest(raw: bytes, **changes: Any) -> bytes:
    """The reply that fits the request ``raw``, with ``changes`` to its fields."""
    request = messages.ModelInferRequest.FromString(raw)
    fields = {
        "id": request.id,
        "model": request.model_name,
        "name": "logits",
        "datatype": "FP32",
        "shape": [1, 4],
        "raw": np.array([[9, 1, 2, 3]], np.float32).tobytes(),
    } | changes
    output = messages.ModelInferResponse.InferOutputTensor(
        name=fields["name"], datatype=fields["datatype"], shape=fields["shape"]
    )
    reply = messages.ModelInferResponse(
        model_name=fields["model"],
        id=fields["id"],
        outputs=[output],
        raw_output_contents=[fields["raw"]],
    )
    return reply.SerializeToString()


def test_the_liar_is_believed_when_it_does_not_lie(bundle: Bundle) -> None:
    with liar(honest) as address, Edge.open(bundle, server=address, plan=Plan(1)) as edge:
        answer = edge.answer(IMAGE, deadline_s=5.0)
    assert (answer.why, answer.label) == ("server", 0)


def test_a_reply_that_is_there_is_not_delayed_by_the_answer_that_is_held(
    slow_bundle: Bundle,
) -> None:
    """Nothing is held at the split, and the next exit takes far longer than the server."""
    bare = without_exits(slow_bundle)
    with Edge.open(bare, plan=Plan(bare.net.last)) as edge:
        alone_s = min(edge.answer(IMAGE).elapsed_s for _ in range(3))
    with (
        liar(honest) as address,
        Edge.open(bare, server=address, plan=Plan(1, deadline_s=5.0)) as edge,
    ):
        answers = [edge.answer(IMAGE) for _ in range(5)]
    assert {answer.why for answer in answers} == {"server"}
    assert statistics.median(answer.elapsed_s for answer in answers) < alone_s / 2


@pytest.mark.parametrize("early", [{}, {"early": 2.0}, {"early": 2.0, "middle": 2.0}])
def test_nothing_is_begun_that_would_end_after_the_deadline(
    slow_bundle: Bundle, early: dict[str, float]
) -> None:
    """Once an exit has run, a slow rest of the edge's own net is no reason to be late."""
    last = slow_bundle.net.last
    with Edge.open(slow_bundle, plan=Plan(last, early or {"middle": 2.0})) as edge:
        full = edge.answer(IMAGE, deadline_s=10.0)
        answers = answers_in_time(edge, count=5, deadline_s=min(0.02, full.elapsed_s / 2))
    assert (full.why, full.exit, full.degraded) == ("planned", "final", False)
    assert {(answer.why, answer.degraded) for answer in answers} == {("no_time", True)}
    assert {answer.exit for answer in answers} <= {"early", "middle"}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "another"},
        {"id": ""},
        {"model": "small-000000000000.from-1"},
        {"name": "probabilities"},
        {"datatype": "FP64"},
        {"datatype": "INT8"},
        {"shape": [1, 5]},
        {"shape": [4]},
        {"shape": [2, 2]},
        {"shape": [-1, 4]},
        {"shape": [1, 2**62]},
        {"raw": b""},
        {"raw": bytes(15)},
        {"raw": bytes(17)},
        {"raw": np.array([np.nan, 0, 0, 0], np.float32).tobytes()},
        {"raw": np.array([np.inf, 0, 0, 0], np.float32).tobytes()},
        {"raw": bytes(10 * 2**20)},
    ],
    ids=lambda changes: f"{next(iter(changes))}={str(changes)[:24]}",
)
def test_a_reply_that_is_not_this_requests_is_not_used(
    bundle: Bundle, changes: dict[str, Any]
) -> None:
    with (
        liar(lambda raw: honest(raw, **changes)) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        assert_held(answers_in_time(edge, count=3), bundle, split=1, why={"bad_reply"})


@pytest.mark.parametrize(
    "reply", [b"", b"\xff" * 50, np.random.default_rng(1).bytes(200)], ids=["none", "ff", "any"]
)
def test_random_bytes_are_not_a_reply(bundle: Bundle, reply: bytes) -> None:
    with liar(lambda _: reply) as address, Edge.open(bundle, server=address, plan=Plan(1)) as edge:
        assert_held(answers_in_time(edge, count=3), bundle, split=1, why={"bad_reply"})


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded"),
        (grpc.StatusCode.UNAVAILABLE, "link_down"),
        (grpc.StatusCode.NOT_FOUND, "refused"),
        (grpc.StatusCode.FAILED_PRECONDITION, "refused"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "late"),
        (grpc.StatusCode.INTERNAL, "bad_reply"),
        (grpc.StatusCode.DATA_LOSS, "bad_reply"),
    ],
)
def test_every_status_has_its_reason(bundle: Bundle, status: grpc.StatusCode, why: str) -> None:
    with (
        liar(honest, status=status) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        assert_held(answers_in_time(edge, count=3), bundle, split=1, why={why})


def test_a_late_reply_never_answers_another_request(bundle: Bundle) -> None:
    gate = threading.Event()

    def slow(raw: bytes) -> bytes:
        gate.wait(0.3)
        return honest(raw)

    with liar(slow) as address, Edge.open(bundle, server=address, plan=Plan(1)) as edge:
        assert_held(answers_in_time(edge, count=4, deadline_s=0.1), bundle, split=1, why={"late"})
        gate.set()
        assert edge.answer(IMAGE, deadline_s=5.0).why == "server"


def test_a_port_that_speaks_no_grpc_is_not_believed(bundle: Bundle) -> None:
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
        with Edge.open(
            bundle, server=f"127.0.0.1:{listener.getsockname()[1]}", plan=Plan(1)
        ) as edge:
            answers = answers_in_time(edge, count=5)
        stopped.set()
        thread.join()
    assert_held(answers, bundle, split=1, why={"link_down", "late"})


def test_a_server_killed_and_restarted_behind_a_slow_link_loses_no_answer(
    bundle: Bundle, start: Start
) -> None:
    port = str(free_port())
    link = ("presplit.lab.shaper", "--target", f"127.0.0.1:{port}", "--rtt-s", "0.02")
    serving = ("presplit", "serve", str(bundle.path), "--json", "--port", "0", "--port", port)
    with start(*link) as (address, _), contextlib.ExitStack() as last:
        with start(*serving):
            edge = last.enter_context(Edge.open(bundle, server=address, plan=Plan(0)))
            assert comes_back(edge)
        assert_held(answers_in_time(edge), bundle, split=0, why={"link_down", "late"})
        last.enter_context(start(*serving))
        assert comes_back(edge)


def test_an_outage_of_the_link_loses_no_answer_and_heals(
    bundle: Bundle, server: str, start: Start
) -> None:
    with start("presplit.lab.shaper", "--target", server, "--rtt-s", "0.01") as (
        address,
        shaper,
    ):
        assert shaper.stdin is not None
        with Edge.open(bundle, server=address, plan=Plan(1)) as edge:
            assert comes_back(edge)
            for order in ('{"outage": true}', '{"outage": true, "reset": true}'):
                print(order, file=shaper.stdin, flush=True)
                time.sleep(0.1)
                assert_held(
                    answers_in_time(edge, count=12), bundle, split=1, why={"late", "link_down"}
                )
                print('{"outage": false}', file=shaper.stdin, flush=True)
                assert comes_back(edge)
