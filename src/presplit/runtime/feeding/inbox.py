"""What came in and was not answered yet: where it comes faster than answers, the oldest goes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue with ``room`` for so many: one more drops the oldest, counted in ``dropped``.

    Safe for several threads. Iterating waits for the next and ends once it is closed and empty.

    >>> inbox = Inbox[str](room=2)
    >>> for frame in ("first", "second", "third"):
    ...     inbox.put(frame)
    >>> inbox.close()
    >>> list(inbox), inbox.dropped
    (['second', 'third'], 1)
    """

    def __init__(self, room: int) -> None:
        self._waiting = deque[T]()
        self._room = max(1, room)
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = 0

    def put(self, item: T) -> None:
        """Put ``item`` last; returns at once. After `close` nothing is taken."""
        with self._changed:
            if self._closed:
                return
            if len(self._waiting) == self._room:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(item)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more will come; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            yield item
