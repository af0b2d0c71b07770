"""The tails that a server hosts.

There is one for each boundary and codec of a bundle, made when it is first asked for.

All computing happens on a bounded pool of threads, never on the server's loop. Admission is bounded
too: a request beyond the limit is shed at once, which keeps the ones that were admitted within
their deadlines (an unbounded queue serves nobody in time once it is behind).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from presplit import __version__
from presplit.bundle import Bundle
from presplit.runtime.engines.onnxruntime import Engine
from presplit.runtime.wire.server import Contract, Overloaded, TooLate, UnknownModel
from presplit.runtime.wire.tensors import Form, Sent, datatype_of, send

T = TypeVar("T")

MAX_BATCH = 64
"""Samples in one request, at most."""
MAX_REQUEST_BYTES = 64 * 2**20
"""Payload of one request, at most, unless a single sample is larger.

Big samples come in smaller batches.
"""
PLACES_PER_WORKER = 16
"""Requests admitted at once for each thread of the pool, waiting or computed."""


@dataclass
class Model:
    """One tail: from boundary ``split``, entered by ``codec``.

    Its engine is made once, when it is needed.
    """

    split: int
    codec: str
    contract: Contract
    engine: Engine | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Tail:
    """Every tail of ``bundle``, run on a pool of threads; what the wire's server hosts.

    ``threads`` is how many one engine uses; the pool has as many workers as fit the machine's
    processors.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self._bundle = bundle
        self._threads = threads
        self._models = {model.contract.name: model for model in _models(bundle)}
        workers = max(1, (os.cpu_count() or 1) // threads)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tail")
        self._places = threading.BoundedSemaphore(workers * PLACES_PER_WORKER)
        self.name = "presplit"
        self.version = __version__

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that any of the tails takes."""
        forms = [model.contract.input for model in self._models.values()]
        return max(form.nbytes * form.max_batch for form in forms)

    def contract(self, name: str) -> Contract:
        """What the tail ``name`` takes and gives; raises `UnknownModel`."""
        return self._model(name).contract

    async def warm(self, name: str) -> None:
        """Make the engine of ``name`` and run it once with zeros; raises `UnknownModel`."""
        model = self._model(name)
        await self._on_pool(lambda: self._engine(model))

    async def infer(self, name: str, tensor: Sent, *, until: float | None) -> Sent:
        """The logits for ``tensor``.

        After ``until`` (`time.monotonic`) they are worthless, and nothing is run for them any more.

        Raises `UnknownModel`, `InputError` for a tensor that breaks the contract, `Overloaded`,
        `TooLate`.
        """
        model = self._model(name)

        def run() -> Sent:
            if until is not None and time.monotonic() >= until:
                raise TooLate("the deadline passed before the request's turn came")
            values = model.contract.input.read(tensor)
            found = self._engine(model).run({"boundary": values})
            return send("logits", found["logits"])

        return await self._on_pool(run)

    def close(self) -> None:
        """Finish what is running and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _model(self, name: str) -> Model:
        """The tail called ``name``."""
        if name not in self._models:
            hosted = ", ".join(sorted(self._models)[:8])
            raise UnknownModel(f"no model {name[:128]!r} here; hosted: {hosted}")
        return self._models[name]

    def _engine(self, model: Model) -> Engine:
        """The engine of ``model``, made and warmed up by whoever comes first."""
        with model.lock:
            if model.engine is None:
                segment = self._bundle.segment(
                    model.split, self._bundle.net.last, codec=model.codec
                )
                engine = Engine(segment, threads=self._threads)
                encoding = self._bundle.encoding(model.split, model.codec)
                shape = self._bundle.net.boundaries[model.split].shape
                engine.run({"boundary": np.zeros((1, *shape), encoding.dtype)})
                model.engine = engine
        return model.engine

    async def _on_pool(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, run on the pool if there is a place.

        A place is held until the work is over.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded("the server is at its limit; answer locally and ask again later")
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)


def _models(bundle: Bundle) -> list[Model]:
    """A tail for every boundary but the last and every codec that it can be entered by."""
    net = bundle.net
    logits = Form("logits", "FP32", (net.exits[-1].classes,), MAX_BATCH)
    found: list[Model] = []
    for split, port in enumerate(bundle.manifest.ports[: net.last]):
        for codec in port.entry:
            encoding = bundle.encoding(split, codec)
            nbytes = encoding.nbytes(net.boundaries[split])
            batch = max(1, min(MAX_BATCH, MAX_REQUEST_BYTES // nbytes))
            form = Form("boundary", datatype_of(encoding.dtype), net.boundaries[split].shape, batch)
            name = bundle.manifest.model_name(split, codec)
            found.append(Model(split, codec, Contract(name, form, logits)))
    return found
