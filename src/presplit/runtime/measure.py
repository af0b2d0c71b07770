"""Measuring: what each segment and each exit of a bundle costs on this machine.

The parts are timed one after another, round by round, so that a slow second of the machine falls on
all of them; the median of the rounds is what counts. A part's time includes the call into the
engine. Heads and tails are timed as they run, in one stretch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device, Parts
from presplit.core.times import NOTHING, Times
from presplit.core.types import Runnable
from presplit.runtime.doors import check_count, check_threads
from presplit.runtime.engines import DEFAULT, ENGINES, Engine, Load

WARM_UPS = 5
"""Rounds that are run first and not counted."""

Part = tuple[Engine, Mapping[str, npt.NDArray[Any]]]
"""An engine and what it is given."""


def measure(
    bundle: Bundle,
    *,
    repeats: int = 200,
    threads: int = 1,
    device: Device | str = "this machine",
    load: Load = ENGINES[DEFAULT],
) -> Costs:
    """The costs of every part of ``bundle`` here, one sample at a time.

    Each is the median of ``repeats`` rounds, one draw. ``device`` names this machine in the result;
    a `Device` also gives the watts from which energy is reckoned, and with a name alone the energy
    is 0. ``load`` makes the engines. Raises `SpecError` if ``repeats`` is not at least 1.
    """
    check_count("repeats", repeats)
    check_threads(threads)
    net = bundle.net
    name, watts = (device, 0.0) if isinstance(device, str) else (device.name, device.power_w)
    values: Any = np.random.default_rng(0).random((1, *net.boundaries[0].shape), dtype=np.float32)
    heads, tails, exits = list[Part](), list[Part](), list[Part]()
    first = values
    for start in range(net.last):
        for exit_ in net.exits[:-1]:
            if exit_.after == start:
                runnable = bundle.runnable(start, start, exits=[exit_.name])
                exits.append((load(runnable, threads), {runnable.input: values}))
        runnable = bundle.runnable(start, net.last)
        tails.append((load(runnable, threads), {runnable.input: values}))
        runnable = bundle.runnable(0, start + 1)
        engine = load(runnable, threads)
        heads.append((engine, {runnable.input: first}))
        assert runnable.boundary is not None, "it stops beyond its start"
        values = engine.run({runnable.input: first})[runnable.boundary]
    times = [Times.of(seconds) for seconds in _medians([*heads, *tails, *exits], repeats)]
    parts = Parts(
        head_s=(NOTHING, *times[: net.last]),
        tail_s=(*times[net.last : 2 * net.last], NOTHING),
        exit_s=(*times[2 * net.last :], NOTHING),
    )
    return Costs(
        device=name,
        forms={"float32": parts},
        power_w=watts,
        how="measured",
        when=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def seconds_of(
    model: bytes, inputs: Mapping[str, npt.NDArray[Any]], *, repeats: int = 50, threads: int = 1
) -> float:
    """Median seconds of one run of an ONNX model here.

    ``inputs``: an array for each input by name. Raises `BundleError` if ``model`` is not one,
    `InputError` if it does not take ``inputs``, `SpecError` if ``repeats`` is not at least 1.
    """
    check_count("repeats", repeats)
    check_threads(threads)
    engine = ENGINES[DEFAULT](Runnable(model, "", None, {}), threads)
    return _medians([(engine, inputs)], repeats)[0]


def _medians(parts: Sequence[Part], repeats: int) -> list[float]:
    """The median seconds of a run of each part, over so many rounds."""
    rounds = [[_seconds(part) for part in parts] for _ in range(WARM_UPS + repeats)]
    return [statistics.median(column) for column in zip(*rounds[WARM_UPS:], strict=True)]


def _seconds(part: Part) -> float:
    """How long one run takes."""
    engine, inputs = part
    began = time.perf_counter()
    engine.run(inputs)
    return time.perf_counter() - began
