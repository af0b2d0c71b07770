"""A server that leaks on purpose, which the soak must catch: ``BUNDLE --port 0 --json``."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import Future

from presplit.bundle import read
from presplit.runtime.hosted import Array, Layer, Reply
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire.server import Listener


class Leaking(Layer):
    """What is hosted, but a kilobyte stays of every request."""

    kept: list[bytearray] = []

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """As inside."""
        self.kept.append(bytearray(b"x" * 1024))
        return super().run(name, array, until=until, client=client)


async def main(path: str) -> None:
    """Serve until it is killed."""
    hosted = Leaking(hosting(read(path)))
    listener = Listener(hosted, name="leaky", version="0")
    print(json.dumps({"address": await listener.start("127.0.0.1", 0)}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
