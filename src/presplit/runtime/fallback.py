"""The best answer of this device itself: what lies behind the split, as far as time allows.

It goes from exit to exit, each begun only if it is expected to end by the deadline. It runs on a
thread of its own, because an engine stops only between two operators and the answer must not wait
for that. While a reply is awaited it begins at the last moment from which it still ends in time:
where the server answers as ever, it costs nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from presplit.core.errors import EngineError
from presplit.core.types import Floats
from presplit.runtime.engines import Stop, Stopped
from presplit.runtime.head import Held, Stretch
from presplit.runtime.pace import Pace

SPARE, SPARE_S = 1.5, 0.003
"""It begins so many times what it is expected to take, and so many seconds, before the deadline."""
UNHELD, UNHELD_S = 2.0, 0.010
"""The same where without it there is no answer at all."""


class Fallback:
    """Runs ``chain``, stretches that each end at an exit, on ``values``, once it is begun.

    ``held`` is the answer at hand, None if there is none: then the first stretch runs however late.
    ``by`` is the deadline (`time.monotonic`).
    """

    def __init__(
        self,
        chain: Sequence[Stretch],
        values: Floats,
        held: Held | None,
        *,
        by: float,
        pace: Pace,
    ) -> None:
        self._chain, self._values, self._by, self._pace = chain, values, by, pace
        self._best, self._error = held, EngineError("nothing here may answer")
        self._stop, self._changed = Stop(), threading.Condition()
        self._begun = self._over = False
        self._once_held, self._once_over = list[Callable[[], None]](), list[Callable[[], None]]()

    @property
    def holds(self) -> bool:
        """True when there is an answer."""
        return self._best is not None

    @property
    def over(self) -> bool:
        """True when it has gone as far as it goes, and there is an answer."""
        return self._over and self._best is not None

    @property
    def begins_at(self) -> float:
        """When it must begin to get as far as it can by the deadline; never, if it gets nowhere."""
        now, takes_s = time.monotonic(), 0.0
        for stretch in self._chain:
            longer_s = takes_s + self._pace.expected_s(stretch.seconds)
            if now + longer_s > self._by:
                break
            takes_s = longer_s
        if self._best is None:
            return self._by - UNHELD * takes_s - UNHELD_S if takes_s else now
        return self._by - SPARE * takes_s - SPARE_S if takes_s else math.inf

    def begin(self) -> None:
        """Begin, unless it has begun or nothing would end in time."""
        if self._begun or not self._next_fits(0):
            return
        self._begun = True
        thread = threading.Thread(target=self._compute, name="fallback", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self._compute()

    def once_held(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when there is an answer, at once if it is; never if it fails."""
        self._once(self._once_held, call, lambda: self.holds)

    def once_over(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when it is `over`, at once if it is; never if there is no answer."""
        self._once(self._once_over, call, lambda: self.over)

    def stop(self) -> None:
        """Nobody needs it any more: give the processor back."""
        self._stop.ask()

    def best(self) -> Held:
        """The deepest answer that there is by the deadline; begins if it has not.

        Where nothing is held the first is waited for, however late. Raises what the engine raised
        if there is none.
        """
        self.begin()
        with self._changed:
            if self._begun:
                self._changed.wait_for(lambda: self._over or self._best is not None)
                left_s = max(0.0, self._by - time.monotonic())
                self._changed.wait_for(lambda: self._over, timeout=left_s)
            if self._best is None:
                raise self._error
            return self._best

    def _next_fits(self, number: int) -> bool:
        """Whether there is a stretch of this ``number`` and it may be begun."""
        if number >= len(self._chain) or self._stop.asked:
            return False
        expected_s = self._pace.expected_s(self._chain[number].seconds)
        return self._best is None or time.monotonic() + expected_s <= self._by

    def _compute(self) -> None:
        """Run from exit to exit."""
        number, values = 0, self._values
        try:
            while self._next_fits(number):
                stretch, began = self._chain[number], time.monotonic()
                try:
                    values, held = stretch.run(values, stop=self._stop)
                except Stopped:
                    self._pace.stopped(time.monotonic() - began, stretch.seconds)
                    break
                self._pace.ran(time.monotonic() - began, stretch.seconds)
                assert held is not None, "each stretch of a fallback ends at an exit"
                held.check()
                self._hold(held)
                number += 1
        except BaseException as error:
            # It belongs to whoever asks for the answer; the thread has no other use for it.
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._best is not None:
            self._tell(self._once_over)

    def _hold(self, held: Held) -> None:
        """A deeper exit has answered."""
        with self._changed:
            self._best = held
            self._changed.notify_all()
        self._tell(self._once_held)

    def _once(
        self, calls: list[Callable[[], None]], call: Callable[[], None], so: Callable[[], bool]
    ) -> None:
        """Call it now if it is ``so``, else with the ``calls`` that wait for that."""
        with self._changed:
            now = so()
            if not now:
                calls.append(call)
        if now:
            call()

    def _tell(self, calls: list[Callable[[], None]]) -> None:
        """Make the calls that waited, each once."""
        with self._changed:
            told = list(calls)
            calls.clear()
        for call in told:
            call()
