"""What a net takes on this machine, found in a few seconds: kernel by kernel, and as a whole.

ONNX Runtime's profile of the whole net says how its time is spread; the whole net, timed without a
profile, says how long it is. `presplit measure` takes a minute, times every stretch as it will run,
and is more exact: this is to look around.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from presplit.bundle import Bundle
from presplit.core.cost import counted
from presplit.core.costs import Costs, Device, Parts
from presplit.core.errors import MissingLibrary, PlanError
from presplit.core.plans import Plan
from presplit.core.processor import processor
from presplit.core.times import NOTHING, Times
from presplit.core.types import Floats
from presplit.core.value import DAY_S
from presplit.graph.listing import operators
from presplit.lab.view.kernels import Placed, placed
from presplit.runtime.edge import Edge
from presplit.runtime.engines import DEFAULT, ENGINES, Engine
from presplit.runtime.engines.onnxruntime import version
from presplit.runtime.engines.profile import profiled
from presplit.runtime.measuring import machine
from presplit.runtime.measuring.asking import asking_s
from presplit.runtime.measuring.probes import boundary_values, probes_of
from presplit.runtime.measuring.rounds import kept

THIS = "this machine"
BUDGET_S = 0.5
"""For each thing that is timed, about; a large net is run a few times at least."""
CODECS_S = 1.5
PAUSE_S = 0.02
"""Answers follow each other so far apart, as in `presplit.runtime.measuring.measure`."""
QUANTILES = 32
CALL_SHARE = 0.8
"""Of the shortest segment's time, the part that is taken for the call itself."""


@dataclass(frozen=True, eq=False)
class Here:
    """What was found: the operators with their places and times, and costs of this machine.

    ``warm`` has parts as they are run again and again, without what waking up takes; ``warm_s`` is
    the whole net so.
    """

    placed: Placed
    costs: Costs
    warm: Mapping[str, Parts]
    warm_s: float


def look(bundle: Bundle, sample: Floats, *, threads: int = 1) -> Here:
    """Time ``bundle`` on this machine with ``sample``, float32 of the net's input.

    Raises `GraphError` if its operators cannot be listed.
    """
    last, net = bundle.net.last, bundle.net
    early = [exit_.name for exit_ in net.exits[:-1]]
    first: Placed | None = None
    warm: dict[str, Parts] = {}
    forms: dict[str, Parts] = {}
    alone_s, wake_s = 0.0, 0.0
    for form in bundle.forms:
        model = bundle.runnable(0, last, exits=early, form=form)
        inputs = {model.input: sample[np.newaxis]}
        engine = ENGINES[DEFAULT](model, threads)
        whole_s = _median(engine, inputs)
        runs = int(np.clip(BUDGET_S / max(whole_s, 1e-6), 5, 40))
        listed = operators(model.onnx)
        call_s = _calling(bundle, form, threads, whole_s)
        found = placed(listed, profiled(model, inputs, runs=runs), net, whole_s - call_s)
        warm[form] = _steady(_parts(found, call_s, 0.0))
        if first is None:
            alone = bundle.runnable(0, last)
            alone_engine = ENGINES[DEFAULT](alone, threads)
            alone_s = _median(alone_engine, inputs)
            wake_s = max(0.0, _median(alone_engine, inputs, pause_s=PAUSE_S) - alone_s)
            first = found
        forms[form] = _parts(found, call_s, wake_s)
    assert first is not None, "there is float32"
    encode_s, decode_s = _codecs(bundle, sample, threads)
    costs = Costs(
        device=THIS,
        forms=forms,
        how="measured",
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        energy="unknown",
        encode_s=encode_s,
        decode_s=decode_s,
        answer_s=_answering(bundle, sample, threads, alone_s + wake_s),
        ask_s=kept(asking_s(rounds=10)),
        threads=threads,
        processor=processor(),
        engine=f"{DEFAULT} {version()}",
        clock=machine.clock_state(),
        pause_s=PAUSE_S,
    )
    return Here(first, costs, warm, alone_s)


def scaled(here: Here, device: Device, bundle: Bundle) -> tuple[Costs, float]:
    """The costs of ``device``, and how many times as slow as this machine it is.

    The whole net is to take what its multiplications take there; its parts keep the proportions
    that they have here. Codecs and messages take what they take here. Raises `PlanError` if nothing
    that the net does counts as a multiplication.
    """
    macs = tuple(part.macs for part in bundle.manifest.segments)
    if not any(macs):
        raise PlanError(
            f"{device.name}: nothing that the net does counts as a multiplication, so its time "
            f"there cannot be told; choose {THIS}, or give --costs that presplit measure found"
        )
    exits = [0] * len(bundle.net.exits)
    there = counted(device, segment_macs=macs, exit_macs=exits, when=device.date)
    factor = there.forms["float32"].head_s[-1].mean_s / here.warm_s
    forms = {form: parts.scaled(factor) for form, parts in here.warm.items()}
    return _on(here.costs, device, forms), factor


def _on(costs: Costs, device: Device, forms: dict[str, Parts]) -> Costs:
    import msgspec

    return msgspec.structs.replace(
        costs, device=device.name, forms=forms, power_w=device.power_w, energy="profile"
    )


def _calling(bundle: Bundle, form: str, threads: int, whole_s: float) -> float:
    """What a call into an engine takes besides what it computes: next to nothing is, here."""
    macs = [part.macs for part in bundle.manifest.segments]
    number = macs.index(min(macs))
    model = bundle.runnable(number, number + 1, form=form)
    shape = bundle.net.boundaries[number].shape
    values = np.zeros((1, *shape), np.float32)
    least_s = _median(ENGINES[DEFAULT](model, threads), {model.input: values})
    return CALL_SHARE * min(least_s, whole_s)


def _parts(found: Placed, call_s: float, wake_s: float) -> Parts:
    """Stretches as sums of their segments, run by run, with what calling and waking up takes."""
    added_s = call_s + wake_s
    segments, exits = found.segment_s, found.exit_s
    through = np.cumsum(segments, axis=0)
    total = through[-1]
    heads = [kept(row + added_s, QUANTILES) for row in through]
    tails = [kept(total + added_s, QUANTILES)]
    tails += [kept(np.maximum(total - row, 0.0) + added_s, QUANTILES) for row in through[:-1]]
    # Single microseconds of an exit are noise of the profile.
    early = [Times.of(float(row.mean())) for row in exits]
    return Parts((NOTHING, *heads), (*tails, NOTHING), (*early, NOTHING), wake_s)


def _steady(parts: Parts) -> Parts:
    """The medians alone: a device that is stood for always takes the same."""
    heads = tuple(Times.of(each.quantile(0.5)) for each in parts.head_s)
    tails = tuple(Times.of(each.quantile(0.5)) for each in parts.tail_s)
    return Parts(heads, tails, parts.exit_s, parts.wake_s)


def _median(engine: Engine, inputs: Mapping[str, np.ndarray], *, pause_s: float = 0.0) -> float:
    """The median seconds of a run, as often as about `BUDGET_S` allows."""
    for _ in range(2):
        engine.run(inputs)
    took = list[float]()
    ends = time.perf_counter() + BUDGET_S
    while len(took) < 5 or (len(took) < 60 and time.perf_counter() < ends):
        time.sleep(pause_s)
        began = time.perf_counter()
        engine.run(inputs)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _answering(bundle: Bundle, sample: Floats, threads: int, engine_s: float) -> Times:
    """What an answer takes besides its engine."""
    with Edge(bundle, Plan(bundle.net.last), threads=threads) as edge:
        took = list[float]()
        for _ in range(12):
            time.sleep(PAUSE_S)
            took.append(edge.answer(sample, deadline_s=DAY_S).elapsed_s)
    return Times.of(max(0.0, statistics.median(took) - engine_s))


def _codecs(
    bundle: Bundle, sample: Floats, threads: int
) -> tuple[dict[str, tuple[Times, ...]], dict[str, tuple[Times, ...]]]:
    """What encoding and decoding take, as far as `CODECS_S` reach; the rest is taken as 0."""
    values = boundary_values(bundle, threads, ENGINES[DEFAULT], sample)
    probes = [one for one in probes_of(bundle, values) if one.run is not None]
    rows = bundle.net.last + 1
    found: dict[str, dict[str, list[Times]]] = {"encode": {}, "decode": {}}
    ends = time.perf_counter() + CODECS_S
    for probe in probes:
        kind, name, boundary = probe.part
        row = found[kind].setdefault(name, [NOTHING] * rows)
        if time.perf_counter() < ends and probe.run is not None:
            with contextlib.suppress(MissingLibrary):
                row[boundary] = Times.of(_least(probe.run))
    encode, decode = (
        {name: tuple(row) for name, row in found[kind].items()} for kind in ("encode", "decode")
    )
    return encode, decode


def _least(run: object) -> float:
    """The median of three calls, after one."""
    assert callable(run)
    run()
    took = list[float]()
    for _ in range(3):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return statistics.median(took)
