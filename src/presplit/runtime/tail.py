"""The tails of a bundle: from every boundary to the logits, entered by every codec it has.

Decoding happens in front of the engine, so there is one engine for a split and a form whatever the
codec. The engines that are kept are bounded in bytes: the one that was used least lately goes, and
comes back when it is asked for again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.encoding import Encoding, Native, most_bytes
from presplit.core.errors import MissingLibrary
from presplit.core.protocols import Codec
from presplit.core.types import Boundary, Floats, Runnable
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.hosted import (
    Array,
    Contract,
    Form,
    Hosted,
    Reply,
    TooLate,
    UnknownModel,
)
from presplit.runtime.kept import Kept, Start

T = TypeVar("T")

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


class Tails:
    """Every tail of ``bundle``, computed by whoever calls: `pooled` makes it `Hosted`.

    ``threads`` is how many one engine uses; at most ``keep_bytes`` of models are kept as engines
    (`presplit.runtime.kept.enough`, if None), and always the one that runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        keep_bytes: float | None = None,
        load: Load = ENGINES[DEFAULT],
    ) -> None:
        self._bundle = bundle
        self._tails = {tail.contract.name: tail for tail in _tails(bundle)}
        self.kept = Kept(self._runnable, lambda model: load(model, threads), keep_bytes)

    @property
    def most_bytes(self) -> int:
        """The largest request that any tail takes, in bytes of its array."""
        forms = [tail.contract.input for tail in self._tails.values()]
        return max(form.nbytes * form.max_batch for form in forms)

    def contract(self, name: str) -> Contract:
        """What the tail ``name`` takes and gives; raises `UnknownModel`."""
        return self.find(name).contract

    def warm(self, name: str) -> None:
        """Make the engine of ``name`` and run it once with zeros; raises `UnknownModel`."""
        tail = self.find(name)
        zeros = np.zeros((1, *tail.shape), np.float32)
        try:
            codes = tail.codec.encode(zeros, tail.encoding)
        except MissingLibrary as error:
            raise UnknownModel(f"{name} cannot be decoded here: {error}") from error
        assert codes is not None, "every codec carries zeros"
        self._logits(tail, codes)

    def run(self, name: str, array: Array, *, until: float | None) -> Floats:
        """The logits for ``array``; raises as `presplit.runtime.hosted.Hosted` says."""
        tail = self.find(name)
        if until is not None and time.monotonic() >= until:
            raise TooLate("the deadline passed before the request's turn came")
        tail.contract.input.check(array)
        return self._logits(tail, array)

    def find(self, name: str) -> Tail:
        """The tail called ``name``; raises `UnknownModel`."""
        if name not in self._tails:
            hosted = ", ".join(sorted(self._tails)[:8])
            raise UnknownModel(f"no model {name[:128]!r} here; hosted: {hosted}")
        return self._tails[name]

    def _logits(self, tail: Tail, codes: Array) -> Floats:
        """What the net says of ``codes``."""
        values = tail.decode(codes)
        with self.kept.engine((tail.split, tail.form)) as (runnable, engine):
            found = engine.run({runnable.input: values})
        return found[runnable.logits[self._bundle.net.exits[-1].name]]

    def _runnable(self, start: Start) -> Runnable:
        """The model from a boundary to the logits, in a form."""
        split, form = start
        return self._bundle.runnable(split, self._bundle.net.last, form=form)


class _Pooled:
    """Tails on a bounded pool of threads; see `pooled`."""

    def __init__(self, tails: Tails, workers: int) -> None:
        self._tails = tails
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tail")

    @property
    def most_bytes(self) -> int:
        return self._tails.most_bytes

    def contract(self, name: str) -> Contract:
        return self._tails.contract(name)

    def warm(self, name: str) -> Future[None]:
        self._tails.contract(name)
        return self._do(lambda: self._tails.warm(name))

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        return self._do(lambda: self._tails.run(name, array, until=until))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(work)


def pooled(tails: Tails, workers: int) -> Hosted:
    """``tails`` computed by so many threads, in the order in which they are asked."""
    return _Pooled(tails, workers)


def workers_for(threads: int) -> int:
    """How many engines of so many ``threads`` fit on this machine's processors at once."""
    return max(1, (os.cpu_count() or 1) // threads)


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
