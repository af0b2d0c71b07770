"""What is timed of a bundle: stretches with their exits, the whole edge, codecs.

Each probe says what it is of and what has to be run; `presplit.runtime.measuring.measure` runs them
and `presplit.runtime.measuring.anchor` some of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.errors import MissingLibrary
from presplit.core.types import Floats, Runnable
from presplit.core.value import DAY_S
from presplit.runtime.engines import Load
from presplit.runtime.hosted import Form
from presplit.runtime.measuring.rounds import Run

GROUP_BYTES = 2**28
"""Models whose engines are held at once; an engine takes a few times its model."""
CODING = ("encode", "decode")

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


def forms_of(bundle: Bundle) -> tuple[str, ...]:
    """The forms in which ``bundle`` computes."""
    return tuple(getattr(bundle, "forms", ("float32",)))


def boundary_values(
    bundle: Bundle, threads: int, load: Load, sample: Floats | None = None
) -> list[Array]:
    """One sample's values at every boundary, ``(1, *shape)``, one segment after another."""
    values = [first_values(bundle, sample)]
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


def first_values(bundle: Bundle, sample: Floats | None) -> Array:
    """The sample as a batch of one, or one that is made up: engines take as long for any."""
    shape = bundle.net.boundaries[0].shape
    if sample is not None:
        Form("sample", "float32", shape).check(sample[np.newaxis])
        return sample[np.newaxis]
    random = np.random.default_rng(0)
    if bundle.manifest.whole_input:
        return random.integers(0, 2, (1, *shape)).astype(np.float32)
    return random.random((1, *shape), dtype=np.float32)


def probes_of(bundle: Bundle, values: Sequence[Array]) -> list[Probe]:
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
    yield Probe(
        ("decode", name, boundary), None, values, lambda: codec.decode(codes, encoding, shape)
    )


def run_of(probe: Probe, edge: Any, threads: int, load: Load) -> Run:
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


def groups(probes: Sequence[Probe], most_bytes: float) -> list[list[Probe]]:
    """The probes in their order, cut where models held together would be too large.

    A group begins at a head, so that its exits are with it; codecs are a group of their own.
    """
    found: list[list[Probe]] = [[]]
    held = 0
    for probe in probes:
        size = 0 if probe.runnable is None else len(probe.runnable.onnx)
        full = probe.part[0] == "head" and held + size > most_bytes
        other = bool(found[-1]) and (probe.part[0] in CODING) != (found[-1][0].part[0] in CODING)
        if other or (full and found[-1]):
            found.append([])
            held = 0
        found[-1].append(probe)
        held += size
    return found
