"""The door of what is hosted: it counts who is inside, can be closed, and tells what was served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np

from presplit.core.errors import InputError
from presplit.core.types import Why
from presplit.runtime.hosted import (
    Array,
    Early,
    Hosted,
    Layer,
    Overloaded,
    Reply,
    Stopping,
    UnknownModel,
    why_of,
)


class Served(NamedTuple):
    """What became of one request.

    ``why`` is "server" where the net's own classifier answered, else why an exit did or why nobody
    did; ``seconds`` is from its admission until then, ``batch`` its samples, ``up_bytes`` and
    ``down_bytes`` are those of the arrays, ``exit`` is "" for the net's own classifier.
    """

    model: str
    client: str
    why: Why
    seconds: float
    batch: int
    up_bytes: int
    down_bytes: int = 0
    exit: str = ""


Watcher = Callable[[Served], None]
Knock = Callable[[str, float | None], None]


def _come_in(_client: str, _until: float | None) -> None:
    """Let everybody in."""


class Door(Layer):
    """What is hosted, behind a door that tells ``watch`` of every request that it let in.

    ``watch`` is called where the request ends, on any thread, and must neither wait nor raise.
    What a request's own form forbids is refused before it comes here, and is not told.
    ``knock`` raises `Overloaded` for a client, and its deadline, whose next one has no chance.
    """

    def __init__(self, inner: Hosted, watch: Watcher, knock: Knock = _come_in) -> None:
        super().__init__(inner)
        self._watch, self._knock = watch, knock
        self._lock = threading.Lock()
        self._closed = False
        self.inside = 0
        """Requests that are inside now, waiting or computed."""

    def knock(self, client: str, until: float | None) -> None:
        """Raise `Overloaded` for a request that need not be read; its model is told as ""."""
        try:
            self._knock(client, until)
        except Overloaded:
            self._watch(Served("", client, "overloaded", 0.0, 0, 0))
            raise

    def shut(self) -> None:
        """Let nobody in any more: who comes from now on hears `Stopping`."""
        with self._lock:
            self._closed = True

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """As inside; raises `Stopping` once the door is shut."""
        with self._lock:
            if self._closed:
                raise Stopping("this server is ending; ask another one, or ask again later")
            self.inside += 1
        began = time.monotonic()
        try:
            future = self._inner.run(name, array, until=until, client=client)
        except BaseException as error:
            self._over(name, client, array, began, error)
            raise
        future.add_done_callback(partial(self._ended, name, client, array, began))
        return future

    def _ended(
        self, name: str, client: str, array: Array, began: float, future: Future[Reply]
    ) -> None:
        """The request of ``future`` has ended."""
        try:
            outcome = future.result()  # one look: each takes the future's lock
        except BaseException as error:
            outcome = error
        self._over(name, client, array, began, outcome)

    def _over(
        self, name: str, client: str, array: Array, began: float, outcome: Reply | BaseException
    ) -> None:
        """One request has ended so."""
        with self._lock:
            self.inside -= 1
        seconds, size = time.monotonic() - began, (len(array), array.nbytes)
        if isinstance(outcome, np.ndarray):
            told = Served(name, client, "server", seconds, *size, outcome.nbytes)
        elif isinstance(outcome, Early):
            bytes_ = outcome.logits.nbytes
            told = Served(name, client, outcome.why, seconds, *size, bytes_, outcome.exit)
        elif isinstance(outcome, InputError | UnknownModel):
            return  # whoever asked in vain is counted where requests come in
        else:
            told = Served(name, client, why_of(outcome), seconds, *size)
        self._watch(told)
