"""What is computed while a reply is on its way, so that there is an answer without it.

It runs on a thread of its own, because an engine stops only between two operators and the answer
must not wait for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from presplit.core.types import Floats
from presplit.runtime.engines import Stop
from presplit.runtime.head import Held, Stretch


class Fallback:
    """One run of ``stretch`` on ``values``, begun now; it must end at an exit."""

    def __init__(self, stretch: Stretch, values: Floats) -> None:
        self._stretch, self._values = stretch, values
        self._stop = Stop()
        self._found: Future[Held] = Future()
        thread = threading.Thread(target=self._compute, name="fallback", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self._compute()

    @property
    def holds(self) -> bool:
        """True when the answer is there; a run that failed holds none."""
        return self._found.done() and self._found.exception() is None

    def once_held(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the answer is there, at once if it is; never if it fails."""
        self._found.add_done_callback(lambda found: None if found.exception() else call())

    def stop(self) -> None:
        """Nobody needs it any more: give the processor back."""
        self._stop.ask()

    def result(self) -> Held:
        """What the exit says, waited for; raises what the engine raised."""
        return self._found.result()

    def _compute(self) -> None:
        """Run to the exit."""
        try:
            held = self._stretch.run(self._values, stop=self._stop)[1]
            assert held is not None, "the fallback ends at an exit"
            held.check()
        except BaseException as error:
            # It belongs to whoever asks for the result; the thread has no other use for it.
            self._found.set_exception(error)
        else:
            self._found.set_result(held)
