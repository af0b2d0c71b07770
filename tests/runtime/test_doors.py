"""What cannot be meant is refused at the door, and what is no number is no answer."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.bundle.samples import read_array
from presplit.core.errors import EngineError, InputError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.core.types import Runnable
from presplit.runtime import Edge, serve
from presplit.runtime.engines import ENGINES, Arrays, Stop
from presplit.runtime.fallback import Fallback
from presplit.runtime.local import Local
from presplit.runtime.measuring.measure import measure
from presplit.runtime.pace import Pace
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.server import hosting
from presplit.runtime.upstream import Failure, InProcess
from presplit.runtime.walk import _first

IMAGE = np.ones(16, np.float32)
LOGITS = np.array([[9, 1, 2, 3]], np.float32)


@pytest.mark.parametrize("threads", [0, -1, 99999, 1.5, True, "2", None])
def test_threads_are_a_whole_number_that_the_machine_can_bear(bundle: Bundle, threads: Any) -> None:
    for refused in (
        lambda: Edge.open(bundle, plan=Plan(3), threads=threads),
        lambda: Local.open(bundle, threads=threads),
        lambda: hosting(bundle, threads=threads),
        lambda: measure(bundle, threads=threads),
    ):
        with pytest.raises(SpecError, match="threads must be"):
            refused()


def test_bytes_to_keep_are_a_number_in_its_range(bundle: Bundle) -> None:
    for keep_bytes in (0, -1, math.nan, math.inf, True, "9"):
        with pytest.raises(SpecError, match="keep_bytes must be"):
            hosting(bundle, keep_bytes=keep_bytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [{}, "plan", 0])
def test_what_is_no_plan_is_refused_as_one(bundle: Bundle, plan: Any) -> None:
    with pytest.raises(PlanError, match="plan must be a presplit.Plan"):
        Edge.open(bundle, plan=plan)
    with pytest.raises(PlanError, match="plan must be a presplit.Plan"):
        Local.open(bundle, plan=plan)


@pytest.mark.parametrize("changes", [{"codec": "int7"}, {"policy": "guess"}])
def test_a_bundle_whose_plan_names_what_does_not_exist_is_not_served(
    bundle: Bundle, changes: dict[str, Any]
) -> None:
    plan = msgspec.structs.replace(Plan(1), **changes)
    manifest = msgspec.structs.replace(bundle.manifest, plan=plan)
    with pytest.raises(PlanError, match="int7|guess"):
        serve(dataclasses.replace(bundle, manifest=manifest))


class NoNumbers:
    """ONNX Runtime, but everything beyond boundary 1 is NaN."""

    def __init__(self, model: Runnable, threads: int) -> None:
        self.inner = ENGINES["onnxruntime"](model, threads)
        self.deep = model.boundary != "boundary_01"

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        found = self.inner.run(inputs, stop=stop)
        return {
            name: array * np.float32("nan") if self.deep else array for name, array in found.items()
        }


def test_what_is_not_finite_is_no_answer_and_is_not_sent(bundle: Bundle) -> None:
    with Edge(bundle, Plan(3, {"early": 2.0}), load=NoNumbers) as edge:
        answer = edge.answer(IMAGE)
        assert (answer.why, answer.exit, answer.degraded) == ("failed", "early", True)
    with (
        Edge(bundle, Plan(3), load=NoNumbers) as edge,
        pytest.raises(EngineError, match="values that are not finite"),
    ):
        edge.answer(IMAGE)
    with pytest.raises(EngineError, match="values that are not finite"):
        Local(bundle, Plan(3), load=NoNumbers).answer(IMAGE[None])
    with Edge(bundle, Plan(1), upstream=InProcess(hosting(bundle))) as edge:
        asked, sent = edge._walks[0]._sending.ask(np.full((1, 12), np.nan, np.float32), math.inf)
    assert isinstance(asked, Failure)
    assert (asked.why, sent) == ("failed", 0)


class Broken:
    seconds = 0.001

    def run(self, values: Any, *, stop: Any) -> Any:
        raise EngineError("no memory")


class Slow:
    """A reply that is there the second time that it is waited for."""

    cancelled = False
    server_s = None

    def __init__(self) -> None:
        self.replies = [Failure("late", "not yet"), LOGITS]

    def wait(self, until: float) -> Any:
        return self.replies.pop(0)

    def cancel(self) -> None:
        self.cancelled = True


def test_a_fallback_that_fails_leaves_the_reply_to_come() -> None:
    asked, meanwhile = Slow(), Fallback([Broken()], IMAGE, None, by=0.0, pace=Pace())  # type: ignore[list-item]
    with pytest.raises(EngineError, match="no memory"):
        meanwhile.best()
    assert _first(asked, meanwhile, 0.0, math.inf) is LOGITS
    assert not asked.cancelled


def test_a_server_that_warms_up_hears_the_signal_to_stop(bundle: Bundle) -> None:
    def slow(model: Runnable, threads: int) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return ENGINES["onnxruntime"](model, threads)

    told = list[Any]()
    serve(bundle, Config(port=0, log="none"), load=slow, ready=told.append)
    assert told == []


def test_a_text_called_npy_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_text("1 2 3")
    with pytest.raises(InputError, match="holds no array of numbers") as refused:
        read_array(tmp_path / "x.npy", "samples")
    assert "pickle" not in str(refused.value)
