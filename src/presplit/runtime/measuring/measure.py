"""Measuring: what each part of a bundle costs on this machine, as it will run.

Heads and tails are timed in one stretch, from each boundary to the end, and the first with each of
its exits: a joined stretch costs less than the sum of its segments. Codecs are timed on the values
at each boundary, the edge itself on the whole net, asking on an echo. All that is timed together is
timed round by round (`presplit.runtime.measuring.rounds`); engines that would not fit into memory
together are timed in groups. Before each stretch the machine rests as it does between two answers
that a link or a camera keeps waiting: run back to back, a small net seemed four times as fast as it
is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device, Parts
from presplit.core.memory import give_back
from presplit.core.plans import Plan
from presplit.core.processor import processor
from presplit.core.times import NOTHING, Times
from presplit.core.types import Floats, Runnable
from presplit.runtime.doors import check_count, check_positive, check_threads
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.engines.onnxruntime import version
from presplit.runtime.measuring import machine
from presplit.runtime.measuring.probes import (
    CODING,
    GROUP_BYTES,
    Array,
    Part,
    boundary_values,
    first_values,
    forms_of,
    groups,
    probes_of,
    run_of,
    running,
    stretch,
)
from presplit.runtime.measuring.rounds import Clock, Timed, kept, timed

PAUSE_S = 0.02
"""The rest before each stretch; a longer one changes little."""
CODEC_QUANTILES = 16
"""What is kept of a codec's time, of which there are many."""
STRETCHES_SHARE = 0.85
"""Of the whole time, at most; codecs have what is left."""
AWAKE_ROUNDS, AWAKE_LIMIT_S = 60, 3.0
"""How often, and about how long, the shortest tail is run after the head before it."""


def measure(
    bundle: Bundle,
    *,
    seconds: float = 60.0,
    threads: int = 1,
    device: Device | str = "this machine",
    pause_s: float = PAUSE_S,
    sample: Floats | None = None,
    load: Load = ENGINES[DEFAULT],
    root: Path = machine.ROOT,
    clock: Clock = time.perf_counter,
) -> Costs:
    """The costs of every part of ``bundle`` here, one sample at a time, in each form that it has.

    It ends when all medians are stable, or after about so many ``seconds``: `Costs.precision` says
    how well they are known. The machine rests for ``pause_s`` before each stretch: 0 for answers
    that follow each other at once. ``device`` names this machine; a `Device` also gives the watts
    where the processor's own counters below ``root`` cannot be read. ``sample``, float32 of the
    net's input without a batch, is what is computed and encoded, noise if None: codecs that
    squeeze take longer for noise. ``load`` makes the engines, and ``clock`` tells the time. Raises
    `SpecError` if a number is out of its range, `InputError` for another sample.
    """
    costs = time_parts(
        bundle,
        seconds=seconds,
        threads=threads,
        pause_s=pause_s,
        sample=sample,
        load=load,
        clock=clock,
    )
    name, profile = (device, None) if isinstance(device, str) else (device.name, device.power_w)
    whole = bundle.runnable(0, bundle.net.last)
    engine = load(whole, threads)
    first = first_values(bundle, sample)
    drawn = machine.watts(lambda: engine.run({whole.input: first}), root=root, clock=clock)
    energy = "profile" if profile is not None else "unknown"
    return msgspec.structs.replace(
        costs,
        device=name,
        power_w=(profile or 0.0) if drawn is None else drawn,
        energy=energy if drawn is None else "measured",
        ask_s=_asking(seconds),
        peak_bytes=machine.peak_bytes(bundle.path, threads=threads),
        processor=processor(root),
        engine=f"{DEFAULT} {version()}",
        clock=machine.clock_state(root),
    )


def time_parts(
    bundle: Bundle,
    *,
    seconds: float = 60.0,
    threads: int = 1,
    pause_s: float = PAUSE_S,
    sample: Floats | None = None,
    load: Load = ENGINES[DEFAULT],
    clock: Clock = time.perf_counter,
    group_bytes: float = GROUP_BYTES,
) -> Costs:
    """The times of `measure` alone, without what surrounds them: memory, energy, asking."""
    from presplit.runtime.edge import Edge

    check_positive("seconds", seconds)
    check_threads(threads)
    values = boundary_values(bundle, threads, load, sample)
    probes = probes_of(bundle, values)
    stretches = sum(probe.part[0] not in CODING for probe in probes)
    ends = clock() + seconds
    found: dict[Part, tuple[Timed, int]] = {}
    for group in groups(probes, group_bytes):
        share, rest_s = STRETCHES_SHARE * seconds * len(group) / stretches, pause_s
        if group[0].part[0] in CODING:
            # Encoding follows a stretch and decoding comes before one: the machine is awake.
            share, rest_s = max(0.0, ends - clock()), 0.0
        with Edge(bundle, Plan(bundle.net.last), threads=threads, load=load) as edge:
            runs = [run_of(probe, edge, threads, load) for probe in group]
            both = timed(runs, limit_s=share, pause_s=rest_s, clock=clock)
        found |= {probe.part: (both, place) for place, probe in enumerate(group)}
        del runs
        give_back()
    how = threads, load, clock
    awake_s = {form: _awake_s(bundle, form, values, how) for form in forms_of(bundle)}
    costs = _costs(bundle, found, awake_s)
    return msgspec.structs.replace(costs, threads=threads, pause_s=pause_s)


def _awake_s(
    bundle: Bundle, form: str, values: Sequence[Array], how: tuple[int, Load, Clock]
) -> float:
    """What the shortest tail takes at once after the head before it: awake, but not in the caches.

    Run again and again it would find its own weights there, which no answer does.
    """
    threads, load, clock = how
    cut = bundle.net.last - 1
    parts: list[tuple[str, str, int]] = [("head", form, cut)] if cut else []
    runs = [
        running(runnable, values[start], threads, load)
        for runnable, start in (stretch(bundle, part) for part in [*parts, ("tail", form, cut)])
    ]
    took, ends = list[float](), clock() + AWAKE_LIMIT_S
    while not took or (len(took) < AWAKE_ROUNDS and clock() < ends):
        for before in runs[:-1]:
            before()
        began = clock()
        runs[-1]()
        took.append(clock() - began)
    return float(np.median(took))


def seconds_of(
    model: bytes, inputs: Mapping[str, Array], *, repeats: int = 50, threads: int = 1
) -> float:
    """Median seconds of one run of an ONNX model here.

    ``inputs``: an array for each input by name. Raises `BundleError` if ``model`` is not one,
    `InputError` if it does not take ``inputs``, `SpecError` if ``repeats`` is not at least 1.
    """
    check_count("repeats", repeats)
    check_threads(threads)
    engine = ENGINES[DEFAULT](Runnable(model, "", None, {}), threads)
    took: list[float] = []
    for _ in range(repeats + 5):
        began = time.perf_counter()
        engine.run(inputs)
        took.append(time.perf_counter() - began)
    return float(np.median(took[5:]))


def _costs(
    bundle: Bundle, found: Mapping[Part, tuple[Timed, int]], awake_s: Mapping[str, float]
) -> Costs:
    """The times at the places where costs have them; each comes with its place in what is timed.

    ``awake_s``: what the shortest tail of each form takes where nothing has to wake up for it.
    """
    net = bundle.net

    def median_s(part: Part) -> float:
        both, place = found[part]
        return both.median_s(place)

    def times(part: Part, quantiles: int = 64) -> Times:
        if part not in found:
            return NOTHING
        both, place = found[part]
        return both.times(place, quantiles)

    def added(part: Part, to: Part) -> Times:
        return _rounded(max(0.0, median_s(part) - median_s(to)))

    forms = {
        form: Parts(
            head_s=(NOTHING, *(times(("head", form, k)) for k in range(1, net.last + 1))),
            tail_s=(*(times(("tail", form, k)) for k in range(net.last)), NOTHING),
            exit_s=(
                *(
                    added(("exit", form, number), ("head", form, exit_.after))
                    for number, exit_ in enumerate(net.exits[:-1])
                ),
                NOTHING,
            ),
            wake_s=_rounded(
                max(0.0, median_s(("tail", form, net.last - 1)) - awake_s[form])
            ).mean_s,
        )
        for form in forms_of(bundle)
    }

    def codecs(kind: Literal["encode", "decode"]) -> dict[str, tuple[Times, ...]]:
        names = sorted({name for known, name, _ in found if known == kind})
        rows = range(net.last + 1)
        return {
            name: tuple(times((kind, name, k), CODEC_QUANTILES) for k in rows) for name in names
        }

    return Costs(
        device="",
        forms=forms,
        how="measured",
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        encode_s=codecs("encode"),
        decode_s=codecs("decode"),
        answer_s=added(("edge", "float32", net.last), ("head", "float32", net.last)),
        precision=_rounded(max(both.precision for both, _ in found.values())).mean_s,
    )


def _rounded(seconds: float) -> Times:
    return kept(np.array([seconds]))


def _asking(seconds: float) -> Times:
    """What asking takes on this machine, from a share of so many ``seconds``."""
    from presplit.runtime.measuring.asking import PAUSE_S, asking_s

    return kept(asking_s(rounds=min(100, max(10, round(seconds / 10 / PAUSE_S)))))
