"""What the edge computes while a reply is on its way: an answer all the same, and no more.

The net is really slow: its one long segment takes tens of milliseconds.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import EngineError, PlanError
from presplit.core.plans import Plan, PlanTable, Row
from presplit.core.types import Net, Runnable
from presplit.lab.slow_device import Slowed
from presplit.runtime import Edge
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop, Stopped
from presplit.runtime.hosted import Contract, Form
from presplit.runtime.upstream import InProcess

LOGITS = np.array([[9, 1, 2, 3]], np.float32)


@pytest.fixture(scope="module")
def bare(slow_bundle: Bundle) -> Bundle:
    """The slow net with its own classifier only: at no split is anything held."""
    net = Net(slow_bundle.net.boundaries, slow_bundle.net.exits[-1:])
    manifest = msgspec.structs.replace(slow_bundle.manifest, net=net, exits={})
    return dataclasses.replace(slow_bundle, manifest=manifest)


def test_a_run_is_stopped_and_the_others_of_the_same_engine_go_on(slow_bundle: Bundle) -> None:
    net = slow_bundle.runnable(2, slow_bundle.net.last)
    engine = ENGINES["onnxruntime"](net, 1)
    values = {net.input: np.ones((1, 8), np.float32)}
    expected = engine.run(values)[net.logits["final"]]
    stop = Stop()

    def again_and_again() -> None:
        while True:
            engine.run(values, stop=stop)

    with ThreadPoolExecutor(3) as pool:
        stopped = pool.submit(again_and_again)
        others = [pool.submit(engine.run, values, stop=Stop()) for _ in range(2)]
        stop.ask()
        assert isinstance(stopped.exception(timeout=10), Stopped)
        for other in others:
            np.testing.assert_array_equal(other.result()[net.logits["final"]], expected)
    late = Stop()
    np.testing.assert_array_equal(engine.run(values, stop=late)[net.logits["final"]], expected)
    late.ask()  # after the run it changes nothing
    np.testing.assert_array_equal(engine.run(values)[net.logits["final"]], expected)


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

    def run(
        self, name: str, array: Any, *, until: float | None, client: str = ""
    ) -> Future[np.ndarray]:
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
    bare: Bundle, promised: SimpleNamespace
) -> None:
    with Edge.open(bare, plan=Plan(bare.net.last)) as edge:
        used = time.process_time()
        alone = [edge.answer(promised.IMAGE, deadline_s=10.0) for _ in range(8)]
        alone_used = time.process_time() - used
    upstream = InProcess(After(0.001))
    with Edge.open(bare, upstream=upstream, plan=Plan(1, deadline_s=10.0)) as edge:
        used = time.process_time()
        answers = [edge.answer(promised.IMAGE) for _ in range(8)]
        time.sleep(0.1)  # fallbacks that ran on would use this time
        used = time.process_time() - used
    assert {answer.why for answer in answers} == {"server"}
    quickest = min(answer.elapsed_s for answer in answers)
    assert quickest < 0.8 * min(answer.elapsed_s for answer in alone)
    assert used < 0.6 * alone_used


class Gated:
    """ONNX Runtime, but beyond boundary 1 it waits until ``gate`` is open or the run is stopped."""

    gate = threading.Event()

    def __init__(self, model: Runnable, threads: int) -> None:
        self.inner: Engine = ENGINES["onnxruntime"](model, threads)
        self.deep = model.boundary != "boundary_01"

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        while self.deep and not Gated.gate.wait(0.001):
            if stop is not None and stop.asked:
                raise Stopped("stopped at the gate")
        return self.inner.run(inputs, stop=stop)


def test_with_nothing_held_what_comes_first_is_the_answer_however_late(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    net = Net(bundle.net.boundaries, bundle.net.exits[-1:])
    manifest = msgspec.structs.replace(bundle.manifest, net=net, exits={})
    bare = dataclasses.replace(bundle, manifest=manifest)
    hosted = After(0.05)
    Gated.gate.set()
    with Edge(bare, Plan(1), upstream=InProcess(hosted), load=Gated) as edge:
        Gated.gate.clear()
        answer = edge.answer(promised.IMAGE, deadline_s=0.001)
        assert (answer.why, answer.degraded, answer.label) == ("server", False, 0)
        assert answer.elapsed_s >= 0.05

        hosted.seconds = None
        threading.Timer(0.05, Gated.gate.set).start()
        answer = edge.answer(promised.IMAGE, deadline_s=0.01)
        assert (answer.why, answer.where, answer.exit) == ("late", "edge", "final")
        assert not answer.degraded


class Counted:
    """ONNX Runtime; how often what is slow in the net was begun since ``begun`` was cleared."""

    def __init__(self) -> None:
        self.begun = 0

    def __call__(self, model: Runnable, threads: int) -> Engine:
        outer, inner = self, ENGINES["onnxruntime"](model, threads)

        class Counting:
            def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
                outer.begun += "final" in model.logits
                return inner.run(inputs, stop=stop)

        return Counting()


@pytest.fixture(scope="module")
def rest_s(slow_bundle: Bundle) -> float:
    """What the slow rest of the net takes, generously."""
    with Edge.open(slow_bundle, plan=Plan(slow_bundle.net.last)) as edge:
        took = [edge.answer(np.ones(16, np.float32)).elapsed_s for _ in range(5)]
    return 1.3 * float(np.median(took))


@pytest.mark.parametrize("split", [0, 1, 2])
def test_without_a_server_the_device_goes_as_deep_as_the_deadline_lets_it(
    slow_bundle: Bundle, promised: SimpleNamespace, rest_s: float, split: int
) -> None:
    """And what cannot end in time is not begun."""
    counted = Counted()
    with Edge.open(slow_bundle, plan=Plan(split), load=counted) as edge:
        answers = promised.answers_in_time(edge, count=3, deadline_s=10.0)
        found = {(a.why, a.where, a.exit, a.degraded) for a in answers}
        assert found == {("link_down", "edge", "final", False)}
        assert min(a.elapsed_s for a in answers) < 1
        counted.begun = 0
        short = promised.answers_in_time(edge, count=3, deadline_s=rest_s / 3)
        assert {(a.where, a.degraded) for a in short} == {("edge", True)}
        assert {a.exit for a in short} <= {"early", "middle"}
    assert counted.begun == 0


def test_beside_a_server_that_answers_nothing_runs_and_beside_a_silent_one_all_in_time(
    slow_bundle: Bundle, promised: SimpleNamespace, rest_s: float
) -> None:
    hosted, counted = After(0.002), Counted()
    for split in (1, 2):
        plan = Plan(split, deadline_s=max(0.25, 6 * rest_s))
        with Edge.open(slow_bundle, upstream=InProcess(hosted), plan=plan, load=counted) as edge:
            hosted.seconds, counted.begun = 0.002, 0
            assert {edge.answer(promised.IMAGE).why for _ in range(5)} == {"server"}
            assert counted.begun == 0
            hosted.seconds = None
            answers = promised.answers_in_time(edge, count=5, deadline_s=plan.deadline_s)
            late = [a for a in answers if (a.why, a.exit, a.degraded) == ("late", "final", False)]
            assert len(late) >= 3


def test_a_plan_says_what_may_run_behind_its_split(
    slow_bundle: Bundle, promised: SimpleNamespace
) -> None:
    upstream = InProcess(After(None))
    held = {(1, "none"): "early", (1, "exit"): "early", (2, "none"): "middle", (0, "exit"): "early"}
    for (split, fallback), name in held.items():
        counted = Counted()
        plan = Plan(split, fallback=fallback)
        with Edge.open(slow_bundle, upstream=upstream, plan=plan, load=counted) as edge:
            answers = promised.answers_in_time(edge, count=5, deadline_s=0.06)
            found = {(a.why, a.exit, a.degraded) for a in answers}
            assert found == {("late", name, True)}
            without = edge.model_bytes
        assert counted.begun == 0
        with Edge.open(slow_bundle, plan=Plan(split)) as edge:
            assert edge.model_bytes > without  # what may run is loaded at opening
    table = PlanTable((Row(Plan(1), 0.0, 1.0, 100, 0.0, 0.9),))
    with Edge.open(slow_bundle, table=table, fallback="none") as edge:
        assert edge.answer(promised.IMAGE).exit == "early"
    with pytest.raises(PlanError, match="no exit runs up to split 0, and fallback='none' keeps"):
        Edge.open(slow_bundle, plan=Plan(0, fallback="none"))


def test_a_device_that_became_slow_begins_less(
    slow_bundle: Bundle, promised: SimpleNamespace, rest_s: float
) -> None:
    """What the last runs took is reckoned with, in one go and again when it is fast."""
    counted = Counted()
    slowed = Slowed(1, load=counted)
    deadline_s = max(0.2, 4 * rest_s)
    plan = Plan(2, deadline_s=deadline_s)
    with Edge.open(slow_bundle, plan=plan, load=slowed) as edge:
        assert edge.answer(promised.IMAGE).exit == "final"
        slowed.factor = 100
        for _ in range(3):
            edge.answer(promised.IMAGE)
        counted.begun = 0
        answers = promised.answers_in_time(edge, count=3, deadline_s=deadline_s)
        assert {(a.exit, a.degraded) for a in answers} == {("middle", True)}
        assert counted.begun == 0
        slowed.factor = 1
        until = time.monotonic() + 5
        while edge.answer(promised.IMAGE).exit != "final":
            assert time.monotonic() < until


@pytest.mark.parametrize("early", [{"middle": 2.0}, {"early": 2.0}, {"early": 2.0, "middle": 2.0}])
def test_nothing_is_begun_that_would_end_after_the_deadline(
    slow_bundle: Bundle, promised: SimpleNamespace, early: dict[str, float]
) -> None:
    """Once an exit has run, a slow rest of the edge's own net is no reason to be late."""
    with Edge.open(slow_bundle, plan=Plan(slow_bundle.net.last, early)) as edge:
        # The fastest of some: on a busy machine one answer may take far longer than the net needs.
        whole = [edge.answer(promised.IMAGE, deadline_s=10.0) for _ in range(4)]
        full = min(whole, key=lambda answer: answer.elapsed_s)
        limit = min(0.02, full.elapsed_s / 2)
        answers = promised.answers_in_time(edge, count=3, deadline_s=limit)
    assert (full.why, full.exit, full.degraded) == ("planned", "final", False)
    assert {(answer.why, answer.degraded) for answer in answers} == {("no_time", True)}
    assert {answer.exit for answer in answers} <= {"early", "middle"}


def test_an_engine_that_became_slow_is_stopped_at_the_deadline(
    slow_bundle: Bundle, promised: SimpleNamespace
) -> None:
    """At opening the rest took some 15 ms, now it takes a second."""
    slowed = Slowed(1)
    plan = Plan(slow_bundle.net.last, {"early": 2.0, "middle": 2.0})
    threads = threading.active_count()
    with Edge.open(slow_bundle, plan=plan, load=slowed) as edge:
        assert edge.answer(promised.IMAGE, deadline_s=10.0).why == "planned"
        slowed.factor = 60
        answers = promised.answers_in_time(edge, count=3, deadline_s=0.15)
        slowed.factor = 1
        assert edge.answer(promised.IMAGE, deadline_s=10.0).why == "planned"
    assert {(answer.why, answer.degraded) for answer in answers} == {("no_time", True)}
    assert {answer.exit for answer in answers} <= {"early", "middle"}
    until = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.001)
    assert threading.active_count() <= threads


def test_the_whole_deadline_is_the_edges_where_no_server_is_or_can_be_asked(
    bundle: Bundle, promised: SimpleNamespace
) -> None:
    """The net takes a fraction of a millisecond; the margin for a reply would be all of 4 ms."""
    plan = Plan(bundle.net.last, {"early": 2.0}, deadline_s=0.004)
    with Edge.open(bundle, plan=plan) as edge:
        answers = [edge.answer(promised.IMAGE) for _ in range(21)]
        whys = [answer.why for answer in answers]
    assert whys.count("planned") > 10
    for profile, own in (("balanced", "no_time"), ("edge_first", "planned")):
        upstream = InProcess(After(0))
        plan = Plan(1, deadline_s=0.004)
        with Edge.open(bundle, upstream=upstream, plan=plan, profile=profile) as edge:
            answers = [edge.answer(promised.IMAGE) for _ in range(21)]
        assert {answer.up_bytes for answer in answers} == {0}
        deep = [answer.why for answer in answers if answer.exit == "final"]
        assert deep.count(own) > 10  # who may be asked makes no answer worse


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
