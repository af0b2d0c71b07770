"""The tails of a bundle: from every boundary to the logits, entered by every codec it has.

Decoding happens in front of the engine, so there is one engine for a split and a form whatever the
codec. The engines that are kept are bounded in bytes: the one that was used least lately goes, and
comes back when it is asked for again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.encoding import Encoding, Native, most_bytes
from presplit.core.errors import MissingLibrary
from presplit.core.plans import Plan
from presplit.core.protocols import Codec
from presplit.core.routing import sure
from presplit.core.types import Boundary, Floats, Runnable
from presplit.policies import EXITS
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import cuts
from presplit.runtime.hosted import Array, Contract, Form, TooLate, UnknownModel
from presplit.runtime.serving.kept import Kept, enough

MAX_BATCH = 64
"""Samples in one request, at most."""
MAX_REQUEST_BYTES = 64 * 2**20
"""Payload of one request, at most, unless a single sample is larger.

Big samples come in smaller batches.
"""


@dataclass(frozen=True)
class Tail:
    """One way into the net: at boundary ``split``, by ``codec``, computed in ``form``."""

    split: int
    form: str
    codec: Codec
    encoding: Encoding
    shape: tuple[int, ...]
    contract: Contract

    def decode(self, codes: Array) -> Floats:
        """The boundary's values; raises `InputError`, and `UnknownModel` without the library."""
        try:
            return self.codec.decode(codes, self.encoding, self.shape)
        except MissingLibrary as error:
            raise UnknownModel(f"{self.contract.name} cannot be decoded here: {error}") from error

    def values(self, codes: Array) -> Floats:
        """The same, once ``codes`` are known to be of the contract's form and finite."""
        self.contract.input.check(codes)
        return self.decode(codes)


class Step(NamedTuple):
    """What one engine computes: the segments from boundary ``start`` to ``stop``, and ``exit``."""

    start: int
    stop: int
    exit: str
    form: str


Computed = tuple[Floats | None, Floats]
"""The values at the end of a step, None at the net's own end, and the logits of its exit."""


class Tails:
    """Every tail of ``bundle``, computed by whoever calls.

    It becomes `Hosted` by `presplit.runtime.serving.batching`.

    ``threads`` is how many one engine uses; at most ``keep_bytes`` of models are kept as engines
    (`presplit.runtime.serving.kept.enough`, if None), and always the one that runs. An exit that
    ``thresholds`` names answers where its score reaches the threshold, unless it lies before the
    split; the scores are those of ``policy``.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        keep_bytes: float | None = None,
        load: Load = ENGINES[DEFAULT],
        thresholds: Mapping[str, float] | None = None,
        policy: str = "confidence",
    ) -> None:
        self._bundle, self.threads = bundle, threads
        self._thresholds, self._score = dict(thresholds or {}), EXITS.find(policy)
        self._tails = {tail.contract.name: tail for tail in _tails(bundle)}
        self._steps: dict[tuple[int, str], tuple[Step, ...]] = {}
        if keep_bytes is None:
            keep_bytes = enough(len(bundle.runnable(0, bundle.net.last).onnx))
        self.kept: Kept[Step] = Kept(self._runnable, lambda model: load(model, threads), keep_bytes)

    @property
    def most_bytes(self) -> int:
        """The largest request that any tail takes, in bytes of its array."""
        forms = [tail.contract.input for tail in self._tails.values()]
        return max(form.nbytes * form.max_batch for form in forms)

    def contract(self, name: str) -> Contract:
        """What the tail ``name`` takes and gives; raises `UnknownModel`."""
        return self.find(name).contract

    def warm(self, name: str) -> None:
        """Make the engines of ``name`` and run each with zeros; raises `UnknownModel`."""
        tail = self.find(name)
        zeros = np.zeros((1, *tail.shape), np.float32)
        try:
            codes = tail.codec.encode(zeros, tail.encoding)
        except MissingLibrary as error:
            raise UnknownModel(f"{name} cannot be decoded here: {error}") from error
        assert codes is not None, "every codec carries zeros"
        values: Floats | None = tail.decode(codes)
        for step in self.steps(tail):
            assert values is not None, "only the last step gives no values"
            values = self.compute(step, values)[0]

    def run(self, name: str, array: Array, *, until: float | None) -> Floats:
        """The net's own logits for ``array``; raises as `presplit.runtime.hosted.Hosted` says."""
        tail = self.find(name)
        if until is not None and time.monotonic() >= until:
            raise TooLate("the deadline passed before the request's turn came")
        values = tail.values(array)
        net = self._bundle.net
        whole = Step(tail.split, net.last, net.exits[-1].name, tail.form)
        return self.compute(whole, values)[1]

    def find(self, name: str) -> Tail:
        """The tail called ``name``; raises `UnknownModel`."""
        if name not in self._tails:
            hosted = ", ".join(sorted(self._tails)[:8])
            raise UnknownModel(f"no model {name[:128]!r} here; hosted: {hosted}")
        return self._tails[name]

    def steps(self, tail: Tail) -> tuple[Step, ...]:
        """What is computed for ``tail``, in order: each ends at an exit that may answer."""
        entry = (tail.split, tail.form)
        if entry not in self._steps:
            net = self._bundle.net
            behind = {exit_.name for exit_ in net.exits if exit_.after > tail.split}
            rules = {name: score for name, score in self._thresholds.items() if name in behind}
            found: list[Step] = []
            for start, stop, exit_ in cuts(net, Plan(net.last, rules), tail.split):
                assert exit_ is not None, "every stretch of a whole net ends at an exit"
                found.append(Step(start, stop, exit_.name, tail.form))
            self._steps[entry] = tuple(found)
        return self._steps[entry]

    @contextlib.contextmanager
    def engine(self, step: Step) -> Generator[Callable[[Floats], Computed]]:
        """What computes ``step``: from values to those at its end, and its exit's logits."""
        with self.kept.engine(step) as (runnable, engine):

            def compute(values: Floats) -> Computed:
                found = engine.run({runnable.input: values})
                boundary = None if runnable.boundary is None else found[runnable.boundary]
                return boundary, found[runnable.logits[step.exit]]

            yield compute

    def compute(self, step: Step, values: Floats) -> Computed:
        """The values at the end of ``step``, and its exit's logits."""
        with self.engine(step) as compute:
            return compute(values)

    def is_sure(self, step: Step, logits: Floats) -> bool:
        """Whether the exit of ``step`` answers all these samples; scores of NaN are never sure."""
        return bool(sure(self._score(logits), self._thresholds[step.exit]).all())

    def _runnable(self, step: Step) -> Runnable:
        """The model of ``step``."""
        net = self._bundle.net
        early = [] if step.exit == net.exits[-1].name else [step.exit]
        return self._bundle.runnable(step.start, step.stop, exits=early, form=step.form)


def workers_for(threads: int) -> int:
    """How many engines of so many ``threads`` fit on this process's processors at once."""
    ours = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return max(1, (ours or 1) // threads)


def _tails(bundle: Bundle) -> list[Tail]:
    """A tail for every boundary but the last, every codec that enters it, and every form."""
    net = bundle.net
    logits = Form("logits", "float32", (net.exits[-1].classes,), MAX_BATCH)
    found: list[Tail] = []
    for split, port in enumerate(bundle.manifest.ports[: net.last]):
        boundary = net.boundaries[split]
        for codec, encoding in port.encodings.items():
            taken = _form(encoding, boundary)
            for form in bundle.forms:
                name = bundle.manifest.model_name(split, codec, form)
                contract = Contract(name, taken, logits)
                tail = Tail(split, form, CODECS.find(codec), encoding, boundary.shape, contract)
                found.append(tail)
    return found


def _form(encoding: Encoding, boundary: Boundary) -> Form:
    """What a request must be whose input is encoded so."""
    if isinstance(encoding, Native):
        # Payloads differ in length, so several are no array: a request has one.
        return Form("boundary", encoding.dtype, (most_bytes(boundary),), varies=True)
    nbytes = encoding.nbytes(boundary)
    batch = max(1, min(MAX_BATCH, MAX_REQUEST_BYTES // nbytes))
    return Form("boundary", encoding.dtype, encoding.shape(boundary), batch)
