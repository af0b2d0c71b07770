"""Measured costs are of every part as it runs, in the shape of the net; all by a made-up clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device
from presplit.core.errors import InputError, PlanError, SpecError
from presplit.core.times import NOTHING
from presplit.core.types import Runnable
from presplit.runtime import measure, seconds_of
from presplit.runtime.engines import ENGINES, Arrays, Engine, Stop
from presplit.runtime.measuring.anchor import anchor
from presplit.runtime.measuring.measure import time_parts
from presplit.runtime.measuring.probes import boundary_values

PI = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)


class Slowed:
    """An engine that moves a made-up clock by what its model's bytes and each call take."""

    def __init__(self, inner: Engine, machine: Machine, nbytes: int) -> None:
        self._inner, self._machine, self._nbytes = inner, machine, nbytes

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        self._machine.now += self._machine.call_s + self._machine.byte_s * self._nbytes
        return self._inner.run(inputs, stop=stop)


class Machine:
    """A clock that only engines move, and the loader of such engines."""

    def __init__(self, *, call_s: float = 1e-4, byte_s: float = 1e-6) -> None:
        self.now, self.call_s, self.byte_s = 0.0, call_s, byte_s

    def __call__(self) -> float:
        return self.now

    def load(self, model: Runnable, threads: int) -> Engine:
        return Slowed(ENGINES["onnxruntime"](model, threads), self, len(model.onnx))

    def seconds(self, model: Runnable) -> float:
        return self.call_s + self.byte_s * len(model.onnx)


class Counting(Slowed):
    """An engine whose runs move a counter of joules too, at 30 W."""

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        found = super().run(inputs, stop=stop)
        self._machine.count()
        return found


class Drawing(Machine):
    """A machine with a counter of joules below ``root``."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
        self._counter.parent.mkdir(parents=True)
        self.count()

    def count(self) -> None:
        self._counter.write_text(f"{round(30e6 * self.now) + 1}")

    def load(self, model: Runnable, threads: int) -> Engine:
        return Counting(ENGINES["onnxruntime"](model, threads), self, len(model.onnx))


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="module")
def costs(bundle: Bundle, machine: Machine) -> Costs:
    return time_parts(bundle, pause_s=0, load=machine.load, clock=machine)


def test_every_head_tail_and_exit_is_timed_as_one_stretch(
    bundle: Bundle, costs: Costs, machine: Machine
) -> None:
    parts = costs.forms["float32"]
    assert (len(parts.head_s), len(parts.tail_s), len(parts.exit_s)) == (4, 4, 3)
    assert parts.head_s[0] == parts.tail_s[-1] == parts.exit_s[-1] == NOTHING
    for k in range(3):
        head, tail = bundle.runnable(0, k + 1), bundle.runnable(k, 3)
        assert parts.head_s[k + 1].mean_s == pytest.approx(machine.seconds(head), rel=1e-3)
        assert parts.tail_s[k].mean_s == pytest.approx(machine.seconds(tail), rel=1e-3)


def test_an_exit_is_what_it_adds_to_the_head_that_ends_at_it(
    bundle: Bundle, costs: Costs, machine: Machine
) -> None:
    for exit_, adds in zip(bundle.net.exits[:-1], costs.forms["float32"].exit_s, strict=False):
        there = bundle.runnable(0, exit_.after, exits=[exit_.name])
        more = machine.seconds(there) - machine.seconds(bundle.runnable(0, exit_.after))
        assert adds.mean_s == pytest.approx(more, rel=1e-2)


def test_the_file_says_where_it_is_from_and_is_small(bundle: Bundle, tmp_path: Path) -> None:
    drawing = Drawing(tmp_path)
    found = measure(
        bundle, device=PI, pause_s=0, load=drawing.load, clock=drawing, root=tmp_path, seconds=0.5
    )
    # The processor's own counters take the place of the profile's 4 W.
    assert (found.device, found.how, found.energy) == ("pi", "measured", "measured")
    assert found.power_w == pytest.approx(30, rel=0.01)
    assert found.engine.startswith("onnxruntime 1.") and found.processor and found.clock
    assert np.datetime64(found.when.rstrip("Z")) > np.datetime64("2026-01-01")
    raw = msgspec.json.encode(found)
    assert len(raw) < 50_000
    assert msgspec.json.decode(raw, type=Costs) == found


def test_codecs_are_there_for_the_boundaries_that_they_carry(bundle: Bundle) -> None:
    # Codecs do not move the made-up clock, so this is by the real one.
    found = measure(bundle, seconds=0.2, pause_s=0.001)
    for times in (found.encode_s, found.decode_s):
        assert set(times) >= {"float16", "int8"} and "float32" not in times
        assert all(len(row) == 4 for row in times.values())
        assert all(each.quantile(0.5) > 0 for each in times["int8"][:3])
        assert times["int8"][3] == NOTHING
    assert found.ask_s.quantile(0.5) > 0
    assert found.device == "this machine"
    assert (found.power_w > 0) == (found.energy == "measured")


def test_models_too_large_to_be_held_together_are_timed_in_groups(
    bundle: Bundle, costs: Costs
) -> None:
    alone = Machine()
    found = time_parts(bundle, pause_s=0, load=alone.load, clock=alone, seconds=5, group_bytes=1)
    for here, before in zip(
        found.forms["float32"].head_s, costs.forms["float32"].head_s, strict=True
    ):
        assert here.mean_s == pytest.approx(before.mean_s, rel=1e-3)


def test_a_machine_that_became_slower_is_told_from_a_few_probes(
    bundle: Bundle, costs: Costs
) -> None:
    slower = Machine(call_s=1.7e-4, byte_s=1.7e-6)
    found = anchor(costs, bundle, load=slower.load, clock=slower)
    for before, now in zip(
        costs.forms["float32"].tail_s, found.forms["float32"].tail_s, strict=True
    ):
        assert now.mean_s == pytest.approx(1.7 * before.mean_s, rel=0.02)
    assert found.when >= costs.when


def test_calls_and_computing_that_became_slower_unequally_are_told_apart(
    bundle: Bundle, costs: Costs
) -> None:
    # Probes are told apart only where one takes several times as long as another.
    long = Machine(call_s=1e-6)
    base = time_parts(bundle, pause_s=0, load=long.load, clock=long, seconds=5)
    busy = Machine(call_s=3e-4, byte_s=1.3e-6)
    found = anchor(base, bundle, load=busy.load, clock=busy).forms["float32"]
    for k in range(3):
        expected = busy.seconds(bundle.runnable(k, 3))
        assert found.tail_s[k].mean_s == pytest.approx(expected, rel=0.03)


def test_probes_that_disagree_ask_for_a_new_measurement(bundle: Bundle, costs: Costs) -> None:
    class Odd(Machine):
        def load(self, model: Runnable, threads: int) -> Engine:
            whole = len(bundle.runnable(0, 3).onnx)
            extra = 3 if len(model.onnx) == whole else 1
            return Slowed(ENGINES["onnxruntime"](model, threads), self, extra * len(model.onnx))

    odd = Odd()
    with pytest.raises(PlanError, match=r"probes disagree: .* measure the bundle anew"):
        anchor(costs, bundle, load=odd.load, clock=odd)


def test_costs_of_another_net_are_not_brought_here(slow_bundle: Bundle, costs: Costs) -> None:
    with pytest.raises(PlanError, match="the costs are of another net than this one of 5 segments"):
        anchor(costs, slow_bundle)


def test_a_sample_is_what_is_computed_and_another_shape_is_refused(bundle: Bundle) -> None:
    load = ENGINES["onnxruntime"]
    sample = np.linspace(-1, 1, 16, dtype=np.float32)
    values = boundary_values(bundle, 1, load, sample)
    assert (values[0] == sample[np.newaxis]).all()
    whole = bundle.runnable(0, 3)
    assert whole.boundary is not None
    expected = load(whole, 1).run({whole.input: sample[np.newaxis]})[whole.boundary]
    assert np.allclose(values[3], expected, atol=1e-5)
    with pytest.raises(InputError, match=r"'sample' must have shape \(1, 16\), got \(1, 3\)"):
        time_parts(bundle, sample=sample[:3])


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "2"])
def test_a_limit_that_is_no_time_is_refused(bundle: Bundle, seconds: Any) -> None:
    with pytest.raises(SpecError, match="seconds must be a finite number above 0"):
        measure(bundle, seconds=seconds)


def test_a_model_alone_has_its_time_and_no_rounds_are_refused(bundle: Bundle) -> None:
    model = bundle.runnable(0, 1)
    x = {model.input: np.zeros((1, *bundle.net.boundaries[0].shape), np.float32)}
    assert seconds_of(model.onnx, x, repeats=3) > 0
    with pytest.raises(SpecError, match="repeats must be a whole number from 1 on, got 0"):
        seconds_of(model.onnx, x, repeats=0)
