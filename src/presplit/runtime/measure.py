"""Measuring: what each segment and each exit of a bundle costs on this machine.

The parts are timed one after another, round by round, so that a slow second of the machine falls on
all of them; the median of the rounds is what counts. A part's time includes the call into the
engine: joined segments cost a little less than the sum of theirs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.core.errors import SpecError
from presplit.core.times import NOTHING, Times
from presplit.core.types import Costs, Device
from presplit.runtime.engines.onnxruntime import Engine

WARM_UPS = 5
"""Rounds that are run first and not counted."""


def measure(
    bundle: Bundle, *, repeats: int = 200, threads: int = 1, device: Device | str = "this machine"
) -> Costs:
    """The costs of every part of ``bundle`` here, one sample at a time.

    Each is the median of ``repeats`` rounds.

    ``device`` names this machine in the result; a `Device` also gives the watts from which energy
    is reckoned, and with a name alone the energy is 0. Raises `SpecError` if ``repeats`` is not at
    least 1.
    """
    _check(repeats)
    net = bundle.net
    segments = [Engine(bundle.segment(k, k + 1), threads=threads) for k in range(net.last)]
    exits = {
        e.name: Engine(bundle.exit(e.name), threads=threads)
        for e in net.exits
        if e.after < net.last
    }
    values = [np.random.default_rng(0).random((1, *net.boundaries[0].shape), dtype=np.float32)]
    for engine in segments:
        values.append(next(iter(engine.run({"boundary": values[-1]}).values())))
    parts = [
        *zip(segments, values, strict=False),
        *((exits[e.name], values[e.after]) for e in net.exits[:-1]),
    ]
    rounds = [
        [_seconds(engine, {"boundary": value}) for engine, value in parts]
        for _ in range(WARM_UPS + repeats)
    ]
    medians = [statistics.median(column) for column in zip(*rounds[WARM_UPS:], strict=True)]
    watts = device.power_w if isinstance(device, Device) else 0.0
    return Costs(
        device=device.name if isinstance(device, Device) else device,
        segment_s=tuple(map(Times.of, medians[: net.last])),
        exit_s=(*map(Times.of, medians[net.last :]), NOTHING),
        segment_j=tuple(seconds * watts for seconds in medians[: net.last]),
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
    _check(repeats)
    engine = Engine(model, threads=threads)
    return statistics.median(
        [_seconds(engine, inputs) for _ in range(WARM_UPS + repeats)][WARM_UPS:]
    )


def _check(repeats: int) -> None:
    if repeats < 1:
        raise SpecError(f"repeats must be at least 1, got {repeats}")


def _seconds(engine: Engine, inputs: Mapping[str, npt.NDArray[Any]]) -> float:
    """How long one run takes."""
    began = time.perf_counter()
    engine.run(inputs)
    return time.perf_counter() - began
