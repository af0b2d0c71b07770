"""Round trips to an echo: what asking takes, over a link or on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Generator
from typing import Any, Self

import numpy as np

from presplit import __version__
from presplit.core.errors import ServerError
from presplit.runtime.measuring.rounds import Array
from presplit.runtime.serving.echo import (
    BLOCK,
    MOST_BYTES,
    MOST_REPLY_BYTES,
    Nothing,
    echo_name,
    echoing,
)
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.wire.client import Client
from presplit.runtime.wire.credentials import ClientCredentials
from presplit.runtime.wire.server import Listener

PATIENCE_S = 60.0
"""How long one round trip may take."""
PAUSE_S = 0.02
"""How long a usual link keeps both ends waiting."""
LEAST_VALUES = 1
"""Numbers in the smallest reply."""


class Asking:
    """A connection to a server that echoes; closed by ``with``.

    Raises `SpecError` for an address of another form, `ServerError` if nobody echoes there.
    """

    def __init__(self, server: str, *, credentials: ClientCredentials | None = None) -> None:
        self._server = server
        self._client = Client(server, patience_s=PATIENCE_S, credentials=credentials, lane=False)
        try:
            self._connect()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def seconds(self, up_bytes: int = BLOCK, down_bytes: int = 4 * LEAST_VALUES) -> float:
        """What one round trip takes with a payload of about so many bytes each way.

        Raises `ServerError` if it fails.
        """
        blocks = min(MOST_BYTES, max(BLOCK, up_bytes)) // BLOCK
        values = min(MOST_REPLY_BYTES // 4, max(LEAST_VALUES, down_bytes // 4))
        codes = np.zeros((blocks, BLOCK), np.int8)
        began = time.perf_counter()
        asked = self._client.ask(
            Request(echo_name(values), codes, values), time.monotonic() + PATIENCE_S
        )
        reply = asked if isinstance(asked, Failure) else asked.wait(time.monotonic() + PATIENCE_S)
        took = time.perf_counter() - began
        if isinstance(reply, Failure):
            raise ServerError(
                f"{self._server}: no echo ({reply.detail}): a link is measured against presplit "
                "serve, which must run there and be reached"
            )
        return took

    def _connect(self) -> None:
        """Ask until somebody answers: a connection is made only when it is needed."""
        until = time.monotonic() + PATIENCE_S / 6
        while True:
            try:
                self.seconds()
                return
            except ServerError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)


@contextlib.contextmanager
def echo_here(credentials: Any = None) -> Generator[str]:
    """The address of an echo on a thread of this process, over TLS with gRPC's ``credentials``."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="echo")
    thread.start()

    def there(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def listen() -> tuple[Listener, str]:
        listener = Listener(
            echoing(Nothing()), name="presplit", version=__version__, credentials=credentials
        )
        return listener, await listener.start("127.0.0.1", 0)

    try:
        listener, address = there(listen())
        try:
            yield address
        finally:
            there(listener.stop(0))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def asking_s(*, pause_s: float = PAUSE_S, rounds: int = 60) -> Array:
    """What asking takes besides the link, ``(rounds,)`` seconds: an echo on this machine.

    It is asked after pauses of ``pause_s``, as over a link that takes so long: processors that have
    slept take twice as long as busy ones. The messages of both ends are made and read here, so a
    server that is faster than this machine takes less.
    """
    with echo_here() as address, Asking(address) as asking:
        found: list[float] = []
        for _ in range(rounds):
            time.sleep(pause_s)
            found.append(asking.seconds())
    return np.array(found)
