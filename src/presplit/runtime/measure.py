"""Measuring: what each part of a bundle costs on this machine, as it will run.

Heads and tails are timed in one stretch, from each boundary to the end, and the first with each of
its exits: a joined stretch costs less than the sum of its segments. Codecs are timed on the values
at each boundary, the edge itself on the whole net, asking on an echo. All that is timed together is
timed round by round (`presplit.runtime.rounds`); engines that would not fit into memory together
are timed in groups.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.costs import Costs, Device, Parts
from presplit.core.errors import MissingLibrary
from presplit.core.memory import give_back
from presplit.core.plans import Plan
from presplit.core.times import NOTHING, Times
from presplit.core.types import Floats, Runnable
from presplit.core.value import DAY_S
from presplit.runtime import machine
from presplit.runtime.doors import check_count, check_positive, check_threads
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.engines.onnxruntime import version
from presplit.runtime.hosted import Form
from presplit.runtime.rounds import Clock, Run, Timed, kept, timed

GROUP_BYTES = 2**28
"""Models whose engines are held at once; an engine takes a few times its model."""
CODEC_QUANTILES = 16
"""What is kept of a codec's time, of which there are many."""

Array = npt.NDArray[Any]
Part = tuple[str, str, int]
"""What is timed: head, tail, exit, edge, encode or decode; a form, or a codec; where.

Where is a boundary, or the number of an exit.
"""


@dataclass(frozen=True)
class Probe:
    """Something to time: its model if it has one, to be loaded, and what is then to be run."""

    part: Part
    runnable: Runnable | None
    values: Array
    run: Run | None = None


def measure(
    bundle: Bundle,
    *,
    seconds: float = 60.0,
    threads: int = 1,
    device: Device | str = "this machine",
    sample: Floats | None = None,
    load: Load = ENGINES[DEFAULT],
    root: Path = machine.ROOT,
    clock: Clock = time.perf_counter,
) -> Costs:
    """The costs of every part of ``bundle`` here, one sample at a time, in each form that it has.

    It ends when all medians are stable, or after about so many ``seconds``: `Costs.precision` says
    how well they are known. ``device`` names this machine in the result; a `Device` also gives the
    watts where the processor's own counters below ``root`` cannot be read. ``sample``, float32 of
    the net's input without a batch, is what is computed and encoded, noise if None: codecs that
    squeeze take longer for noise. ``load`` makes the engines, and ``clock`` tells the time. Raises
    `SpecError` if a number is out of its range, `InputError` for another sample.
    """
    check_positive("seconds", seconds)
    check_threads(threads)
    costs = time_parts(
        bundle, seconds=seconds, threads=threads, sample=sample, load=load, clock=clock
    )
    name, profile = (device, None) if isinstance(device, str) else (device.name, device.power_w)
    whole = bundle.runnable(0, bundle.net.last)
    engine = load(whole, threads)
    first = _input(bundle, sample)
    drawn = machine.watts(lambda: engine.run({whole.input: first}), root=root, clock=clock)
    energy = "profile" if profile is not None else "unknown"
    return msgspec.structs.replace(
        costs,
        device=name,
        power_w=(profile or 0.0) if drawn is None else drawn,
        energy=energy if drawn is None else "measured",
        ask_s=_asking(seconds),
        peak_bytes=machine.peak_bytes(bundle.path, threads=threads),
        processor=machine.processor(root),
        engine=f"{DEFAULT} {version()}",
        clock=machine.clock_state(root),
    )


def time_parts(
    bundle: Bundle,
    *,
    seconds: float = 60.0,
    threads: int = 1,
    sample: Floats | None = None,
    load: Load = ENGINES[DEFAULT],
    clock: Clock = time.perf_counter,
    group_bytes: float = GROUP_BYTES,
) -> Costs:
    """The times of `measure` alone, without what surrounds them: memory, energy, asking."""
    from presplit.runtime.edge import Edge

    values = boundary_values(bundle, threads, load, sample)
    probes = _probes(bundle, values)
    found: dict[Part, tuple[Timed, int]] = {}
    for group in _groups(probes, group_bytes):
        share = seconds * len(group) / len(probes)
        with Edge(bundle, Plan(bundle.net.last), threads=threads, load=load) as edge:
            runs = [_run(probe, edge, threads, load) for probe in group]
            both = timed(runs, limit_s=share, clock=clock)
        found |= {probe.part: (both, place) for place, probe in enumerate(group)}
        del runs
        give_back()
    return _costs(bundle, found, threads)


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


def forms_of(bundle: Bundle) -> tuple[str, ...]:
    """The forms in which ``bundle`` computes."""
    return tuple(getattr(bundle, "forms", ("float32",)))


def boundary_values(
    bundle: Bundle, threads: int, load: Load, sample: Floats | None = None
) -> list[Array]:
    """One sample's values at every boundary, ``(1, *shape)``, one segment after another."""
    values = [_input(bundle, sample)]
    for k in range(bundle.net.last):
        runnable = bundle.runnable(k, k + 1)
        assert runnable.boundary is not None, "it stops beyond its start"
        values.append(load(runnable, threads).run({runnable.input: values[k]})[runnable.boundary])
    return values


def stretch(bundle: Bundle, part: Part) -> tuple[Runnable, int]:
    """The model of a head, a tail or a head with an exit, and the boundary where it starts."""
    kind, form, number = part
    if kind == "head":
        return bundle.runnable(0, number, form=form), 0
    if kind == "tail":
        return bundle.runnable(number, bundle.net.last, form=form), number
    exit_ = bundle.net.exits[number]
    return bundle.runnable(0, exit_.after, exits=[exit_.name], form=form), 0


def _input(bundle: Bundle, sample: Floats | None) -> Array:
    """The sample as a batch of one, or one that is made up: engines take as long for any."""
    shape = bundle.net.boundaries[0].shape
    if sample is not None:
        Form("sample", "float32", shape).check(sample[np.newaxis])
        return sample[np.newaxis]
    random = np.random.default_rng(0)
    if bundle.manifest.whole_input:
        return random.integers(0, 2, (1, *shape)).astype(np.float32)
    return random.random((1, *shape), dtype=np.float32)


def _probes(bundle: Bundle, values: Sequence[Array]) -> list[Probe]:
    """All that is to be timed, what belongs together side by side."""
    net = bundle.net
    found: list[Probe] = []
    for form in forms_of(bundle):
        for k in range(1, net.last + 1):
            here: list[Part] = [("head", form, k)]
            # What an exit adds is told against the head without it, measured at the same time.
            for number, exit_ in enumerate(net.exits[:-1]):
                if exit_.after == k:
                    here.append(("exit", form, number))
            here.append(("tail", form, k - 1))
            for part in here:
                runnable, start = stretch(bundle, part)
                found.append(Probe(part, runnable, values[start]))
        if form == "float32":
            found.append(Probe(("edge", form, net.last), None, values[0]))
    for k, port in enumerate(bundle.manifest.ports[: net.last]):
        for codec in port.encodings:
            if codec != "float32":
                found += _codec_probes(bundle, codec, k, values[k])
    return found


def _codec_probes(bundle: Bundle, name: str, boundary: int, values: Array) -> Iterator[Probe]:
    """Encoding and decoding at one boundary, as the edge and the server do it.

    Nothing where these values are not carried, or the codec's library is not here.
    """
    codec, encoding = CODECS.find(name), bundle.encoding(boundary, name)
    shape = bundle.net.boundaries[boundary].shape
    try:
        codes = codec.encode(values, encoding)
    except MissingLibrary:
        return
    if codes is None:
        return
    yield Probe(("encode", name, boundary), None, values, lambda: codec.encode(values, encoding))
    decode = functools.partial(codec.decode, codes, encoding, shape)
    yield Probe(("decode", name, boundary), None, values, decode)


def _run(probe: Probe, edge: Any, threads: int, load: Load) -> Run:
    """What is run of a probe, its engine made."""
    if probe.run is not None:
        return probe.run
    if probe.runnable is None:
        return lambda: edge.answer(probe.values[0], deadline_s=DAY_S)
    return running(probe.runnable, probe.values, threads, load)


def running(runnable: Runnable, values: Array, threads: int, load: Load) -> Run:
    """An engine, made now, and its run on ``values``."""
    engine, inputs = load(runnable, threads), {runnable.input: values}
    return lambda: engine.run(inputs)


def _groups(probes: Sequence[Probe], most_bytes: float) -> list[list[Probe]]:
    """The probes in their order, cut where models held together would be too large.

    A group begins at a head, so that its exits are with it.
    """
    found: list[list[Probe]] = [[]]
    held = 0
    for probe in probes:
        size = 0 if probe.runnable is None else len(probe.runnable.onnx)
        if probe.part[0] == "head" and held + size > most_bytes and found[-1]:
            found.append([])
            held = 0
        found[-1].append(probe)
        held += size
    return found


def _costs(bundle: Bundle, found: Mapping[Part, tuple[Timed, int]], threads: int) -> Costs:
    """The times at the places where costs have them; each comes with its place in what is timed."""
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
        threads=threads,
        precision=_rounded(max(both.precision for both, _ in found.values())).mean_s,
    )


def _rounded(seconds: float) -> Times:
    return kept(np.array([seconds]))


def _asking(seconds: float) -> Times:
    """What asking takes on this machine, from a share of so many ``seconds``."""
    from presplit.runtime.asking import PAUSE_S, asking_s

    return kept(asking_s(rounds=min(100, max(10, round(seconds / 10 / PAUSE_S)))))
