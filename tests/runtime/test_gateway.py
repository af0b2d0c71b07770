"""A gateway: the net cut twice gives what the whole net gives, and whoever is left answers."""

from __future__ import annotations

import contextlib
import gc
import itertools
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest

from presplit import plan as planning
from presplit.bundle import Bundle, read, write_plan
from presplit.core.costs import Device
from presplit.core.errors import PlanError, ServerError, SpecError
from presplit.core.link import Link
from presplit.core.plans import Gateway, Plan
from presplit.core.types import Answer, Runnable
from presplit.lab.processes import address_of, end, free_port
from presplit.lab.processes import start as begin
from presplit.packing import pack
from presplit.runtime import Edge, Local, serve
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop
from presplit.runtime.hosted import Early, UnknownModel
from presplit.runtime.sending import Sending
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.gateway import MOST_WALKS, check_same_net, next_server, what_it_does
from presplit.runtime.serving.server import first_model, forwarding, hosting
from presplit.runtime.upstream import Failure, InProcess, Request

small = run_path(str(Path(__file__).with_name("small.py")))
IMAGE = np.random.default_rng(0).random(16, dtype=np.float32)
CLOSE = 1e-5
"""Engines that are joined otherwise round otherwise."""


class Gone:
    """An upstream that nobody answers behind; `asked` are the models that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def greet(self, name: str) -> None:
        pass

    def ask(self, request: Request, until: float) -> Failure:
        self.asked.append(request.model)
        return Failure("link_down", "nobody is there")

    def close(self) -> None:
        pass


@contextlib.contextmanager
def chain(bundle: Bundle, does: Gateway, upstream: Any = None) -> Iterator[InProcess]:
    """A gateway, and behind it a server of the same bundle or ``upstream``, in this process."""
    server = hosting(bundle)
    gateway, _ = forwarding(bundle, upstream or InProcess(server), does=does)
    try:
        yield InProcess(gateway)
    finally:
        gateway.close()
        server.close()


def whole(bundle: Bundle) -> np.ndarray:
    return Local(bundle, Plan(bundle.net.last)).answer(IMAGE[None]).scores[0]


def test_two_cuts_anywhere_give_what_the_whole_net_gives(bundle: Bundle) -> None:
    expected = whole(bundle)
    for second in range(3):
        with chain(bundle, Gateway(second)) as gateway:
            for first in range(3):
                plan = Plan(first, deadline_s=5.0)
                with Edge.open(bundle, upstream=gateway, plan=plan) as edge:
                    answer = edge.answer(IMAGE)
                assert (answer.where, answer.why, answer.exit) == ("server", "server", "final")
                np.testing.assert_allclose(answer.scores, expected, rtol=CLOSE)


def test_each_cut_travels_by_its_own_codec(bundle: Bundle) -> None:
    asked = Gone()
    for one, other in itertools.product(("float16", "int8"), repeat=2):
        with chain(bundle, Gateway(2, codec=other)) as gateway:
            plan = Plan(1, codec=one, deadline_s=5.0)
            with Edge.open(bundle, upstream=gateway, plan=plan) as edge:
                answer = edge.answer(IMAGE)
            assert answer.why == "server"
            assert np.abs(answer.scores - whole(bundle)).max() > 0  # both lose a little
            np.testing.assert_allclose(answer.scores, whole(bundle), atol=0.5)
        with chain(bundle, Gateway(2, codec=other), asked) as gateway:
            plan = Plan(1, codec=one, deadline_s=5.0)
            with Edge.open(bundle, upstream=gateway, plan=plan) as edge:
                edge.answer(IMAGE)
        assert asked.asked[-1] == bundle.manifest.model_name(2, other)


def test_a_sure_exit_at_the_gateway_answers_and_nobody_else_is_asked(bundle: Bundle) -> None:
    nobody = Gone()
    with (
        chain(bundle, Gateway(2, {"middle": 0.0}), nobody) as gateway,
        Edge.open(bundle, upstream=gateway, plan=Plan(1, deadline_s=5.0)) as edge,
    ):
        answer = edge.answer(IMAGE)
    assert (answer.where, answer.exit, answer.why) == ("server", "middle", "confident")
    assert not answer.degraded and nobody.asked == []
    head = Local(bundle, Plan(3, {"middle": 0.0})).answer(IMAGE[None])
    np.testing.assert_allclose(answer.scores, head.scores[0], rtol=CLOSE)


def test_without_the_next_server_the_gateway_answers_with_what_it_has(bundle: Bundle) -> None:
    # It computes the rest itself, behind its split and where it would only have passed on.
    for second in (2, 1, 0):
        with (
            chain(bundle, Gateway(second), Gone()) as gateway,
            Edge.open(bundle, upstream=gateway, plan=Plan(1, deadline_s=5.0)) as edge,
        ):
            answer = edge.answer(IMAGE)
        assert (answer.where, answer.why, answer.degraded) == ("server", "server", False)
        np.testing.assert_allclose(answer.scores, whole(bundle), rtol=CLOSE)


def test_the_log_says_once_when_the_next_server_cannot_be_used_and_once_when_it_is_back(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """No matter how many requests come meanwhile."""
    caplog.set_level("INFO", logger="presplit")
    port = free_port()
    upstream = next_server(f"127.0.0.1:{port}", None)
    check_same_net(Sending(bundle, Plan(2), upstream), f"127.0.0.1:{port}")
    assert len(caplog.records) == 1  # before anybody comes
    with (
        chain(bundle, Gateway(2), upstream) as gateway,
        Edge(bundle, Plan(1), upstream=gateway) as edge,
    ):
        assert {edge.answer(IMAGE, deadline_s=1.0).exit for _ in range(20)} == {"final"}
        (lost,) = [record.message for record in caplog.records]
        assert f"127.0.0.1:{port}, the next server, cannot be used (link_down: UNAVAIL" in lost
        with small["listening"](bundle, port):
            until = time.monotonic() + 5
            while len(caplog.records) < 2 and time.monotonic() < until:
                time.sleep(0.01)
        assert caplog.records[1].message.endswith("the next server, answers again")
    upstream.close()


def test_a_late_server_leaves_the_gateway_the_time_to_answer(bundle: Bundle) -> None:
    class Silent(Gone):
        def ask(self, request: Request, until: float) -> Any:
            self.until = until
            return self

        def wait(self, until: float) -> Failure:
            time.sleep(max(0.0, until - time.monotonic()))
            return Failure("late", "no reply in time")

        def cancel(self) -> None:
            pass

    silent, began = Silent(), time.monotonic()
    with (
        chain(bundle, Gateway(2, spare_s=0.1), silent) as gateway,
        Edge.open(bundle, upstream=gateway, plan=Plan(1)) as edge,
    ):
        answer = edge.answer(IMAGE, deadline_s=0.2)
    # Nobody but the gateway knows that it was not the last server: it has the whole net.
    assert (answer.where, answer.exit, answer.why) == ("server", "final", "server")
    assert answer.elapsed_s < 0.2
    # The deadline was passed on, less what the gateway keeps back.
    assert silent.until - began < 0.2 - 0.1 + 0.05


class Counted:
    """ONNX Runtime; ``alive`` are its engines, and the first that is asked for waits to load."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.alive = weakref.WeakSet[Any]()
        self.may_load = threading.Event()

    def __call__(self, model: Runnable, threads: int) -> Engine:
        if not self.begun.is_set():
            self.begun.set()
            assert self.may_load.wait(10)
        inner = ENGINES["onnxruntime"](model, threads)

        class Inner:
            def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
                return inner.run(inputs, stop=stop)

        engine = Inner()
        self.alive.add(engine)
        return engine


def fewest(alive: weakref.WeakSet[Any]) -> int:
    """How many there are when the threads that used them have let go."""
    until = time.monotonic() + 5
    while len(alive) > 2 * MOST_WALKS and time.monotonic() < until:
        gc.collect()
        time.sleep(0.001)
    return len(alive)


def test_entries_that_clients_name_are_kept_within_a_bound_and_wait_for_none_but_their_own(
    bundle: Bundle,
) -> None:
    load, name = Counted(), bundle.manifest.model_name
    gateway, _ = forwarding(bundle, Gone(), does=Gateway(2, codec="int8"), load=load)  # type: ignore[arg-type]
    sizes = list[int]()
    try:
        slow = gateway.run(name(0, "float32"), IMAGE[None], until=None)
        assert load.begun.wait(5)
        first = gateway.run(name(1, "float32"), np.ones((1, 12), np.float32), until=None)
        assert len(first.result(5)) == 1
        assert not slow.done()
        load.may_load.set()
        assert len(slow.result(5)) == 1
        for split, width in ((2, 8), (1, 12), (0, 16), (2, 8), (1, 12)):
            values = np.ones((1, width), np.float32)
            gateway.run(name(split, "float32"), values, until=None).result(5)
            sizes.append(fewest(load.alive))
    finally:
        load.may_load.set()
        gateway.close()
    assert max(sizes) <= 2 * MOST_WALKS  # to the split, and on to the end


def test_a_gateway_that_passes_on_keeps_the_time_to_compute_the_rest(slow_bundle: Bundle) -> None:
    class Silent(Gone):
        def ask(self, request: Request, until: float) -> Any:
            self.until = until
            return self

        def wait(self, until: float) -> Failure:
            time.sleep(max(0.0, until - time.monotonic()))
            return Failure("late", "no reply in time")

        def cancel(self) -> None:
            pass

    silent, name = Silent(), slow_bundle.manifest.model_name(2, "float32")
    gateway, _ = forwarding(slow_bundle, silent, does=Gateway(2, spare_s=0.0))  # type: ignore[arg-type]
    values = np.ones((1, 8), np.float32)
    gateway.warm(name).result(10)
    until = time.monotonic() + 1.0
    assert isinstance(gateway.run(name, values, until=until).result(10), np.ndarray)
    # The rest takes some 15 ms, the request itself well under one.
    assert until - 1.0 < silent.until < until - 0.004
    gateway.close()


def test_several_samples_at_once_are_computed_at_the_gateway(bundle: Bundle) -> None:
    batch = np.random.default_rng(1).random((3, 16), dtype=np.float32)
    name, nobody = bundle.manifest.model_name(0, "float32"), Gone()
    server = hosting(bundle)
    gateway, _ = forwarding(bundle, nobody, does=Gateway(1))
    found = gateway.run(name, batch, until=None).result(5)
    expected = server.run(name, batch, until=None).result(5)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(UnknownModel):
        gateway.run("another-net.from-1", batch, until=None)
    gateway.close()
    server.close()


def test_only_an_exit_behind_the_split_may_reply_and_only_for_its_own_reasons(
    bundle: Bundle,
) -> None:
    class Lying(Gone):
        reply: Any

        def run(self, name: str, array: Any, *, until: float | None, client: str = "") -> Any:
            found: Any = type(hosted.run(name, array, until=until))()
            found.set_result(self.reply)
            return found

    hosted, lying = hosting(bundle), Lying()
    logits = np.zeros((1, 4), np.float32)
    with Edge.open(bundle, upstream=InProcess(lying), plan=Plan(1, deadline_s=5.0)) as edge:  # type: ignore[arg-type]
        for exit_, why, told in (
            ("middle", "confident", "confident"),
            ("early", "confident", "bad_reply"),  # the edge itself has run it
            ("final", "confident", "bad_reply"),
            ("middle", "server", "bad_reply"),
            ("middle", "because", "bad_reply"),
        ):
            lying.reply = Early(logits, exit_, why)  # type: ignore[arg-type]
            assert edge.answer(IMAGE).why == told
    hosted.close()


def test_a_plan_that_was_found_runs_and_gateways_may_stand_in_a_row(
    bundle: Bundle, tmp_path: Any
) -> None:
    x = np.random.default_rng(1).normal(size=(60, 16)).astype(np.float32)
    labels = Local(bundle, Plan(3)).answer(x).labels
    names = ["early", "middle", "final"]
    judged = pack(
        small["small_model"](1),
        tmp_path / "judged.bundle",
        name="small",
        exit_names=names,
        samples=x,
        labels=labels,
    )
    device = {"memory_bytes": 1e9, "power_w": 1.0}
    every = planning.candidates(
        judged,
        device=Device("slow", 1e3, **device),
        link=Link("near", 1e6, 1e6, 0.001),
        gateway=Device("middle", 3e4, **device),
        uplink=Link("far", 1e5, 1e5, 0.005),
        server=Device("fast", 1e9, **device),
        deadline_s=5.0,
    )
    cut_twice = [p for p in every if p.gateway and 0 < p.split < p.gateway.split < 3]
    plain = [p for p in cut_twice if not p.thresholds and not p.gateway.thresholds]
    planned = write_plan(judged, next(p for p in plain if p.codec == p.gateway.codec == "float32"))
    with (
        chain(planned, Gateway(2)) as last,
        chain(planned, what_it_does(planned, None), last) as first,
        Edge.open(planned, upstream=first) as edge,
    ):
        answer = edge.answer(IMAGE)
    assert (answer.where, answer.why, answer.split) == ("server", "server", 1)
    np.testing.assert_allclose(answer.scores, whole(planned), rtol=CLOSE)
    # What an exit of the last but one says comes through the first.
    with (
        chain(bundle, Gateway(2, {"middle": 0.0}), Gone()) as last,
        chain(bundle, Gateway(1), last) as first,
        Edge.open(bundle, upstream=first, plan=Plan(0, deadline_s=5.0)) as edge,
    ):
        answer = edge.answer(IMAGE)
    assert (answer.where, answer.exit, answer.why) == ("server", "middle", "confident")


@pytest.mark.parametrize(
    ("plan", "given", "text"),
    [
        (None, None, "carries no plan for a gateway"),
        (Plan(1), None, "carries no plan for a gateway"),
        (None, Gateway(3), r"gateway.split must be in 0..2, got 3"),
        (Plan(2), Gateway(1), "has the edge cut at 2, got 1"),
    ],
)
def test_a_gateway_that_makes_no_sense_is_one_sentence(
    bundle: Bundle, plan: Plan | None, given: Gateway | None, text: str, tmp_path: Any
) -> None:
    found = with_plan(bundle, plan, tmp_path)
    with pytest.raises(PlanError, match=text):
        what_it_does(found, given)


def with_plan(bundle: Bundle, plan: Plan | None, tmp_path: Any) -> Bundle:
    copy = shutil.copytree(bundle.path, tmp_path / "copy.bundle")
    return write_plan(read(copy), plan)


def test_what_does_not_fit_the_bundle_is_refused_before_it_listens(
    bundle: Bundle, other_bundle: Bundle, server: str
) -> None:
    port = free_port()
    with pytest.raises(SpecError, match="is this gateway itself"):
        serve(bundle, Config(port=port, forward_to=f"localhost:{port}"), gateway=Gateway(1))
    with pytest.raises(SpecError, match="HOST:PORT"):
        serve(bundle, Config(forward_to="nowhere"), gateway=Gateway(1))
    with pytest.raises(PlanError, match="no exit 'nowhere'"):
        serve(bundle, Config(forward_to=server), gateway=Gateway(1, {"nowhere": 0.5}))
    with pytest.raises(PlanError, match="no codec named 'int3'"):
        serve(bundle, Config(forward_to=server), gateway=Gateway(1, codec="int3"))
    with pytest.raises(ServerError, match="does not serve this bundle's net .*serve the same"):
        serve(other_bundle, Config(forward_to=server), gateway=Gateway(1))


def test_a_plan_with_a_gateway_must_fit_and_says_which_tail_each_is_asked_for(
    bundle: Bundle, tmp_path: Any
) -> None:
    for gateway, text in (
        (Gateway(0), "gateway.split must be in 1..3"),
        (Gateway(4), "gateway.split must be in 1..3"),
        (Gateway(2, {"early": 0.5}), "no exit 'early' behind split 1"),
    ):
        with pytest.raises(SpecError, match=text):
            Plan(1, gateway=gateway).fits(bundle.net)
    plan = Plan(1, codec="int8", gateway=Gateway(2, {"middle": 0.9}, codec="float16"))
    found, name = with_plan(bundle, plan, tmp_path), bundle.manifest.model_name
    assert what_it_does(found, None) == plan.gateway
    assert first_model(found, forwards=True).name == name(1, "int8")
    assert first_model(found).name == name(2, "float16")


@contextlib.contextmanager
def processes(*commands: tuple[str, ...]) -> Iterator[list[Any]]:
    """All of them at once, each ready."""
    begun = [begin(*words) for words in commands]
    try:
        for process in begun:
            address_of(process)
        yield begun
    finally:
        for process in begun:
            end(process)


def test_three_processes_answer_as_one_and_whoever_is_left_answers_alone(
    bundle: Bundle,
) -> None:
    last, uplink, middle, link = (free_port() for _ in range(4))
    path, shaped = str(bundle.path), "presplit.lab.shaper"
    served = ("presplit", "serve", path, "--json", "--port")
    way = ("--up-bps", "5e6", "--down-bps", "5e6", "--rtt-s", "0.01", "--port")
    forward = ("--forward-to", f"127.0.0.1:{uplink}", "--split", "2", "--spare", "40ms")
    with processes(
        (*served, str(last)),
        (*served, str(middle), *forward),
        (shaped, "--target", f"127.0.0.1:{last}", *way, str(uplink)),
        (shaped, "--target", f"127.0.0.1:{middle}", *way, str(link)),
    ) as (server, gateway, *_):
        plan = Plan(1, deadline_s=0.5)
        with Edge.open(bundle, server=f"127.0.0.1:{link}", plan=plan) as edge:
            answer = soon(edge, lambda a: a.exit == "final")
            assert (answer.where, answer.why, answer.degraded) == ("server", "server", False)
            assert answer.elapsed_s >= 0.02  # two round trips
            np.testing.assert_allclose(answer.scores, whole(bundle), rtol=CLOSE)
            end(server)
            answer = soon(edge, lambda a: a.elapsed_s < 0.02)
            assert (answer.where, answer.exit, answer.degraded) == ("server", "final", False)
            end(gateway)
            answer = soon(edge, lambda a: a.where == "edge")
            assert (answer.exit, answer.degraded) == ("final", False)
            assert answer.elapsed_s < 0.5


def soon(edge: Edge, is_so: Callable[[Answer], bool]) -> Answer:
    """The first answer of which that is so: who is there, or gone, is noticed within seconds."""
    until = time.monotonic() + 10
    while True:
        answer = edge.answer(IMAGE)
        if is_so(answer) or time.monotonic() > until:
            return answer
        time.sleep(0.02)
