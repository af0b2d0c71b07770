"""Engines that are made when they are needed and kept within a bound in bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from presplit.core.memory import give_back
from presplit.core.types import Runnable
from presplit.runtime.engines import Engine

Key = TypeVar("Key", bound=tuple[object, ...])

LEAST_KEEP_BYTES = 64 * 2**20
KEEP_MODELS = 4


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


class Kept(Generic[Key]):
    """The engines of a bundle by what they compute, at most ``keep_bytes`` of models at a time.

    Bytes are those of the model that an engine was made of; one of ONNX Runtime holds about twice
    as many. An engine that runs is never let go, so the bound is passed while more than that is
    running.
    """

    def __init__(
        self,
        runnable: Callable[[Key], Runnable],
        load: Callable[[Runnable], Engine],
        keep_bytes: float,
    ) -> None:
        self._runnable, self._load = runnable, load
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._places: dict[Key, _Place] = {}
        self._clock = itertools.count(1)

    @property
    def nbytes(self) -> int:
        """Bytes of the models whose engines are kept."""
        with self._lock:
            return sum(place.nbytes for place in self._places.values())

    @property
    def keys(self) -> tuple[Key, ...]:
        """What the engines that are kept compute, in rising order."""
        with self._lock:
            return tuple(sorted(key for key, place in self._places.items() if place.made))

    @contextlib.contextmanager
    def engine(self, key: Key) -> Generator[tuple[Runnable, Engine]]:
        """The engine that computes ``key``, kept while it is used.

        It is made now if it is not there: whoever comes first makes it, the others wait.
        """
        with self._lock:
            place = self._places.setdefault(key, _Place())
            place.users += 1
            place.used = next(self._clock)
        try:
            with place.lock:
                if place.made is None:
                    self._make(place, key)
                made = place.made
            assert made is not None, "made above"
            yield made
        finally:
            with self._lock:
                place.users -= 1
                gone = self._let_go()
            if gone:
                give_back()

    def _make(self, place: _Place, key: Key) -> None:
        """Fill ``place``; room is made before, so that the peak stays bounded too."""
        runnable = self._runnable(key)
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
