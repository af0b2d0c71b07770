"""Re-anchoring: costs that were measured once, brought to what this machine is like now.

A clock, a governor or a neighbour makes all of a machine slower, mostly by one factor and one
overhead for each call. A few probes tell both; where they do not agree on them, the file is of
another machine. Published work on profiles of another power mode: up to 32 % wrong.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.core.costs import Costs
from presplit.core.errors import PlanError
from presplit.runtime.doors import check_positive
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.measuring import machine
from presplit.runtime.measuring.probes import Part, boundary_values, running, stretch
from presplit.runtime.measuring.rounds import Clock, Run, timed

AGREE = 0.1
"""How far a probe may lie from what the factor and the overhead say, as a share of it."""
SPREAD = 3.0
"""The longest probe must take so many times the shortest to tell an overhead from a factor."""

Array = npt.NDArray[np.float64]


def anchor(
    costs: Costs,
    bundle: Bundle,
    *,
    seconds: float = 5.0,
    load: Load = ENGINES[DEFAULT],
    root: Path = machine.ROOT,
    clock: Clock = time.perf_counter,
) -> Costs:
    """``costs`` as they are now on this machine, from up to four probes in about ``seconds``.

    The probes are the whole net, its shortest tail, and the halves. Raises `PlanError` if the costs
    are of another net, or if no one factor and overhead explain what the probes take now.
    """
    check_positive("seconds", seconds)
    last = bundle.net.last
    parts = costs.forms.get("float32")
    if parts is None or (len(parts.head_s), len(parts.exit_s)) != (last + 1, len(bundle.net.exits)):
        raise PlanError(
            f"{bundle.path}: the costs are of another net than this one of {last} segments and "
            f"{len(bundle.net.exits)} exits; measure this bundle"
        )
    middle = max(1, last // 2)
    probes: list[Part] = [("head", "float32", last), ("tail", "float32", last - 1)]
    if last > 1:
        probes += [("head", "float32", middle), ("tail", "float32", middle)]
    probes = list(dict.fromkeys(probes))
    values = boundary_values(bundle, costs.threads, load)
    runs: list[Run] = []
    for probe in probes:
        runnable, start = stretch(bundle, probe)
        runs.append(running(runnable, values[start], costs.threads, load))
    found = timed(runs, limit_s=seconds, pause_s=costs.pause_s, clock=clock)
    sides = {"head": parts.head_s, "tail": parts.tail_s}
    then = np.array([sides[kind][k].quantile(0.5) for kind, _, k in probes])
    now = np.median(found.seconds, axis=1)
    factor, call_s = _fit(then, now)
    missed = np.abs(factor * then + call_s - now) / now
    noise = 2 * (found.precision + (costs.precision or 0.0))
    if missed.max() > max(AGREE, noise):
        kind, _, k = probes[int(missed.argmax())]
        raise PlanError(
            f"{costs.device}: the probes disagree: costs that are {factor:.2f} times as long as on "
            f"{costs.when} explain them, but for the {kind} at boundary {k}, which is "
            f"{missed.max():.0%} off; measure the bundle anew"
        )
    return _moved(costs, factor, call_s, root)


def _fit(then: Array, now: Array) -> tuple[float, float]:
    """The factor and the seconds for each call by which ``then`` became ``now``.

    Least squares of shares, so that a short probe counts as much as a long one. Where all are about
    as long, or the fit is absurd, a factor alone.
    """
    alone = float(np.exp(np.log(now / then).mean()))
    if then.max() < SPREAD * then.min():
        return alone, 0.0
    columns = np.stack([then / now, 1 / now], axis=1)
    (factor, call_s), *_ = np.linalg.lstsq(columns, np.ones(len(now)), rcond=None)
    if factor <= 0 or call_s < -0.5 * then.min() * factor:
        return alone, 0.0
    return float(factor), float(call_s)


def _moved(costs: Costs, factor: float, call_s: float, root: Path) -> Costs:
    """All of ``costs`` by the factor, and each stretch by the overhead."""
    return msgspec.structs.replace(
        costs,
        forms={form: parts.scaled(factor, call_s) for form, parts in costs.forms.items()},
        encode_s={
            name: tuple(each.scaled(factor) for each in row) for name, row in costs.encode_s.items()
        },
        decode_s={
            name: tuple(each.scaled(factor) for each in row) for name, row in costs.decode_s.items()
        },
        answer_s=costs.answer_s.scaled(factor),
        ask_s=costs.ask_s.scaled(factor),
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        clock=machine.clock_state(root),
    )
