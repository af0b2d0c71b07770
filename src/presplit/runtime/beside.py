"""Work beside an event loop, on a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """What ``work`` gives, done on a thread of its own, which nobody has to wait for."""
    done: Future[T] = Future()

    done.set_running_or_notify_cancel()  # whoever gives up waiting cannot take it back

    def doing() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # raised again by whoever waits
            done.set_exception(error)

    threading.Thread(target=doing, name="beside", daemon=True).start()
    return asyncio.wrap_future(done)
