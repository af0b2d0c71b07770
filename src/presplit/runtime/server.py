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
from presplit.runtime.doors import check_keep_bytes, check_threads
from presplit.runtime.echo import echoing
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import fits
from presplit.runtime.hosted import Hosted
from presplit.runtime.tail import Tails, pooled, workers_for
from presplit.runtime.wire.server import Listener

DRAIN_S = 10.0
"""How long requests that are being answered may take after the signal to stop."""


def hosting(
    bundle: Bundle,
    *,
    threads: int = 1,
    keep_bytes: float | None = None,
    load: Load = ENGINES[DEFAULT],
) -> Hosted:
    """The tails of ``bundle`` as a server hosts them: admitted, batched, on a pool of threads.

    ``threads`` is what one engine uses, ``keep_bytes`` bounds the models that are kept as engines
    (`presplit.runtime.kept.enough`, if None), ``load`` makes the engines. With
    `presplit.runtime.upstream.InProcess` an edge asks it without any network. Raises `SpecError` if
    one of them is out of its range.
    """
    check_threads(threads)
    check_keep_bytes(keep_bytes)
    workers = workers_for(threads)
    tails = Tails(bundle, threads=threads, keep_bytes=keep_bytes, load=load)
    return admitted(batched(pooled(tails, workers)), workers * PLACES_PER_WORKER)


def serve(
    bundle: Bundle | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 1,
    keep_bytes: float | None = None,
    ready: Callable[[str], None] | None = None,
    insecure: bool = False,
    load: Load = ENGINES[DEFAULT],
) -> None:
    """Serve ``bundle`` (or its path) until SIGTERM or SIGINT.

    ``ready`` is told ``HOST:PORT`` once it listens: after the tail that the bundle's plan wants
    (else the whole net) has run once. ``threads``, ``keep_bytes`` and ``load`` are as in
    `hosting`. Must be called on the main thread, where signals arrive. Raises
    `SpecError` for numbers out of their range, `PlanError` if the bundle's own plan does not fit
    it, `ServerError` if the address cannot be had, or is not a loopback one and ``insecure`` is not
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
    if found.plan is not None:
        fits(found.plan, found)
    hosted = echoing(hosting(found, threads=threads, keep_bytes=keep_bytes, load=load))
    asyncio.run(_serve(hosted, first_model(found), host=host, port=port, ready=ready))


async def _serve(
    hosted: Hosted, first: str, *, host: str, port: int, ready: Callable[[str], None] | None
) -> None:
    """Warm up, listen, and wait for the signal to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        if not await _warmed(hosted, first, stopped):
            return
        listener = Listener(hosted, name="presplit", version=__version__)
        address = await listener.start(host, port)
        if ready is not None:
            ready(address)
        await stopped.wait()
        await listener.stop(DRAIN_S)
    finally:
        hosted.close()


async def _warmed(hosted: Hosted, first: str, stopped: asyncio.Event) -> bool:
    """True when ``first`` is warm; False if the signal to stop comes before."""
    warming = asyncio.ensure_future(asyncio.wrap_future(hosted.warm(first)))
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({warming, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not warming.done():
        warming.cancel()
        return False
    await warming
    return not stopped.is_set()


def first_model(bundle: Bundle) -> str:
    """The tail that will be asked for: the plan's if it has one, else the whole net's."""
    plan = bundle.plan
    if plan is None or plan.split == bundle.net.last:
        return bundle.manifest.model_name(0, "float32")
    return bundle.manifest.model_name(plan.split, plan.codec, plan.server_form)
