"""The tail server: a bundle's tails behind the Open Inference Protocol, in one process.

SIGTERM or SIGINT ends it after the requests that are being answered.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
from collections.abc import Callable
from pathlib import Path

from presplit.bundle import Bundle, read
from presplit.core.errors import ServerError
from presplit.runtime.tail import Tail
from presplit.runtime.wire.server import Listener

DRAIN_S = 10.0
"""How long requests that are being answered may take after the signal to stop."""


def serve(
    bundle: Bundle | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 1,
    ready: Callable[[str], None] | None = None,
    insecure: bool = False,
) -> None:
    """Serve ``bundle`` (or its path) until SIGTERM or SIGINT.

    ``ready`` is told ``HOST:PORT`` once it listens.

    Listening begins after the tail that the bundle's plan wants (else the whole net) has run once.
    ``threads`` is what one engine uses. Must be called on the main thread, where signals arrive.
    Raises `ServerError` if the address cannot be had, or is not a loopback one and ``insecure`` is
    not set: there is no encryption yet, so a server that others can reach must be asked for in so
    many words.
    """
    if not insecure and not _is_loopback(host):
        raise ServerError(
            f"{host} can be reached from outside and there is no TLS yet: serve on 127.0.0.1 "
            "behind a secure proxy,"
            " or pass insecure=True (--insecure) on a network you trust"
        )
    bundle = bundle if isinstance(bundle, Bundle) else read(bundle)
    asyncio.run(_serve(bundle, host=host, port=port, threads=threads, ready=ready))


async def _serve(
    bundle: Bundle, *, host: str, port: int, threads: int, ready: Callable[[str], None] | None
) -> None:
    """Warm up, listen, and wait for the signal to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    tail = Tail(bundle, threads=threads)
    try:
        await tail.warm(first_model(bundle))
        listener = Listener(tail)
        address = await listener.start(host, port)
        if ready is not None:
            ready(address)
        await stopped.wait()
        await listener.stop(DRAIN_S)
    finally:
        tail.close()


def first_model(bundle: Bundle) -> str:
    """The tail that will be asked for: the plan's if it has one, else the whole net's."""
    plan = bundle.plan
    if plan is None or plan.split == bundle.net.last:
        return bundle.manifest.model_name(0, "float32")
    return bundle.manifest.model_name(plan.split, plan.codec)


def _is_loopback(host: str) -> bool:
    """True if only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
