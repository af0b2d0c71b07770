"""The live page: snapshots four times a second, to whoever looks on from this machine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from presplit.runtime.live.known import known_as
from presplit.runtime.page import Page, Post

EVERY_S = 0.25
"""Between two snapshots; answers are counted, so no page is sent one event for each."""
FRESH_S = 0.1
"""So old a snapshot may be that was made for another reader."""

Now = Callable[[], dict[str, Any]]
"""Gives a snapshot."""


@contextlib.contextmanager
def showing(
    port: int,
    now: Now,
    *,
    files: Mapping[str, tuple[str, bytes]],
    posts: Mapping[str, Post] | None = None,
    flag: str = "--live",
) -> Generator[str]:
    """The address of a page that shows what ``now`` gives, as long as the context is open.

    ``files`` are those of the page by their paths, ``posts`` its buttons. ``/now`` gives one
    snapshot, ``/events`` one after another. Raises `ServerError` if the port is taken; ``flag`` is
    the option that its cure names.
    """
    shared = _Shared(now)
    page = Page(
        port,
        files=files,
        gets={"now": lambda _: shared()},
        posts=posts,
        streams={"events": lambda: _each(shared)},
        flag=flag,
    )
    try:
        with known_as(page.address):
            yield page.address
    finally:
        page.close()


class _Shared:
    """A snapshot that several readers share for a moment."""

    def __init__(self, now: Now) -> None:
        self._now, self._lock = now, threading.Lock()
        self._at, self._last = -FRESH_S, dict[str, Any]()

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._at >= FRESH_S:
                self._last, self._at = self._now(), time.monotonic()
            return self._last


def _each(now: Now) -> Iterator[dict[str, Any]]:
    """One snapshot after another."""
    while True:
        yield now()
        time.sleep(EVERY_S)
