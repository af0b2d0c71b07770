"""How far long work is: it says so to whoever listens, and nobody has to.

The rooms that work call `doing`, `advance` and `track`; the command, and `presplit.train.fit` on a
terminal, listen and draw (`presplit.core.bar`). Without a listener a step costs a look-up. What is
said in another thread than the one that listens is heard by nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

T = TypeVar("T")


@dataclass
class Task:
    """One piece of work: ``done`` of ``total`` in a ``unit``, such as "samples".

    ``total`` is None where the end is not known; ``note``: what else there is to say just now.
    ``began`` and what was done by then are known, so that a rate can be told. ``still``: times are
    measured in it, so nothing is to be drawn by another thread.
    """

    what: str
    total: float | None = None
    unit: str = ""
    done: float = 0.0
    note: str = ""
    first: float = 0.0
    began: float = field(default_factory=time.monotonic)
    still: bool = False

    def rate_per_s(self, now: float) -> float:
        """Units a second since it began; 0 where nothing can be told yet.

        >>> Task("reading", 10, done=4, began=1.0).rate_per_s(3.0)
        2.0
        """
        return (self.done - self.first) / (now - self.began) if now > self.began else 0.0

    def left_s(self, now: float) -> float | None:
        """Seconds until the end at that rate; None where that cannot be told."""
        rate = self.rate_per_s(now)
        if self.total is None or rate <= 0:
            return None
        return max(0.0, self.total - self.done) / rate


class Listener(Protocol):
    """Is told when a task begins, moves and ends, and what else is to be said."""

    def began(self, task: Task) -> None:
        """The task stands at its beginning."""
        ...

    def moved(self, task: Task) -> None:
        """More of the task is done, or its note has changed."""
        ...

    def ended(self, task: Task) -> None:
        """The task is over, whole or not."""
        ...

    def told(self, sentence: str) -> None:
        """A sentence that is worth keeping."""
        ...


_LISTENER: ContextVar[Listener | None] = ContextVar("presplit_listener", default=None)
_TASK: ContextVar[Task | None] = ContextVar("presplit_task", default=None)
_ABOUT: ContextVar[str] = ContextVar("presplit_about", default="")


@contextlib.contextmanager
def listening(listener: Listener | None) -> Generator[None]:
    """What is done inside is told to ``listener``; to nobody if that is None."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def is_listened() -> bool:
    """Whether somebody listens."""
    return _LISTENER.get() is not None


@contextlib.contextmanager
def about(name: str) -> Generator[None]:
    """What the work inside is about, as ``dense parent (teacher)``; `subject` gives it."""
    token = _ABOUT.set(name)
    try:
        yield
    finally:
        _ABOUT.reset(token)


def subject(usual: str) -> str:
    """What the work here is about, or ``usual`` where nobody has said it.

    >>> with about("dense parent (teacher)"):
    ...     subject("the net")
    'dense parent (teacher)'
    """
    return _ABOUT.get() or usual


@contextlib.contextmanager
def doing(
    what: str,
    total: float | None = None,
    unit: str = "",
    *,
    done: float = 0.0,
    still: bool = False,
) -> Generator[Task]:
    """A task while its block lasts; `advance` inside it moves it.

    ``done`` was done before; ``still`` as in `Task`.

    >>> with doing("reading", 2, "files") as task:
    ...     advance()
    >>> task.done
    1.0
    """
    task = Task(what, total, unit, done, first=done, still=still)
    token, listener = _TASK.set(task), _LISTENER.get()
    if listener is not None:
        listener.began(task)
    try:
        yield task
    finally:
        _TASK.reset(token)
        if listener is not None:
            listener.ended(task)


def advance(count: float = 1, note: str | None = None) -> None:
    """So much more of the innermost task is done; without a task, nothing happens."""
    task, listener = _TASK.get(), _LISTENER.get()
    if task is None:
        return
    task.done += count
    if note is not None:
        task.note = note
    if listener is not None:
        listener.moved(task)


def track(
    items: Iterable[T], what: str, unit: str = "", *, total: int | None = None
) -> Iterator[T]:
    """``items`` one by one, told as a task of its own.

    >>> list(track("ab", "reading"))
    ['a', 'b']
    """
    listener = _LISTENER.get()
    if total is None and isinstance(items, Sized):
        total = len(items)
    if listener is None:
        yield from items
        return
    task = Task(what, total, unit)
    listener.began(task)
    try:
        for item in items:
            yield item
            task.done += 1
            listener.moved(task)
    finally:
        listener.ended(task)


def tell(sentence: str) -> None:
    """A sentence that is worth keeping, for whoever listens."""
    listener = _LISTENER.get()
    if listener is not None:
        listener.told(sentence)
