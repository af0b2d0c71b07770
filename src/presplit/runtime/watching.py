"""Watchers: what is told every answer, and can neither delay nor break one."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Generic, TypeVar, cast

from presplit.core.types import Answer

T = TypeVar("T")

Watcher = Callable[[Answer], None]

ROOM = 1024
"""Answers that wait for a slow watcher, at most; one more is not shown to it."""
CLOSING_S = 0.5
"""How long closing waits for a watcher that is behind."""


class Watching(Generic[T]):
    """Tells ``watch`` every answer, in the order in which they were given, on a thread of its own.

    They are an edge's, or a server's (`presplit.runtime.serving.served.Served`).
    A watcher that is too slow misses answers, which ``missed`` counts. One that raises is told so
    by `sys.unraisablehook`, as Python does for a callback that nobody waits for, and is told the
    next answer all the same.
    """

    def __init__(self, watch: Callable[[T], None]) -> None:
        self._watch = watch
        self._answers: queue.Queue[T | None] = queue.Queue(ROOM)
        self.missed, self._counting = 0, threading.Lock()
        self._thread = threading.Thread(target=self._tell, name="watcher", daemon=True)
        self._thread.start()

    def see(self, answer: T) -> None:
        """Hand over one answer; returns at once."""
        try:
            self._answers.put_nowait(answer)
        except queue.Full:
            with self._counting:
                self.missed += 1

    def close(self) -> None:
        """Let the watcher see what was answered before, for `CLOSING_S` at most."""
        if threading.current_thread() is self._thread:
            return
        try:
            self._answers.put(None, timeout=CLOSING_S)
        except queue.Full:
            return
        self._thread.join(CLOSING_S)

    def _tell(self) -> None:
        """Tell one answer after another, until None ends it."""
        while (answer := self._answers.get()) is not None:
            try:
                self._watch(answer)
            except BaseException as error:  # whatever a user's function raises, SystemExit too
                text = "a watcher failed; the answer stands"
                told = SimpleNamespace(
                    exc_type=type(error),
                    exc_value=error,
                    exc_traceback=error.__traceback__,
                    err_msg=text,
                    object=self._watch,
                )
                sys.unraisablehook(cast(Any, told))
