"""A slowed device computes the same, later, and can be made faster or slower while it runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit.core.errors import SpecError
from presplit.core.types import Runnable
from presplit.lab.processes import running
from presplit.lab.slow_device import Slowed
from presplit.runtime.engines import Stop, Stopped

MODEL = Runnable(b"", "x", None, {})
TAKES_S = 0.004


class Sleeper:
    """Takes its time and gives back what it is given."""

    def run(self, inputs: Any, *, stop: Stop | None = None) -> Any:
        time.sleep(TAKES_S)
        return inputs


def took_s(engine: Any, runs: int = 9) -> float:
    """The fastest of some, so that a busy machine does not count."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        assert engine.run({"x": np.ones(1)})["x"] == 1
        found.append(time.perf_counter() - began)
    return min(found)


def test_a_run_takes_so_many_times_as_long_and_the_factor_may_change() -> None:
    slowed = Slowed(1, load=lambda runnable, threads: Sleeper())
    engine = slowed(MODEL, 1)
    own_s = took_s(engine)
    for factor in (4, 2.5):
        slowed.factor = factor
        assert took_s(engine) == pytest.approx(factor * own_s, rel=0.1)


def test_a_steady_device_does_not_stretch_what_waking_up_takes() -> None:
    """The first run after a rest takes four times as long, and then only that much longer."""

    class Sleepy(Sleeper):
        rested = True

        def run(self, inputs: Any, *, stop: Stop | None = None) -> Any:
            time.sleep(3 * TAKES_S if self.rested else 0)
            self.rested = False
            return super().run(inputs, stop=stop)

    inner = Sleepy()
    engine = Slowed(10, steady=True, load=lambda runnable, threads: inner)(MODEL, 1)
    took_s(engine, runs=1)
    inner.rested = True
    assert took_s(engine, runs=1) == pytest.approx(10 * TAKES_S, rel=0.3)


def test_a_run_that_waits_is_stopped_at_once() -> None:
    engine, stop = Slowed(10_000, load=lambda runnable, threads: Sleeper())(MODEL, 1), Stop()
    threading.Timer(0.05, stop.ask).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        engine.run({"x": np.ones(1)}, stop=stop)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), 1e9])
def test_a_factor_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(SpecError, match="factor must be a number from 1 to 10000, got"):
        Slowed(factor)


def test_a_server_on_a_slowed_device_answers_and_obeys(tmp_path: Path) -> None:
    from runpy import run_path

    from presplit.core.plans import Plan
    from presplit.runtime import Edge

    small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))
    bundle = small["small_bundle"](tmp_path / "small.bundle", seed=1)
    image = np.zeros(16, np.float32)
    with (
        running("presplit.lab.slow_device", str(bundle.path)) as (address, process),
        Edge.open(bundle, server=address, plan=Plan(1, deadline_s=5.0)) as edge,
    ):
        assert process.stdin is not None and process.stderr is not None
        assert edge.answer(image).why == "server"
        print("factor 4", file=process.stdin, flush=True)
        while "an order is one line of JSON" not in (line := process.stderr.readline()):
            assert line, "the server ended"
        print(json.dumps({"factor": 10_000}), file=process.stdin, flush=True)
        until = time.monotonic() + 10
        while edge.answer(image, deadline_s=0.1).why == "server":
            assert time.monotonic() < until
