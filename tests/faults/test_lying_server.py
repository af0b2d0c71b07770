"""The edge when the server lies, fails or says what is not so: nothing of it is believed.

Each status and each wrong reply has its own true reason.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.upstream import Failure, Pending, Request
from presplit.runtime.wire import messages
from presplit.runtime.wire.client import MOST_REPLY_BYTES, Client
from presplit.runtime.wire.words import MOST_KEY, SERVER_S_KEY, WHY_KEY

Code = grpc.StatusCode


@contextlib.contextmanager
def liar(
    reply: Callable[[bytes], bytes],
    *,
    status: Code | None = None,
    words: tuple[tuple[str, str], ...] = (),
    greeting: tuple[tuple[str, str], ...] = (),
    contract: Callable[[], bytes] | None = None,
) -> Iterator[str]:
    """A real gRPC server whose ModelInfer answers with what ``reply`` makes of the request.

    It has ModelMetadata if there is a ``contract``.
    """

    def infer(raw: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(words)
        if status is not None:
            context.abort(status, "no")
        return reply(raw)

    def ready(raw: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(greeting)
        return messages.ModelReadyResponse(ready=True).SerializeToString()

    handlers: dict[str, Callable[[bytes, Any], bytes]] = {"ModelInfer": infer, "ModelReady": ready}
    if contract is not None:
        handlers["ModelMetadata"] = lambda raw, context: contract()
    methods = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in handlers.items()}
    options = [("grpc.max_receive_message_length", -1)]
    service = grpc.server(ThreadPoolExecutor(2), options=options)
    service.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(messages.SERVICE, methods)]
    )
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        service.stop(0).wait()


def honest(raw: bytes, /, **changes: Any) -> bytes:
    """The reply that fits the request ``raw``, with ``changes`` to its fields."""
    request = messages.ModelInferRequest.FromString(raw)
    fields = {
        "id": request.id,
        "model": request.model_name,
        "name": "logits",
        "datatype": "FP32",
        "shape": [1, 4],
        "raw": np.array([[9, 1, 2, 3]], np.float32).tobytes(),
        "parameters": {},
    } | changes
    output = messages.ModelInferResponse.InferOutputTensor(
        name=fields["name"], datatype=fields["datatype"], shape=fields["shape"]
    )
    reply = messages.ModelInferResponse(
        model_name=fields["model"],
        id=fields["id"],
        outputs=[output],
        raw_output_contents=[fields["raw"]],
        parameters=fields["parameters"],
    )
    return reply.SerializeToString()


def test_the_liar_is_believed_when_it_does_not_lie(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    with liar(honest) as address, Edge.open(bundle, server=address, plan=Plan(1)) as edge:
        answer = edge.answer(promised.IMAGE, deadline_s=5.0)
    assert (answer.why, answer.label) == ("server", 0)


CHANGES: list[dict[str, Any]] = [
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
    {"raw": bytes(5 * 10**6)},
    {"raw": bytes(20 * 2**20)},
]


def test_a_reply_that_is_not_this_requests_is_not_used(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    replies: list[Callable[[bytes], bytes]] = [
        *(lambda raw, changes=changes: honest(raw, **changes) for changes in CHANGES),
        lambda _: b"",
        lambda _: b"\xff" * 50,
        lambda _: np.random.default_rng(1).bytes(200),
    ]
    left = iter(replies)
    with liar(lambda raw: next(left)(raw)) as address:
        client = Client(address, patience_s=2)  # a guard would ask no more after a few
        with Edge.open(bundle, upstream=client, plan=Plan(1)) as edge:
            answers = [edge.answer(promised.IMAGE, deadline_s=5.0) for _ in replies]
        client.close()
    promised.assert_own(answers, bundle, split=1, why={"bad_reply"})


def test_a_reply_beyond_all_bounds_is_told_from_a_server_that_is_busy(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    """GRPC gives one status to both, so what our own server says of itself decides."""
    huge = bytes(MOST_REPLY_BYTES + 1)
    with (
        liar(lambda raw: honest(raw, raw=huge), greeting=((MOST_KEY, "9999"),)) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        time.sleep(0.05)  # for the greeting
        answers = [edge.answer(promised.IMAGE, deadline_s=5.0)]
    promised.assert_own(answers, bundle, split=1, why={"bad_reply"})


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (Code.RESOURCE_EXHAUSTED, "overloaded"),
        (Code.CANCELLED, "overloaded"),
        (Code.UNAVAILABLE, "link_down"),
        (Code.NOT_FOUND, "refused"),
        (Code.INVALID_ARGUMENT, "refused"),
        (Code.UNAUTHENTICATED, "refused"),
        (Code.FAILED_PRECONDITION, "refused"),
        (Code.DEADLINE_EXCEEDED, "late"),
        (Code.INTERNAL, "failed"),
        (Code.UNKNOWN, "failed"),
        (Code.DATA_LOSS, "bad_reply"),
    ],
)
def test_every_status_has_its_reason(
    bundle: Bundle, promised: SimpleNamespace, status: Code, why: str
) -> None:
    with (
        liar(honest, status=status) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        answers = promised.answers_in_time(edge, count=3)
    promised.assert_own(answers, bundle, split=1, why={why})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("refused", "refused"),
        ("failed", "failed"),
        ("late", "late"),
        ("overloaded", "overloaded"),
        # Words that no failure may have are not believed: the status counts.
        ("server", "overloaded"),
        ("confident", "overloaded"),
        ("nonsense", "overloaded"),
    ],
)
def test_what_a_server_says_of_a_failure_counts_more_than_its_status(
    bundle: Bundle, promised: SimpleNamespace, said: str, why: str
) -> None:
    words = ((WHY_KEY, said),)
    with (
        liar(honest, status=Code.RESOURCE_EXHAUSTED, words=words) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        answers = promised.answers_in_time(edge, count=2)
    promised.assert_own(answers, bundle, split=1, why={why})


def asked(client: Client, name: str, values: int) -> Failure:
    """Why a request of so many values fails."""
    found = client.ask(Request(name, np.zeros((1, values), np.float32), 4), time.monotonic() + 5)
    if isinstance(found, Failure):
        return found
    reply = found.wait(time.monotonic() + 5)
    assert isinstance(reply, Failure)
    return reply


def test_a_request_larger_than_the_server_takes_is_refused_before_it_is_sent(
    bundle: Bundle, server: str
) -> None:
    name = bundle.manifest.model_name(1, "float32")
    client = Client(server, patience_s=2)
    unknown = asked(client, name, 2 * 10**6)
    small = asked(client, name, 1000)
    client.greet(name)
    until = time.monotonic() + 5
    while "server takes" not in asked(client, name, 2 * 10**6).detail:
        assert time.monotonic() < until
    found = asked(client, name, 2 * 10**6)
    client.close()
    assert asked(client, name, 2 * 10**6).why in ("refused", "link_down")
    assert (unknown.why, found.why) == ("refused", "refused")
    assert "a request of 8000" in found.detail
    assert small.why == "refused"  # it arrives, and is of another shape
    assert "must have shape (1..64, 12)" in small.detail


NAME = "small-000000000000.from-1"
REQUEST = Request(NAME, np.zeros((1, 12), np.float32), 4)


def contract(**changes: Any) -> bytes:
    """What a server says that fits `REQUEST`, with ``changes``."""
    told = {
        "called": NAME,
        "takes": ("boundary", "FP32", [-1, 12]),
        "gives": ("logits", "FP32", [-1, 4]),
    } | changes
    tensor = messages.ModelMetadataResponse.TensorMetadata
    takes, gives = (
        [tensor(name=each[0], datatype=each[1], shape=each[2])] if each else []
        for each in (told["takes"], told["gives"])
    )
    return messages.ModelMetadataResponse(
        name=told["called"], inputs=takes, outputs=gives
    ).SerializeToString()


UNLIKE: list[tuple[dict[str, Any], str]] = [
    ({"called": "another"}, "expected the model"),
    ({"takes": ("input", "FP32", [-1, 12])}, "takes 'boundary', got one that takes 'input'"),
    ({"takes": ("boundary", "INT8", [-1, 12])}, "as FP32 [1, 12], got INT8 [-1, 12]"),
    ({"takes": ("boundary", "FP32", [-1, 13])}, "got FP32 [-1, 13]"),
    ({"takes": ("boundary", "FP32", [12])}, "got FP32 [12]"),
    ({"takes": ("boundary", "FP32", [-1, -2])}, "got FP32 [-1, -2]"),
    ({"gives": ("logits", "FP32", [-1, 5])}, "gives 'logits' as FP32 [1, 4], got FP32 [-1, 5]"),
    ({"gives": ("scores", "FP32", [-1, 4])}, "gives 'logits', got one that gives 'scores'"),
]
ALIKE = [
    contract(),
    contract(takes=("boundary", "FP32", [-1, -1]), gives=("logits", "FP32", [1, 4])),
    contract(called="", takes=None, gives=None),
    b"",
    b"\xff" * 50,
    contract(called="another") + bytes(10**5),
]


def test_a_model_that_is_not_the_bundles_is_found_at_the_greeting_and_not_asked() -> None:
    says, asked_for = [b""], threading.Semaphore(0)

    def told() -> bytes:
        asked_for.release()
        return says[-1]

    def ask(client: Client) -> Failure | None:
        found = client.ask(REQUEST, time.monotonic() + 5)
        reply = found if isinstance(found, Failure) else found.wait(time.monotonic() + 5)
        return reply if isinstance(reply, Failure) else None

    def becomes(client: Client, why: str) -> Failure | None:
        until = time.monotonic() + 5
        while ("" if (found := ask(client)) is None else found.why) != why:
            assert time.monotonic() < until
        return found

    with liar(honest, contract=told) as address:
        for changes, sentence in UNLIKE:
            says.append(contract(**changes))
            client = Client(address, patience_s=2)
            client.greet(NAME)
            found = becomes(client, "refused")
            assert found is not None and sentence in found.detail
            assert client.ask(REQUEST, 0.0) == found  # not sent, or it would be late
            client.close()
        for raw in ALIKE:
            says.append(raw)
            while asked_for.acquire(blocking=False):
                pass
            client = Client(address, patience_s=2)
            client.greet(NAME)
            assert asked_for.acquire(timeout=5)
            assert [ask(client) for _ in range(5)] == [None] * 5
            client.close()
        says.append(contract(called="another"))
        client = Client(address, patience_s=2)
        client.greet(NAME)
        becomes(client, "refused")
        says.append(contract())  # the right one listens there by now
        becomes(client, "")
        client.close()


def test_an_edge_says_once_that_the_server_has_another_model_and_answers_alone(
    bundle: Bundle, promised: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    name = bundle.manifest.model_name(1, "float32")
    other = contract(called=name, gives=("logits", "FP32", [-1, 5]))
    with (
        liar(honest, contract=lambda: other) as address,
        Edge.open(bundle, server=address, plan=Plan(1)) as edge,
    ):
        until = time.monotonic() + 5
        while edge.answer(promised.IMAGE, deadline_s=5.0).why != "refused":
            assert time.monotonic() < until
        answers = [edge.answer(promised.IMAGE, deadline_s=5.0) for _ in range(3)]
    promised.assert_own(answers, bundle, split=1, why={"refused"})
    said = [message for message in caplog.messages if "refuses" in message]
    assert len(said) == 1 and "gives 'logits' as FP32 [1, 4], got FP32 [-1, 5]" in said[0]


def test_a_late_reply_never_answers_another_request(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    gate = threading.Event()

    def slow(raw: bytes) -> bytes:
        gate.wait(0.3)
        return honest(raw)

    with liar(slow) as address, Edge.open(bundle, server=address, plan=Plan(1)) as edge:
        answers = promised.answers_in_time(edge, count=3, deadline_s=0.05)
        promised.assert_own(answers, bundle, split=1, why={"late"})
        gate.set()
        assert promised.comes_back(edge)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ({"double_param": 0.0}, 0.0),
        ({"double_param": 1e-9}, 1e-9),
        ({"double_param": -1e-9}, None),
        ({"double_param": 60.0}, None),
        ({"double_param": float("nan")}, None),
        ({"double_param": float("inf")}, None),
        ({"string_param": "0.001"}, None),
        ({"int64_param": 0}, None),
        ({}, None),
    ],
)
def test_a_time_that_a_server_cannot_have_taken_is_not_believed(
    bundle: Bundle, said: dict[str, Any], believed: float | None
) -> None:
    told = {SERVER_S_KEY: messages.InferParameter(**said)} if said else {}
    request = Request(bundle.manifest.model_name(1, "float32"), np.zeros((1, 12), np.float32), 4)
    with liar(lambda raw: honest(raw, parameters=told)) as address:
        client = Client(address, patience_s=2)
        pending = client.ask(request, time.monotonic() + 5)
        assert not isinstance(pending, Failure)
        assert not isinstance(pending.wait(time.monotonic() + 5), Failure)
        assert pending.server_s == believed
        client.close()


def test_a_closed_client_and_a_request_that_is_given_up_are_failures(bundle: Bundle) -> None:
    gate = threading.Event()

    def slow(raw: bytes) -> bytes:
        gate.wait(5)
        return honest(raw)

    request = Request(bundle.manifest.model_name(1, "float32"), np.zeros((1, 12), np.float32), 4)
    with liar(slow) as address:
        client = Client(address, patience_s=2)
        pending = client.ask(request, time.monotonic() + 5)
        assert not isinstance(pending, Failure)
        waiting: Pending = pending
        assert waiting.wait(time.monotonic() + 0.02) == Failure("late", "no reply in time")
        threading.Timer(0.02, waiting.cancel).start()
        began = time.monotonic()
        reply = waiting.wait(began + 5)
        assert time.monotonic() - began < 2
        assert isinstance(reply, Failure) and reply.why == "link_down"
        client.close()
        closed = client.ask(request, time.monotonic() + 5)
        assert isinstance(closed, Failure) and closed.why == "link_down"
        gate.set()
