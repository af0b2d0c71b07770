"""Admission: a bounded number of requests is inside at once, and one more is refused at once.

That keeps those that were admitted within their deadlines; an unbounded queue serves nobody in time
once it is behind. Source: bounded concurrency as in Netflix's concurrency-limits; the limit is
fixed here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from presplit.runtime.hosted import Array, Hosted, Layer, Overloaded, Reply

T = TypeVar("T")

PLACES_PER_WORKER = 16
"""Requests admitted at once for each worker, waiting or computed."""


class _Admitted(Layer):
    """See `admitted`."""

    def __init__(self, inner: Hosted, places: int) -> None:
        super().__init__(inner)
        self._places = threading.BoundedSemaphore(places)

    def warm(self, name: str) -> Future[None]:
        return self._within(lambda: self._inner.warm(name))

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        return self._within(lambda: self._inner.run(name, array, until=until, client=client))

    def _within(self, begin: Callable[[], Future[T]]) -> Future[T]:
        """What ``begin`` gives, if there is a place; it is held until that is over."""
        if not self._places.acquire(blocking=False):
            raise Overloaded("the server is at its limit; answer locally and ask again later")
        try:
            future = begin()
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return future


def admitted(hosted: Hosted, places: int) -> Hosted:
    """``hosted`` with so many places; a request that finds none raises `Overloaded` at once."""
    return _Admitted(hosted, places)
