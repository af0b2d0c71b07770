"""The tail server: a bundle's tails behind the Open Inference Protocol, in one process.

SIGTERM or SIGINT ends it after the requests that are being answered.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from presplit import __version__
from presplit.bundle import Bundle, read
from presplit.core.errors import ServerError
from presplit.runtime.address import is_loopback
from presplit.runtime.admission import PLACES_PER_WORKER, admitted
from presplit.runtime.batching import batched
from presplit.runtime.hosted import Hosted
from presplit.runtime.tail import Tails, pooled, workers_for
from presplit.runtime.wire.server import Listener

DRAIN_S = 10.0
"""How long requests that are being answered may take after the signal to stop."""


def hosting(bundle: Bundle, *, threads: int = 1, keep_bytes: int | None = None) -> Hosted:
    """The tails of ``bundle`` as a server hosts them: admitted, batched, on a pool of threads.

    ``threads`` is what one engine uses, ``keep_bytes`` bounds the models that are kept as engines
    (`presplit.runtime.kept.enough`, if None). With `presplit.runtime.upstream.InProcess` an edge
    asks it without any network.
    """
    workers = workers_for(threads)
    tails = Tails(bundle, threads=threads, keep_bytes=keep_bytes)
    return admitted(batched(pooled(tails, workers)), workers * PLACES_PER_WORKER)


def serve(
    bundle: Bundle | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 1,
    keep_bytes: int | None = None,
    ready: Callable[[str], None] | None = None,
    insecure: bool = False,
) -> None:
    """Serve ``bundle`` (or its path) until SIGTERM or SIGINT.

    ``ready`` is told ``HOST:PORT`` once it listens: after the tail that the bundle's plan wants
    (else the whole net) has run once. ``threads`` and ``keep_bytes`` are as in
    `hosting`. Must be called on the main thread, where signals arrive. Raises
    `ServerError` if the address cannot be had, or is not a loopback one and ``insecure`` is not
    set: there is no encryption yet, so a server that others can reach must be asked for in so many
    words.
    """
    if not insecure and not is_loopback(host):
        raise ServerError(
            f"{host!r} is no loopback address, so others may reach it, and there is no TLS yet: "
            "serve on 127.0.0.1 or [::1] behind a secure proxy, or pass insecure=True (--insecure) "
            "on a network you trust"
        )
    found = bundle if isinstance(bundle, Bundle) else read(bundle)
    hosted = hosting(found, threads=threads, keep_bytes=keep_bytes)
    asyncio.run(_serve(hosted, first_model(found), host=host, port=port, ready=ready))


async def _serve(
    hosted: Hosted, first: str, *, host: str, port: int, ready: Callable[[str], None] | None
) -> None:
    """Warm up, listen, and wait for the signal to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        await asyncio.wrap_future(hosted.warm(first))
        listener = Listener(hosted, name="presplit", version=__version__)
        address = await listener.start(host, port)
        if ready is not None:
            ready(address)
        await stopped.wait()
        await listener.stop(DRAIN_S)
    finally:
        hosted.close()


def first_model(bundle: Bundle) -> str:
    """The tail that will be asked for: the plan's if it has one, else the whole net's."""
    plan = bundle.plan
    if plan is None or plan.split == bundle.net.last:
        return bundle.manifest.model_name(0, "float32")
    return bundle.manifest.model_name(plan.split, plan.codec)
