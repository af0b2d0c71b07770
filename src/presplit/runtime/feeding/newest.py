"""Reading ahead what comes faster than it is answered: the oldest are dropped, and counted.

What a camera saw a second ago is worth less than what it sees now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from presplit.runtime.feeding.inbox import Inbox

T = TypeVar("T")


class Newest(Generic[T]):
    """Gives what ``source`` gives, read ahead on a thread of its own; ``room`` of it wait at most.

    What the source raises is raised here, after what still waits.

    >>> list(Newest("abc", 3))
    ['a', 'b', 'c']
    """

    def __init__(self, source: Iterable[T], room: int) -> None:
        self._inbox = Inbox[T](room)
        self._source = source
        self._error: BaseException | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._read, name="newest", daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many were given and never taken, for newer ones came before their turn."""
        return self._inbox.dropped

    def __iter__(self) -> Iterator[T]:
        try:
            yield from self._inbox
        finally:
            self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Read no more than what is being read at this moment."""
        self._closed.set()

    def _read(self) -> None:
        try:
            for one in self._source:
                if self._closed.is_set():
                    break
                self._inbox.put(one)
        except BaseException as error:  # whatever it is, the one who takes is to know
            self._error = error
        finally:
            self._inbox.close()
