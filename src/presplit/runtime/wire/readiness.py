"""Whether a server is ready, and who waits for that to change. Used on one event loop."""

from __future__ import annotations

import asyncio


class Readiness:
    """Ready or not; whoever `changed` is told of the next change."""

    def __init__(self, ready: bool = True) -> None:
        self.ready = ready
        self.ended = False
        """Nothing will change any more."""
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self, ready: bool) -> None:
        """From now on it is ``ready``, or is not."""
        if ready != self.ready:
            self.ready = ready
            self._wake()

    def end(self) -> None:
        """Never ready again: whoever waits goes home."""
        self.ready, self.ended = False, True
        self._wake()

    async def changed(self) -> None:
        """Return at the next change."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
