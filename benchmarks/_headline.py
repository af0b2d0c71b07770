"""What the headline measures with: the two bundles, every way to answer, its time and accuracy."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks import accuracy
from presplit.bundle import Bundle, read
from presplit.codecs import CODECS
from presplit.core.cost import WIRE_BYTES
from presplit.core.costs import Costs, Device
from presplit.core.encoding import Native
from presplit.core.errors import PresplitError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.core.routing import sure
from presplit.core.types import Floats, Runnable
from presplit.lab.demo import agreement
from presplit.lab.processes import Process, running
from presplit.plan.evaluate import evaluate
from presplit.plan.scenario import PLAIN, Scenario
from presplit.policies import EXITS
from presplit.profiles import LINKS
from presplit.runtime import Edge
from presplit.runtime.engines import DEFAULT, ENGINES, Arrays, Engine, Load, Stop
from presplit.runtime.head import Head
from presplit.runtime.sending import Sending
from presplit.runtime.upstream import Failure
from presplit.runtime.wire.client import Client
from presplit.train import export
from presplit.train.data import Samples, hold_out

JPEGS = ("jpeg-50", "jpeg-75", "jpeg-90")
"""The qualities that are tried, from the fewest bytes on."""
LOST = 0.003
"""What may be lost of the dense net's accuracy: three tenths of a point."""
FORMS = ("float32", "int8")
CODECS_TRIED = ("int8", "int8+zstd", "png", *JPEGS)
"""By which boundaries of ours may travel, besides float32."""
PATIENCE_S = 600.0
LEAST = {0.0: 30, 2.0: 10, 10.0: 3}
"""Answers of every combination at least, by the seconds from which on one takes."""
GOLDEN = (5**0.5 - 1) / 2

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pair:
    """A dense net and ours as bundles, the held-out and the test samples, and what both cost here.

    ``jpeg`` is the codec by which images go to the dense net's server; ``held``: the accuracy of
    both on all held-out samples.
    """

    dense: Bundle
    ours: Bundle
    test: Samples
    dense_costs: Costs
    ours_costs: Costs
    jpeg: str
    held: tuple[float, float]

    @property
    def macs_per_s(self) -> float:
        """This machine's speed on the dense net, one sample after a pause."""
        macs = sum(segment.macs for segment in self.dense.manifest.segments)
        return macs / self.dense_costs.forms[PLAIN].head_s[-1].quantile(0.5)


@dataclass(frozen=True)
class Taken:
    """What one way took: seconds and bytes of each answer, its label and the place of its image."""

    seconds: Sequence[float]
    up_bytes: Sequence[int]
    labels: Sequence[int]
    places: Sequence[int]
    busy_s: float
    """What the edge's engines computed for an answer, on average."""

    def cells(self) -> dict[str, float]:
        """The times and bytes as a row shows them."""
        took = np.array(self.seconds)
        return {
            "p50_s": float(np.quantile(took, 0.5, method="inverted_cdf")),
            "mean_s": float(took.mean()),
            "p99_s": float(np.quantile(took, 0.99, method="inverted_cdf")),
            "up_bytes": statistics.mean(self.up_bytes),
        }

    def joules(self, plan: Plan, costs: Costs, device: Device, link: Link | None) -> float:
        """The device's energy for an answer: computing, encoding and sending it."""
        asked = sum(sent > 0 for sent in self.up_bytes) / len(self.up_bytes)
        computing_s = self.busy_s + asked * costs.encoding_s(plan.codec, plan.split).mean_s
        sending_s = 0.0
        if link is not None:
            sending_s = link.up_s(statistics.mean(self.up_bytes) + asked * WIRE_BYTES)
        return computing_s * device.power_w + sending_s * (link.power_w if link else 0.0)


class Metered:
    """Makes engines whose computing is added up."""

    def __init__(self, load: Load) -> None:
        self._load, self._lock = load, threading.Lock()
        self.seconds = 0.0

    def __call__(self, runnable: Runnable, threads: int) -> Engine:
        """The engine of ``runnable``, whose time counts."""
        return _MeteredEngine(self._load(runnable, threads), self)

    def add(self, seconds: float) -> None:
        """So much was computed."""
        with self._lock:
            self.seconds += seconds


class _MeteredEngine:
    """See `Metered`."""

    def __init__(self, inner: Engine, meter: Metered) -> None:
        self._inner, self._meter = inner, meter

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        """As inside; a run that is stopped counts for as long as it ran."""
        began = time.perf_counter()
        try:
            return self._inner.run(inputs, stop=stop)
        finally:
            self._meter.add(time.perf_counter() - began)


def made(
    dense: str, ours: str, *, seed: int, keep: Path, held_out: int | None, seconds: float
) -> Pair:
    """Both nets as bundles in the folder ``keep``, where they are found again, and measured.

    With ``held_out`` fewer of the held-out samples are used. Raises `PresplitError` if a bundle
    does not compute what torch does.
    """
    data = accuracy._data(accuracy.NETS[dense].data)
    _, held = hold_out(data.train, 0.1, seed=seed)
    held = held.take(spread(len(held), held_out or len(held)))
    first = _bundle(dense, seed, keep, held, ("png", *JPEGS), data.test)
    second = _bundle(ours, seed, keep, held, CODECS_TRIED, data.test)
    costs = [measured(bundle, held.x[0], seconds) for bundle in (first, second)]
    right = [float(bundle.evidence()[1][-1].mean()) for bundle in (first, second)]
    return Pair(first, second, data.test, *costs, _jpeg(first, held), (right[0], right[1]))


def measured(bundle: Bundle, sample: Floats, seconds: float) -> Costs:
    """What it costs here, within about so many seconds."""
    from presplit.runtime import measure

    return measure(bundle, seconds=seconds, sample=sample)


def spread(size: int, count: int) -> Labels:
    """``count`` of ``size`` places, evenly spread, in rising order."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(np.int64))


def _bundle(
    name: str, seed: int, keep: Path, held: Samples, codecs: Sequence[str], test: Samples
) -> Bundle:
    """The bundle of a row's net, exported if it is not in ``keep`` yet, compared with torch."""
    model = accuracy._trained(name, seed)
    kept = accuracy._kept(name, seed, accuracy._recipe(name, seed))
    which = zlib.crc32(repr((len(held), *codecs)).encode())
    path = keep / f"{kept.stem if kept else name}-{which:08x}.bundle"
    if path.exists():
        bundle = read(path)
    else:
        bundle = export(model, held, path, name="net", forms=FORMS, codecs=codecs)
    if not set(FORMS) <= set(bundle.forms):
        raise PresplitError(f"{name}: its int8 form was refused: {bundle.manifest.refused_forms}")
    agreement(bundle, model, test.x)
    return bundle


def _jpeg(dense: Bundle, held: Samples) -> str:
    """The lowest quality that keeps the dense net's held-out accuracy; else the best there is."""
    some = held.take(spread(len(held), 2500))
    right: dict[str, float] = {}
    own = float((labels_of(dense, Plan(dense.net.last), some.x) == some.y).mean())
    for name in JPEGS:
        if name not in dense.manifest.ports[0].encodings:
            continue
        found = labels_of(dense, Plan(0, codec=name), some.x)
        right[name] = float((found == some.y).mean())
        if right[name] >= own - LOST:
            return name
    return max(right, key=right.__getitem__) if right else "png"


def labels_of(bundle: Bundle, plan: Plan, x: Floats, *, batch: int = 64) -> Labels:
    """What ``plan`` answers to ``x``, with its very codec, exits and forms, many at a time."""
    threads = os.cpu_count() or 1
    way = Head(bundle, [plan], threads=threads).way(plan)
    tail = None
    if plan.split < bundle.net.last:
        tail = _Tail(bundle, plan, threads)
    score, final = EXITS.find(plan.policy), bundle.net.exits[-1].name
    found = np.full(len(x), -1, np.int64)
    for start in range(0, len(x), batch):
        values, waiting = x[start : start + batch], np.arange(start, min(start + batch, len(x)))
        for stretch in way:
            if not len(waiting):
                break
            values, held = stretch.run(values)
            if held is None or held.exit not in (*plan.thresholds, final):
                continue
            leaves = np.ones(len(waiting), bool)
            if held.exit != final:
                leaves = sure(score(held.logits), plan.thresholds[held.exit])
            found[waiting[leaves]] = held.logits[leaves].argmax(-1)
            waiting, values = waiting[~leaves], values[~leaves]
        if tail is not None and len(waiting):
            found[waiting] = tail.labels(values)
    return found


class _Tail:
    """The server's part of a plan, as values come by its codec."""

    def __init__(self, bundle: Bundle, plan: Plan, threads: int) -> None:
        self._codec, self._encoding = (
            CODECS.find(plan.codec),
            bundle.encoding(plan.split, plan.codec),
        )
        self._shape = bundle.net.boundaries[plan.split].shape
        tail = bundle.runnable(plan.split, bundle.net.last, form=plan.server_form)
        self._input, (self._logits,) = tail.input, tail.logits.values()
        self._engine = ENGINES[DEFAULT](tail, threads)

    def labels(self, values: Floats) -> Labels:
        """What it answers to the values at the boundary."""
        size = 1 if isinstance(self._encoding, Native) else len(values)
        parts = [self._carried(values[n : n + size]) for n in range(0, len(values), size)]
        return self._engine.run({self._input: np.concatenate(parts)})[self._logits].argmax(-1)

    def _carried(self, values: Floats) -> Floats:
        codes = self._codec.encode(values, self._encoding)
        return values if codes is None else self._codec.decode(codes, self._encoding, self._shape)


QUICK = LINKS.find("ethernet")


class Line:
    """A server of one bundle, and the shaped link before it, each a process."""

    def __init__(self, address: str, shaper: Process) -> None:
        self.address, self._shaper = address, shaper
        self.link: Link = QUICK

    @contextlib.contextmanager
    def connecting(self) -> Generator[None]:
        """While it lasts the link is a quick one: gRPC gives one attempt to connect two seconds."""
        self._order(QUICK)
        yield
        self._order(self.link)

    def be(self, link: Link) -> None:
        """Have the link be as ``link`` from now on."""
        self.link = link
        self._order(link)

    def _order(self, link: Link) -> None:
        assert self._shaper.stdin is not None, "it was started with a pipe"
        names = ("up_bps", "down_bps", "rtt_s", "jitter_s")
        self._shaper.stdin.write(json.dumps({name: getattr(link, name) for name in names}) + "\n")
        self._shaper.stdin.flush()
        time.sleep(0.1)  # nothing says that an order was obeyed


@contextlib.contextmanager
def line(bundle: Bundle) -> Generator[Line]:
    """The processes, until the end."""
    words = [str(bundle.path), "--port", "0", "--json"]
    with (
        running("presplit", "serve", *words) as (server, _),
        running("presplit.lab.shaper", "--target", server) as (address, shaper),
    ):
        yield Line(address, shaper)


Asking = Callable[[Floats], tuple[int, float, int]]
"""Gives the label of an image, the seconds and the bytes that it took."""


@contextlib.contextmanager
def bare(bundle: Bundle, plan: Plan, address: str | None, load: Metered) -> Generator[Asking]:
    """Answers as one would write it by hand: a head, a request, nothing held meanwhile."""
    with contextlib.ExitStack() as opened:
        client = None
        if address is not None:
            client = Client(address, patience_s=PATIENCE_S)
            opened.callback(client.close)
        yield _Bare(bundle, plan, client, load)


class _Bare:
    """See `bare`."""

    def __init__(self, bundle: Bundle, plan: Plan, client: Client | None, load: Load) -> None:
        self._head, self._sending = None, None
        if plan.split:
            self._runnable = bundle.runnable(0, plan.split, form=plan.form)
            self._head = load(self._runnable, 1)
        if plan.split < bundle.net.last:
            self._sending = Sending(bundle, plan, client)

    def __call__(self, image: Floats) -> tuple[int, float, int]:
        """One answer."""
        began, values, sent = time.perf_counter(), image[np.newaxis], 0
        if self._head is not None:
            found = self._head.run({self._runnable.input: values})
            (values,) = found.values()
        if self._sending is not None:
            until = time.monotonic() + PATIENCE_S
            asked, sent = self._sending.ask(values, until)
            reply = asked if isinstance(asked, Failure) else asked.wait(until)
            if isinstance(reply, Failure):
                raise PresplitError(f"the server gave no answer: {reply.detail}")
            values = reply
        return int(values[0].argmax()), time.perf_counter() - began, sent


@contextlib.contextmanager
def planned(bundle: Bundle, plan: Plan, address: str | None, load: Metered) -> Generator[Asking]:
    """Answers of the real edge under ``plan``."""
    patient = msgspec.structs.replace(plan, deadline_s=PATIENCE_S)
    with Edge.open(bundle, server=address, plan=patient, load=load) as edge:

        def answer(image: Floats) -> tuple[int, float, int]:
            found = edge.answer(image)
            if found.degraded:
                raise PresplitError(f"the edge could not do as planned: {found.why}")
            return found.label, found.elapsed_s, found.up_bytes

        yield answer


Open = Callable[[Bundle, Plan, str | None, Metered], contextlib.AbstractContextManager[Asking]]


def taken(
    how: Open,
    bundle: Bundle,
    plan: Plan,
    images: Floats,
    *,
    load: Load = ENGINES[DEFAULT],
    line: Line | None = None,
    limit_s: float,
    most: int,
) -> Taken:
    """What a way takes: as many answers as the time allows, of images spread evenly."""
    meter = Metered(load)
    with contextlib.ExitStack() as opened:
        if line is None:
            answer = opened.enter_context(how(bundle, plan, None, meter))
        else:
            with line.connecting():
                answer = opened.enter_context(how(bundle, plan, line.address, meter))
                answer(images[0])
        first_s = answer(images[0])[1]
        for _ in range(0 if first_s > 1.0 else 5):
            answer(images[0])
        least = min(count for from_s, count in LEAST.items() if first_s >= from_s)
        meter.seconds, began = 0.0, time.perf_counter()
        seconds, up_bytes, labels, places = [], [], [], []
        while len(seconds) < most:
            if len(seconds) >= least and time.perf_counter() - began > limit_s:
                break
            place = int(len(images) * ((len(seconds) * GOLDEN) % 1))
            label, took_s, sent = answer(images[place])
            seconds.append(took_s)
            up_bytes.append(sent)
            labels.append(label)
            places.append(place)
    return Taken(seconds, up_bytes, labels, places, meter.seconds / len(seconds))


def slower(costs: Costs, factor: float, device: Device) -> Costs:
    """``costs`` where engines take ``factor`` times as long, with the device's watts."""
    forms = {form: parts.scaled(factor) for form, parts in costs.forms.items()}
    return msgspec.structs.replace(costs, device=device.name, forms=forms, power_w=device.power_w)


def best_split(found: Scenario) -> Plan:
    """The split with the least mean time, in float32, no exit answering (Neurosurgeon)."""
    silent = [np.array([], np.float32)] * len(found.early)
    blocks = [
        block
        for block in evaluate(found, silent)
        if {block.codec, block.head.form, block.server_form} == {PLAIN}
    ]
    best = min(blocks, key=lambda block: float(block.mean_s[0]))
    return best.plans(np.array([0]))[0]


def key_of(plan: Plan) -> tuple[object, ...]:
    """What makes two plans answer alike."""
    thresholds: Mapping[str, Any] = plan.thresholds
    return (
        plan.split,
        plan.codec,
        plan.form,
        plan.server_form,
        plan.policy,
        *sorted(thresholds.items()),
    )


def words(plan: Plan, bundle: Bundle) -> str:
    """A plan in a few words."""
    last = bundle.net.last
    said = ["all on the edge" if plan.split == last else f"split {plan.split} of {last}"]
    if plan.split:
        said.append(plan.form)
    if plan.split < last:
        said.append(f"sent as {plan.codec} to {plan.server_form}")
    return ", ".join([*said, *(f"{name} >= {each:.3f}" for name, each in plan.thresholds.items())])
