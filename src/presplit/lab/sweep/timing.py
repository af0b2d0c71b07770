"""What an answer of each net takes here: all nets in turn in one process, one thread, batch 1."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from presplit.core.tensors import INPUT
from presplit.runtime.engines.onnxruntime import Engine, version
from presplit.runtime.measuring.machine import clock_state
from presplit.runtime.measuring.rounds import timed

SECONDS_EACH, LONGEST_S = 1.0, 60.0
"""How long is measured: so long for each net, but all together no longer."""


@dataclass(frozen=True)
class Timing:
    """The median seconds of each net, and how they were measured."""

    seconds: tuple[float, ...]
    how: Mapping[str, Any]


def measure(
    nets: Sequence[tuple[bytes, tuple[int, ...]]], seconds_each: float = SECONDS_EACH
) -> Timing:
    """The median time of one sample of each of ``nets``: an ONNX model and its sample's shape.

    All are run once in each round, in an order that is drawn anew: a slow moment of the machine
    falls on all of them. Every exit is computed.
    """
    random, runs = np.random.default_rng(0), list[Any]()
    for model, shape in nets:
        engine = Engine(model, threads=1)
        sample = random.random((1, *shape), np.float32)
        runs.append(functools.partial(engine.run, {INPUT: sample}))
    found = timed(runs, limit_s=min(seconds_each * len(runs), LONGEST_S))
    medians = tuple(float(f"{found.median_s(place):.4g}") for place in range(len(runs)))
    how = {
        "engine": f"ONNX Runtime {version()}, one thread, one sample",
        "rounds": int(found.seconds.shape[1]),
        "precision": round(found.precision, 4),
        "clock": clock_state(),
    }
    return Timing(medians, how)
