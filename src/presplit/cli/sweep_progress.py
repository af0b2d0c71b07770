"""How a sweep goes on, for people: a bar on a terminal, and a line for each run that ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from presplit.cli.options import say
from presplit.core import units

if TYPE_CHECKING:
    from presplit.lab.sweep.found import Row
    from presplit.lab.sweep.task import Task

EVERY_S = 0.5
"""How often a bar looks how far the runs are."""


class Lines:
    """A line for each run, with the time that is left."""

    def __init__(self) -> None:
        self._tasks: Sequence[Task] = ()
        self._ended = self._of = self._epochs = self._before = 0
        self._began = time.monotonic()

    def begins(self, tasks: Sequence[Task], of: int) -> None:
        """``tasks`` are to be trained of so many runs."""
        from presplit.lab.sweep.progress import epochs_of

        self._tasks, self._of, self._ended = tasks, of, of - len(tasks)
        self._epochs = sum(epochs_of(task.spec) for task in tasks)
        self._before, self._began = self.done, time.monotonic()
        if self._ended:
            say(f"{self._ended} of {of} runs are finished already")

    def ended(self, row: Row) -> None:
        """Say how the run ended."""
        self._ended += 1
        left = self.left_s
        rest = "" if left is None else f"; about {clock(left)} left"
        say(f"run {self._ended} of {self._of}: {_told(row)}{rest}")

    def measures(self, nets: int) -> None:
        """Say what the silence is that follows."""
        say(f"{nets} nets are timed, all in turn")

    @property
    def done(self) -> int:
        """Epochs of these runs that are done."""
        from presplit.lab.sweep.progress import epochs_done

        return sum(map(epochs_done, self._tasks))

    @property
    def left_s(self) -> float | None:
        """The time that is left at the pace so far, if there was any yet."""
        done, took = self.done, time.monotonic() - self._began
        if done <= self._before or done >= self._epochs:
            return None
        return took * (self._epochs - done) / (done - self._before)


class Bar(Lines):
    """A bar of all epochs above which the lines scroll by."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self._bar, self._place, self._over = bar, None, threading.Event()

    def begins(self, tasks: Sequence[Task], of: int) -> None:
        """Begin to look how far the runs are."""
        super().begins(tasks, of)
        self._place = self._bar.add_task("", total=max(self._epochs, 1))
        threading.Thread(target=self._look, daemon=True).start()

    def measures(self, nets: int) -> None:
        """The bar is full; say what follows."""
        self.close()
        super().measures(nets)

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            left = self.left_s
            rest = "" if left is None else f", about {clock(left)} left"
            done = min(self.done, self._epochs)
            said = f"{self._ended} of {self._of} runs{rest}"
            self._bar.update(self._place, completed=done, description=said)


@contextmanager
def watching() -> Iterator[Lines]:
    """What tells how a sweep goes on while the block lasts."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        lines = Bar(bar)
        try:
            yield lines
        finally:
            lines.close()


def clock(seconds: float) -> str:
    """A time that need not be exact.

    >>> clock(4.2), clock(75), clock(7000)
    ('4 s', '1 min 15 s', '1 h 56 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _told(row: Row) -> str:
    """How one run ended."""
    if row.state == "failed":
        return f"{row.point}, seed {row.seed} failed: {row.reason}"
    accuracy = units.percent(row.accuracy["final"])
    took = "" if row.train_s is None else f" after {clock(row.train_s)}"
    return f"{row.point}, seed {row.seed}: {accuracy} right on the test set{took}"
