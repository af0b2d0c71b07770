"""Deadlines of runs: each run that is not over at its moment is stopped by a thread beside it.

One thread serves all runs of an edge. It wakes up when the earliest moment comes, not for each run:
where runs are over in time, a deadline costs microseconds.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Generator

from presplit.runtime.engines import Stop


class Deadlines:
    """Stops runs at their deadlines; safe to use from several threads.

    >>> deadlines = Deadlines()
    >>> with deadlines.stop_at(time.monotonic()) as stop:
    ...     time.sleep(0.1)
    >>> stop.asked
    True
    >>> deadlines.close()
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[Stop, float] = {}
        self._wakes_at = math.inf
        self._watched = self._closed = False

    @contextlib.contextmanager
    def stop_at(self, moment: float) -> Generator[Stop]:
        """A `Stop` for one run, asked for at ``moment`` (`time.monotonic`) if that still lasts."""
        stop = Stop()
        with self._changed:
            self._running[stop] = moment
            self._see_to(moment)
        try:
            yield stop
        finally:
            with self._changed:
                self._running.pop(stop, None)

    def close(self) -> None:
        """Let the thread end when no run needs it any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _see_to(self, moment: float) -> None:
        """Have the thread wake up by ``moment``; the lock is held."""
        if not self._watched:
            thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: nothing stops the run
                thread.start()
                self._watched = True
        elif moment < self._wakes_at:
            self._wakes_at = moment
            self._changed.notify()

    def _watch(self) -> None:
        """Stop what is due, then sleep until the next is."""
        with self._changed:
            while self._running or not self._closed:
                self._wakes_at = min(self._running.values(), default=math.inf)
                left_s = self._wakes_at - time.monotonic()
                if left_s > 0:
                    self._changed.wait(None if left_s == math.inf else left_s)
                else:
                    self._stop_due()
            self._watched = False

    def _stop_due(self) -> None:
        """Stop every run whose moment has come; the lock is held."""
        for stop, moment in list(self._running.items()):
            if moment <= self._wakes_at:
                del self._running[stop]
                stop.ask()
