"""What an engine is: it runs the model of a `Runnable`, and each of its runs can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from presplit.core.types import Runnable

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by the names of tensors."""


class Stopped(Exception):
    """A run ended because its `Stop` was asked for: what it would have given is lost."""


class Stop:
    """Ends one run from another thread.

    It may be asked for before the run begins, while it lasts, or after it; other runs of the same
    engine go on.

    >>> stop, ended = Stop(), []
    >>> stop.ends(lambda: ended.append("now"))
    >>> stop.ask()
    >>> stop.asked, ended
    (True, ['now'])
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self.asked = False

    def ask(self) -> None:
        """End the run; once is enough."""
        with self._lock:
            self.asked = True
            if self._end is not None:
                self._end()

    def ends(self, end: Callable[[], None]) -> None:
        """For engines: call ``end`` when the run is to end, at once if that was asked already."""
        with self._lock:
            self._end = end
            if self.asked:
                end()


class Engine(Protocol):
    """One model, ready to run from several threads at once."""

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> Arrays:
        """The outputs by name.

        Raises `InputError` if the model does not take ``inputs``, `Stopped` if ``stop`` ended the
        run, and `EngineError` for whatever the engine itself could not do.
        """
        ...


Load = Callable[[Runnable, int], Engine]
"""Makes the engine of a model that uses so many threads.

Raises `BundleError` if the model is not one that it takes, `EngineError` if it cannot run it here,
`MissingLibrary` if the engine's library is not installed.
"""
