"""Requests that wait for one step are computed together, and nobody can tell but by the clock."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.errors import EngineError, InputError, PlanError
from presplit.core.plans import Gateway, Plan
from presplit.core.types import Runnable
from presplit.runtime import Edge, Local
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop
from presplit.runtime.hosted import Early, Hosted, Overloaded, TooLate
from presplit.runtime.serving.batching import Crew, batched
from presplit.runtime.serving.pays import Pays
from presplit.runtime.serving.server import exits_of, hosting
from presplit.runtime.serving.tail import Tails
from presplit.runtime.upstream import InProcess

VALUES = np.random.default_rng(0).random((40, 12), dtype=np.float32)
POISON = 7.0
WORK_S = 5e-4
"""Every run takes so much of the processor whatever its size: on a busy machine too two together
are much cheaper than each alone."""
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class Gate:
    """ONNX Runtime behind a gate: runs wait until it is open, and their sizes are written down."""

    def __init__(self, *, mean: bool = False) -> None:
        self.open = threading.Event()
        self.open.set()
        self.sizes: list[int] = []
        self._mean = mean

    def __call__(self, model: Runnable, threads: int) -> Engine:
        return Gated(self, ENGINES["onnxruntime"](model, threads), mean=self._mean)


class Gated:
    """One engine behind the gate, which fails on poison; its logits may depend on the batch."""

    def __init__(self, gate: Gate, inner: Engine, *, mean: bool) -> None:
        self._gate, self._inner, self._mean = gate, inner, mean

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        (values,) = inputs.values()
        self._gate.sizes.append(len(values))
        assert self._gate.open.wait(5)
        until = time.thread_time() + WORK_S
        while time.thread_time() < until:
            pass
        if (values == POISON).any():
            raise EngineError("poison")
        found = dict(self._inner.run(inputs, stop=stop))
        if self._mean:
            found = {name: array - array.mean(0) for name, array in found.items()}
        return found


@contextlib.contextmanager
def hosted_by(bundle: Bundle, gate: Gate, **options: Any) -> Iterator[Hosted]:
    """The tails of ``bundle`` on one worker that has learned what two together take."""
    hosted = batched(Tails(bundle, load=gate), Crew(1, **options), closes=True)
    hosted.warm(bundle.manifest.model_name(1, "float32")).result(5)
    try:
        for _ in range(3):
            answers(hosted, bundle, VALUES[:4], gate)
        gate.sizes.clear()
        yield hosted
    finally:
        gate.open.set()
        hosted.close()


def answers(
    hosted: Hosted, bundle: Bundle, values: np.ndarray, gate: Gate, until: float | None = None
) -> list[Any]:
    """What comes of a request for each row, all of which wait behind another; errors as they are.

    That one has run when they begin.
    """
    name = bundle.manifest.model_name(1, "float32")
    first = begun(hosted, bundle, gate)
    waiting = [hosted.run(name, row[None], until=until) for row in values]
    gate.open.set()
    return [outcome(each) for each in [first, *waiting]][1:]


def begun(hosted: Hosted, bundle: Bundle, gate: Gate) -> Future[Any]:
    """A request that waits at the gate, which is closed."""
    gate.open.clear()
    runs = len(gate.sizes) + 1
    first = hosted.run(bundle.manifest.model_name(1, "float32"), VALUES[:1], until=None)
    while len(gate.sizes) < runs and not first.done():
        time.sleep(0.0005)
    return first


def outcome(future: Future[Any]) -> Any:
    """What came of it."""
    try:
        return future.result(5)
    except (Exception, CancelledError) as error:
        return error


def alone(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    """What the tail says of each row by itself."""
    tails, name = Tails(bundle), bundle.manifest.model_name(1, "float32")
    return np.concatenate([tails.run(name, row[None], until=None) for row in values])


def test_what_waits_is_computed_together_and_is_what_each_gets_alone(bundle: Bundle) -> None:
    gate = Gate()
    with hosted_by(bundle, gate) as hosted:
        found = answers(hosted, bundle, VALUES, gate)
    np.testing.assert_allclose(np.concatenate(found), alone(bundle, VALUES), **CLOSE)
    assert sum(gate.sizes) == 1 + len(VALUES)
    assert max(gate.sizes) > 1
    with hosted_by(bundle, gate, joined=1) as hosted:
        answers(hosted, bundle, VALUES[:5], gate)
    assert max(gate.sizes) == 1


def test_one_bad_request_fails_alone(bundle: Bundle) -> None:
    gate, values = Gate(), VALUES[:9].copy()
    values[4] = POISON
    with hosted_by(bundle, gate) as hosted:
        found = answers(hosted, bundle, values, gate)
        assert isinstance(found[4], EngineError)
        good = [k for k in range(9) if k != 4]
        there = np.concatenate([found[k] for k in good])
        np.testing.assert_allclose(there, alone(bundle, values[good]), **CLOSE)
        # What is no array of numbers at all does not even get so far, and batches go on.
        values[4] = np.nan
        assert isinstance(answers(hosted, bundle, values, gate)[4], InputError)
        gate.sizes.clear()
        answers(hosted, bundle, VALUES, gate)
        assert max(gate.sizes) > 1


def test_a_net_that_looks_at_the_whole_batch_is_given_one_at_a_time(bundle: Bundle) -> None:
    gate = Gate(mean=True)
    with hosted_by(bundle, gate) as hosted:
        for found in answers(hosted, bundle, VALUES[:8], gate):
            np.testing.assert_array_equal(found, np.zeros((1, 4)))
    assert max(gate.sizes) == 1


def test_who_is_late_or_gave_up_is_not_computed(bundle: Bundle) -> None:
    gate, name = Gate(), bundle.manifest.model_name(1, "float32")
    with hosted_by(bundle, gate) as hosted:
        first = begun(hosted, bundle, gate)
        late = hosted.run(name, VALUES[:1], until=time.monotonic() + 0.02)
        given_up = hosted.run(name, VALUES[:1], until=None)
        assert given_up.cancel()
        time.sleep(0.03)
        gate.open.set()
        assert first.result(5).shape == (1, 4)
        with pytest.raises(TooLate):
            late.result(5)
        assert hosted.run(name, VALUES[:1], until=None).result(5).shape == (1, 4)
        assert gate.sizes == [1, 1]


def test_who_gives_up_again_and_again_fills_no_memory(bundle: Bundle) -> None:
    gate, name = Gate(), bundle.manifest.model_name(1, "float32")
    with hosted_by(bundle, gate) as hosted:
        first = begun(hosted, bundle, gate)
        waits = hosted.run(name, VALUES[:1], until=None)
        arrays = list[weakref.ref[np.ndarray]]()
        for _ in range(100):
            array = VALUES[:1].copy()
            arrays.append(weakref.ref(array))
            assert hosted.run(name, array, until=None).cancel()
        gc.collect()
        assert sum(each() is not None for each in arrays) <= 20
        gate.open.set()
        assert first.result(5).shape == waits.result(5).shape == (1, 4)
        assert gate.sizes == [1, 1]


def test_requests_by_several_codecs_join_once_they_are_decoded(bundle: Bundle) -> None:
    gate, codecs = Gate(), ["float32", "float16", "int8"] * 4
    with hosted_by(bundle, gate) as hosted:
        asked: list[Any] = [begun(hosted, bundle, gate)]
        for row, codec in zip(VALUES, codecs, strict=False):
            codes = CODECS[codec].encode(row[None], bundle.encoding(1, codec))
            assert codes is not None
            asked.append(hosted.run(bundle.manifest.model_name(1, codec), codes, until=None))
        gate.open.set()
        found = np.concatenate([outcome(each) for each in asked[1:]])
    assert len(gate.sizes) < len(codecs)
    # By int8 the values change by up to a hundredth, the logits by more.
    np.testing.assert_allclose(found, alone(bundle, VALUES[:12]), atol=0.4)


def test_nobody_waits_for_others_longer_than_asked_or_than_the_deadline_allows(
    bundle: Bundle,
) -> None:
    gate, name = Gate(), bundle.manifest.model_name(1, "float32")
    with hosted_by(bundle, gate, wait_s=0.2) as hosted:
        began = time.monotonic()
        hosted.run(name, VALUES[:1], until=began + 0.05).result(5)
        assert time.monotonic() - began < 0.05
        both = [hosted.run(name, VALUES[:1], until=began + 5) for _ in range(2)]
        assert [each.result(5).shape for each in both] == [(1, 4)] * 2
    assert gate.sizes == [1, 2]


def test_two_bundles_share_a_crew_and_one_may_go(bundle: Bundle, other_bundle: Bundle) -> None:
    crew = Crew(2)
    one, two = (hosting(each, crew=crew) for each in (bundle, other_bundle))
    asked = one.run(bundle.manifest.model_name(1, "float32"), VALUES[:1], until=None)
    one.close()
    assert asked.done()
    name = other_bundle.manifest.model_name(1, "float32")
    assert two.run(name, VALUES[:1], until=None).result(5).shape == (1, 4)
    told = crew.told()
    assert (told["admitted"], told["samples"], told["inside"]) == (2, 2, 0)
    two.close()
    crew.close()


def test_exits_answer_on_the_server_as_they_would_on_the_edge(bundle: Bundle) -> None:
    thresholds = {"early": 0.95, "middle": 0.9}
    x = np.random.default_rng(5).normal(size=(60, 16)).astype(np.float32)
    expected = Local(bundle, Plan(3, thresholds)).answer(x)
    crew = Crew(2)
    hosted = hosting(bundle, crew=crew, thresholds=thresholds)
    name = bundle.manifest.model_name(0, "float32")
    asked = [hosted.run(name, row[None], until=None) for row in x]
    found = [each.result(5) for each in asked]
    exits = [f.exit if isinstance(f, Early) else "final" for f in found]
    assert exits == [bundle.net.exits[number].name for number in expected.exit_numbers]
    assert set(exits) == {"early", "middle", "final"}
    scores = np.concatenate([f.logits if isinstance(f, Early) else f for f in found])
    np.testing.assert_allclose(scores, expected.scores, **CLOSE)
    assert crew.told()["samples"] == 60 + sum(e != "early" for e in exits) + exits.count("final")
    # An exit before the split is the edge's own, the others tell it that they answered.
    with Edge.open(bundle, upstream=InProcess(hosted), plan=Plan(1, deadline_s=5.0)) as edge:
        whys = {(a.exit, a.where, a.why) for a in map(edge.answer, x)}
    assert whys == {("middle", "server", "confident"), ("final", "server", "server")}
    hosted.close()
    crew.close()


def test_what_cannot_be_an_exit_of_this_server_is_one_sentence(bundle: Bundle) -> None:
    with pytest.raises(PlanError, match="no exit 'nowhere'"):
        hosting(bundle, thresholds={"nowhere": 0.5})
    assert exits_of(bundle, Gateway(3, {"middle": 0.5})) == {"middle": 0.5}
    with pytest.raises(PlanError, match=r"gateway.split is 2, .* give forward_to"):
        exits_of(bundle, Gateway(2))


class Asleep:
    """An engine that takes 20 ms a sample and nothing of the processor."""

    def __init__(self, model: Runnable, threads: int) -> None:
        self._inner = ENGINES["onnxruntime"](model, threads)

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        time.sleep(0.02 * len(next(iter(inputs.values()))))
        return self._inner.run(inputs, stop=stop)


@pytest.mark.long
def test_one_greedy_client_takes_nothing_from_three_others_and_what_can_be_answered_is(
    bundle: Bundle,
) -> None:
    rates = {"a": 15.0, "b": 15.0, "c": 15.0, "greedy": 500.0}  # two workers answer 100 a second
    chance, name = np.random.default_rng(0), bundle.manifest.model_name(1, "float32")
    due = sorted(
        (at, who)
        for who, rate in rates.items()
        for at in np.cumsum(chance.exponential(1 / rate, int(3 * rate)))
    )
    hosted = batched(Tails(bundle, load=Asleep), Crew(2, joined=1), closes=True)
    hosted.warm(name).result(5)
    asked: list[tuple[str, Future[Any]]] = []
    began = time.monotonic()
    for at, who in due:
        time.sleep(max(0.0, began + at - time.monotonic()))
        with contextlib.suppress(Overloaded):
            until = time.monotonic() + 0.2
            asked.append((who, hosted.run(name, VALUES[:1], until=until, client=who)))
    answered = [who for who, future in asked if not isinstance(outcome(future), Exception)]
    hosted.close()
    assert sum(who != "greedy" for who in answered) >= 0.9 * 3 * 45
    assert len(answered) >= 0.8 * 100 * due[-1][0]


@pytest.mark.parametrize(("grows", "size"), [(1.0, 8), (1.9, 8), (1.98, 1), (2.2, 1)])
def test_a_size_is_taken_if_it_makes_a_sample_cheaper(grows: float, size: int) -> None:
    """``grows``: how many times as long twice as many take."""
    pays = Pays(8)
    for _ in range(40):
        samples = pays.size()
        seconds = grows ** (samples.bit_length() - 1)
        pays.took(samples, work_s=seconds, clock_s=seconds)
    assert pays.size() == size


def test_a_machine_that_changes_is_noticed() -> None:
    pays, tried = Pays(8), 0
    for run in range(3000):
        samples = pays.size()
        tried += run < 1500 and samples > 1
        grows = 2.2 if run < 1500 else 1.2
        seconds = grows ** (samples.bit_length() - 1)
        pays.took(samples, work_s=seconds, clock_s=seconds)
    assert tried < 30  # what does not pay is seldom tried
    assert pays.size() == 8
