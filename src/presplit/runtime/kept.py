"""Engines that are made when they are needed and kept within a bound in bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Generator

from presplit.core.memory import give_back
from presplit.core.types import Runnable
from presplit.runtime.engines import Engine

LEAST_KEEP_BYTES = 64 * 2**20
KEEP_MODELS = 4

Start = tuple[int, str]
"""The boundary at which a tail starts, and the form in which it computes."""


def enough(model_bytes: int) -> int:
    """How many bytes of models are kept where nobody says: four whole nets, at least 64 MiB.

    >>> enough(2**20) // 2**20, enough(2**30) // 2**30
    (64, 4)
    """
    return max(LEAST_KEEP_BYTES, KEEP_MODELS * model_bytes)


class _Place:
    """One engine's place: empty until somebody needs it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: tuple[Runnable, Engine] | None = None
        self.nbytes = 0
        self.users = 0
        self.used = 0


class Kept:
    """The engines of a bundle by where they start, at most ``keep_bytes`` of models at a time.

    Bytes are those of the model that an engine was made of; one of ONNX Runtime holds about twice
    as many. An engine that runs is never let go, so the bound is passed while more than that is
    running.
    """

    def __init__(
        self,
        runnable: Callable[[Start], Runnable],
        load: Callable[[Runnable], Engine],
        keep_bytes: float | None,
    ) -> None:
        self._runnable, self._load = runnable, load
        self._keep_bytes = (
            enough(len(runnable((0, "float32")).onnx)) if keep_bytes is None else keep_bytes
        )
        self._lock = threading.Lock()
        self._places: dict[Start, _Place] = {}
        self._clock = itertools.count(1)

    @property
    def nbytes(self) -> int:
        """Bytes of the models whose engines are kept."""
        with self._lock:
            return sum(place.nbytes for place in self._places.values())

    @property
    def splits(self) -> tuple[int, ...]:
        """The splits whose engines are kept, in rising order, once for each form."""
        with self._lock:
            return tuple(sorted(k for (k, _), place in self._places.items() if place.made))

    @contextlib.contextmanager
    def engine(self, start: Start) -> Generator[tuple[Runnable, Engine]]:
        """The engine of the tail from ``start``, kept while it is used.

        It is made now if it is not there: whoever comes first makes it, the others wait.
        """
        with self._lock:
            place = self._places.setdefault(start, _Place())
            place.users += 1
            place.used = next(self._clock)
        try:
            with place.lock:
                if place.made is None:
                    self._make(place, start)
                made = place.made
            assert made is not None, "made above"
            yield made
        finally:
            with self._lock:
                place.users -= 1
                gone = self._let_go()
            if gone:
                give_back()

    def _make(self, place: _Place, start: Start) -> None:
        """Fill ``place``; room is made before, so that the peak stays bounded too."""
        runnable = self._runnable(start)
        with self._lock:
            place.nbytes = len(runnable.onnx)
            self._let_go()
        try:
            engine = self._load(runnable)
        except BaseException:
            place.nbytes = 0
            raise
        # The bytes have served: the engine holds its own copy.
        place.made = (dataclasses.replace(runnable, onnx=b""), engine)
        del runnable
        give_back()

    def _let_go(self) -> bool:
        """Let engines go that nobody uses, the least lately used first, until the bound is met.

        True if one went.
        """
        excess = sum(place.nbytes for place in self._places.values()) - self._keep_bytes
        idle = [place for place in self._places.values() if not place.users and place.made]
        gone = False
        for place in sorted(idle, key=lambda place: place.used):
            if excess <= 0:
                break
            excess -= place.nbytes
            place.made, place.nbytes, gone = None, 0, True
        return gone
