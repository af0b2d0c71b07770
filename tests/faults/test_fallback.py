"""What the edge computes while a reply is on its way: an answer all the same, and no more.

The net is really slow: its one long segment takes tens of milliseconds.
"""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import EngineError
from presplit.core.types import Net, Plan, Runnable
from presplit.runtime import Edge
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop
from presplit.runtime.hosted import Contract, Form
from presplit.runtime.upstream import InProcess

LOGITS = np.array([[9, 1, 2, 3]], np.float32)


@pytest.fixture(scope="module")
def bare(slow_bundle: Bundle) -> Bundle:
    """The slow net with its own classifier only: at no split is anything held."""
    net = Net(slow_bundle.net.boundaries, slow_bundle.net.exits[-1:])
    manifest = msgspec.structs.replace(slow_bundle.manifest, net=net, exits={})
    return dataclasses.replace(slow_bundle, manifest=manifest)


@pytest.fixture(scope="module")
def alone_s(bare: Bundle, promised: SimpleNamespace) -> float:
    """What the whole slow net takes here."""
    with Edge.open(bare, plan=Plan(bare.net.last)) as edge:
        return min(edge.answer(promised.IMAGE).elapsed_s for _ in range(3))


class After:
    """Something hosted that gives its logits after so many seconds; never, if None."""

    most_bytes = 1000

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.untils: list[float] = []

    def contract(self, name: str) -> Contract:
        return Contract(name, Form("boundary", "float32", (12,)), Form("logits", "float32", (4,)))

    def warm(self, name: str) -> Future[None]:
        return Future()

    def run(self, name: str, array: Any, *, until: float | None) -> Future[np.ndarray]:
        found: Future[np.ndarray] = Future()
        assert until is not None
        self.untils.append(until)
        if self.seconds is not None:
            threading.Timer(self.seconds, lambda: self.give(found)).start()
        return found

    def give(self, found: Future[np.ndarray]) -> None:
        if found.set_running_or_notify_cancel():
            found.set_result(LOGITS)

    def close(self) -> None:
        pass


def test_a_reply_that_is_there_is_not_delayed_and_stops_what_ran_for_it(
    bare: Bundle, promised: SimpleNamespace, alone_s: float
) -> None:
    upstream = InProcess(After(0.001))
    with Edge.open(bare, upstream=upstream, plan=Plan(1, deadline_s=5.0)) as edge:
        used = time.process_time()
        answers = [edge.answer(promised.IMAGE) for _ in range(8)]
        time.sleep(8 * alone_s / 4)  # a fallback that ran on would use this time
        used = time.process_time() - used
    assert {answer.why for answer in answers} == {"server"}
    assert statistics.median(answer.elapsed_s for answer in answers) < alone_s / 2
    assert used < 8 * alone_s / 2
    assert threading.active_count() < 8


def test_with_nothing_held_what_comes_first_is_the_answer_however_late(
    bare: Bundle, promised: SimpleNamespace, alone_s: float
) -> None:
    hosted = After(alone_s / 3)
    with Edge.open(bare, upstream=InProcess(hosted), plan=Plan(1)) as edge:
        late = edge.answer(promised.IMAGE, deadline_s=alone_s / 6)
        hosted.seconds = None
        never = edge.answer(promised.IMAGE, deadline_s=alone_s / 6)
    assert (late.why, late.degraded, late.label) == ("server", False, 0)
    assert late.elapsed_s < 0.9 * alone_s
    assert (never.why, never.where, never.exit, never.degraded) == ("late", "edge", "final", True)
    assert never.elapsed_s < 3 * alone_s + promised.STALL_S


def test_with_an_answer_held_nothing_runs_while_the_reply_is_awaited(
    slow_bundle: Bundle, promised: SimpleNamespace
) -> None:
    with Edge.open(slow_bundle, upstream=InProcess(After(None)), plan=Plan(2)) as edge:
        used = time.process_time()
        answers = promised.answers_in_time(edge, count=3, deadline_s=0.1)
        used = time.process_time() - used
    assert {(answer.why, answer.exit) for answer in answers} == {("late", "middle")}
    assert used < 0.1


@pytest.mark.parametrize("early", [{"middle": 2.0}, {"early": 2.0}, {"early": 2.0, "middle": 2.0}])
def test_nothing_is_begun_that_would_end_after_the_deadline(
    slow_bundle: Bundle, promised: SimpleNamespace, early: dict[str, float]
) -> None:
    """Once an exit has run, a slow rest of the edge's own net is no reason to be late."""
    with Edge.open(slow_bundle, plan=Plan(slow_bundle.net.last, early)) as edge:
        full = edge.answer(promised.IMAGE, deadline_s=10.0)
        limit = min(0.02, full.elapsed_s / 2)
        answers = promised.answers_in_time(edge, count=3, deadline_s=limit)
    assert (full.why, full.exit, full.degraded) == ("planned", "final", False)
    assert {(answer.why, answer.degraded) for answer in answers} == {("no_time", True)}
    assert {answer.exit for answer in answers} <= {"early", "middle"}


def test_the_whole_deadline_is_the_edges_where_no_server_is_asked(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    """The net takes a fraction of a millisecond; the margin for a reply would be all of 4 ms."""
    plan = Plan(bundle.net.last, {"early": 2.0}, deadline_s=0.004)
    with Edge.open(bundle, plan=plan) as edge:
        answers = [edge.answer(promised.IMAGE) for _ in range(21)]
        whys = [answer.why for answer in answers]
    assert whys.count("planned") > 10
    with Edge.open(bundle, upstream=InProcess(After(0)), plan=Plan(1, deadline_s=0.004)) as edge:
        assert edge.answer(promised.IMAGE).why == "no_time"


class Failing:
    """ONNX Runtime until ``broken`` is set."""

    broken = False

    def __init__(self, model: Runnable, threads: int) -> None:
        self.inner: Engine = ENGINES["onnxruntime"](model, threads)
        self.deep = model.boundary != "boundary_01"

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        if Failing.broken and self.deep:
            raise EngineError("no memory")
        return self.inner.run(inputs, stop=stop)


def test_an_engine_that_fails_here_is_answered_by_what_is_held(
    bundle: Bundle, promised: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(bundle.net.last, {"early": 2.0})
    with (
        Edge(bundle, plan, load=Failing) as edge,
        Edge(bundle, Plan(0), upstream=InProcess(After(0)), load=Failing) as asking,
        Edge(bundle, Plan(bundle.net.last), load=Failing) as bare,
    ):
        monkeypatch.setattr(Failing, "broken", True)
        answer = edge.answer(promised.IMAGE)
        assert (answer.why, answer.exit, answer.degraded) == ("failed", "early", True)
        assert asking.answer(promised.IMAGE).why == "server"
        with pytest.raises(EngineError, match="no memory"):
            bare.answer(promised.IMAGE)
