"""Progress for people, on standard error: bars on a terminal, a line now and then elsewhere.

The only file of the lower rooms that draws with rich, which it imports when it draws: measuring on
a device, which has no torch, shows its progress as training does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Generator
from typing import Any, TextIO

from presplit.core.progress import Listener, Task, is_listened, listening

LATE_S = 0.7
"""What is over by then is not drawn."""
FIRST_S = 5.0
"""A line is written after that long; the next ones after half as much again as is over by then.

So a log of hours has a few tens of lines.
"""
BAR = 16
"""Characters that a bar is wide."""
PER_S = 5
"""How often a bar is drawn anew; more often takes processors from the work itself."""


@contextlib.contextmanager
def drawn(*, lines: bool = True) -> Generator[None]:
    """Draw what is done inside: bars if standard error is a terminal, else ``lines`` if wanted.

    Of several processes that train together (``RANK``, as torchrun sets it) the first one draws.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    listener: Listener = Bars() if _is_terminal(sys.stderr) else Lines(every=lines)
    with listening(listener):
        yield


@contextlib.contextmanager
def shown(wanted: bool | None) -> Generator[None]:
    """What `presplit.train.fit` does with its ``progress``.

    True draws, False does not, and None draws on a terminal. Where somebody listens already, as
    the command does, he goes on unless it is False.
    """
    if wanted is False:
        with listening(None):
            yield
    elif is_listened() or (wanted is None and not _is_terminal(sys.stderr)):
        yield
    else:
        with drawn():
            yield


def sentence(task: Task, now: float) -> str:
    """How far ``task`` is, its rate, the time left and its note.

    >>> task = Task("training", 2000, "samples", done=500, began=0.0, note="epoch 2 of 8")
    >>> sentence(task, 2.0)
    'training: 25 %, 250 samples/s, 6 s left, epoch 2 of 8'
    >>> sentence(Task("exporting", began=0.0), 3.0)
    'exporting: 3 s so far'
    """
    parts = _parts(task, now)
    return f"{task.what}: {', '.join([*parts, task.note] if task.note else parts)}"


def _parts(task: Task, now: float) -> list[str]:
    parts: list[str] = []
    if task.total:
        parts.append(f"{min(100, int(100 * task.done / task.total))} %")
        rate = task.rate_per_s(now)
        if task.unit and rate > 0:
            parts.append(f"{_rounded(rate)} {task.unit}/s")
        left = task.left_s(now)
        if left is not None:
            parts.append(f"{clock(left)} left")
    else:
        parts.append(f"{clock(now - task.began)} so far")
    return parts


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def clock(seconds: float) -> str:
    """A time that passes, in words.

    >>> clock(0.2), clock(75), clock(4000)
    ('1 s', '1 min 15 s', '1 h 06 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Lines:
    """Writes a line now and then; with ``every`` False only what is worth keeping."""

    def __init__(self, *, every: bool = True) -> None:
        self._every = every
        self._next: dict[int, float] = {}

    def began(self, task: Task) -> None:
        """Nothing is written before a task takes long."""
        self._next[id(task)] = FIRST_S

    def moved(self, task: Task) -> None:
        """Write a line if it is time for one."""
        now = time.monotonic()
        if self._every and now - task.began >= self._next[id(task)]:
            self._next[id(task)] = 1.5 * (now - task.began) + FIRST_S
            self.told(sentence(task, now))

    def ended(self, task: Task) -> None:
        """Forget the task."""
        del self._next[id(task)]

    def told(self, sentence: str) -> None:
        """Write the sentence."""
        print(sentence, file=sys.stderr, flush=True)


class Bars:
    """Draws a bar for each task that is under way; all are gone when the last one is over."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._live: Any = None
        self._drawn = 0.0
        self._lock = threading.RLock()

    def began(self, task: Task) -> None:
        """Draw it with the others."""
        from rich.console import Console
        from rich.live import Live

        with self._lock:
            self._tasks.append(task)
            if self._live is None:
                self._live = Live(
                    get_renderable=self.picture,
                    console=Console(stderr=True, highlight=False),
                    refresh_per_second=PER_S,
                    auto_refresh=not task.still,
                    transient=True,
                    redirect_stdout=False,  # a user's code has it sent elsewhere, see cli
                )
                self._live.start()

    def moved(self, task: Task) -> None:
        """Let the next picture show it.

        A thread draws some each second; where times are measured, one is drawn between two of them.
        """
        now = time.monotonic()
        if task.still and now - self._drawn >= 1.0:
            self._drawn = now
            self._live.refresh()

    def ended(self, task: Task) -> None:
        """Take its bar away."""
        with self._lock:
            self._tasks.remove(task)
            if not self._tasks:
                self._live.stop()
                self._live = None

    def told(self, sentence: str) -> None:
        """Write the sentence above the bars."""
        print(sentence, file=sys.stderr, flush=True)

    def picture(self) -> Any:
        """The bars as rich draws them."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        late = [task for task in self._tasks if now - task.began >= LATE_S]
        if not late:
            return Group()
        rows = Table.grid(padding=(0, 1))
        rows.add_column(no_wrap=True, overflow="ellipsis")
        rows.add_column(min_width=BAR)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        for task in late:
            bar = ProgressBar(
                total=task.total, completed=task.done, width=BAR, pulse=not task.total
            )
            rows.add_row(Text(task.what), bar, Text(", ".join(_parts(task, now))))
        notes = [Text(f"  {task.note}", style="dim", no_wrap=True) for task in late if task.note]
        return Group(rows, *notes)
