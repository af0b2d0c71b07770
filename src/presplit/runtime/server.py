"""The tail server: a bundle's tails behind the Open Inference Protocol, in one process.

With a server to forward to it is a gateway (`presplit.runtime.gateway`).

SIGTERM or SIGINT ends it after the requests that are being answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from presplit import __version__
from presplit.bundle import Bundle, read
from presplit.core.errors import PlanError
from presplit.core.plans import Gateway, Plan
from presplit.runtime.admission import PLACES_PER_WORKER, admitted
from presplit.runtime.batching import Crew, batched
from presplit.runtime.doors import check_keep_bytes, check_threads
from presplit.runtime.echo import echoing
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.gateway import (
    Forwarding,
    check_not_itself,
    check_same_net,
    what_it_does,
)
from presplit.runtime.head import fits, own_plan
from presplit.runtime.hosted import Hosted
from presplit.runtime.tail import Tails, workers_for
from presplit.runtime.upstream import Upstream
from presplit.runtime.wire.client import Client
from presplit.runtime.wire.credentials import ClientCredentials, Secured, check_reach
from presplit.runtime.wire.server import Listener

DRAIN_S = 10.0
"""How long requests that are being answered may take after the signal to stop."""
PATIENCE_S = 2.0
"""A gateway gives a connection to the next server up that is silent for so long."""


def hosting(
    bundle: Bundle,
    *,
    threads: int = 1,
    keep_bytes: float | None = None,
    load: Load = ENGINES[DEFAULT],
    crew: Crew | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> Hosted:
    """The tails of ``bundle`` as a server hosts them: admitted, batched, on a pool of threads.

    ``threads`` is what one engine uses, ``keep_bytes`` bounds the models that are kept as engines
    (`presplit.runtime.kept.enough`, if None), ``load`` makes the engines. ``crew`` computes, for
    several bundles if they are given the same; its maker closes it. An exit that ``thresholds``
    names answers from the least score that it gives there, for a request that enters before it.
    With `presplit.runtime.upstream.InProcess` an edge asks it without any network. Raises
    `SpecError` if a number is out of its range, `PlanError` if there is no such exit.
    """
    check_threads(threads)
    check_keep_bytes(keep_bytes)
    policy = own_plan(bundle).policy
    if thresholds:
        fits(Plan(bundle.net.last, dict(thresholds), policy=policy), bundle)
    tails = Tails(
        bundle,
        threads=threads,
        keep_bytes=keep_bytes,
        load=load,
        thresholds=thresholds,
        policy=policy,
    )
    return batched(tails, crew or Crew(workers_for(threads)), closes=crew is None)


def exits_of(bundle: Bundle, given: Gateway | None) -> dict[str, float]:
    """The thresholds of the exits that answer on a server which passes nothing on.

    They are those of what is ``given``, else of the bundle's own plan if that has the server
    compute to the end. Raises `PlanError` if ``given`` would pass something on.
    """
    last = bundle.net.last
    if given is None:
        planned = None if bundle.plan is None else bundle.plan.gateway
        return {} if planned is None or planned.split != last else planned.thresholds
    if given.split != last:
        raise PlanError(
            f"gateway.split is {given.split}, so the rest is passed on, and there is nobody to "
            f"pass it on to: give forward_to (--forward-to HOST:PORT), or the split {last}"
        )
    return given.thresholds


def forwarding(
    bundle: Bundle,
    upstream: Upstream,
    *,
    does: Gateway,
    threads: int = 1,
    keep_bytes: float | None = None,
    load: Load = ENGINES[DEFAULT],
) -> tuple[Hosted, Forwarding]:
    """A gateway with ``bundle`` as a server hosts it, and the same without admission.

    The other arguments are those of `hosting`. The caller closes ``upstream``.
    """
    check_threads(threads)
    check_keep_bytes(keep_bytes)
    workers = workers_for(threads)
    places = workers * PLACES_PER_WORKER
    tails = Tails(bundle, threads=threads, keep_bytes=keep_bytes, load=load)
    gateway = Forwarding(
        batched(tails, Crew(workers, places=places), closes=True),
        tails,
        bundle,
        does,
        upstream,
        threads=threads,
        workers=places,
        load=load,
    )
    return admitted(gateway, places), gateway


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
    forward_to: str | None = None,
    gateway: Gateway | None = None,
    secured: Secured | None = None,
    forward_credentials: ClientCredentials | None = None,
) -> None:
    """Serve ``bundle`` (or its path) until SIGTERM or SIGINT.

    ``ready`` is told ``HOST:PORT`` once it listens: after the tail that the bundle's plan wants
    (else the whole net) has run once. ``threads``, ``keep_bytes`` and ``load`` are as in
    `hosting`. Must be called on the main thread, where signals arrive.

    With the address of a next server, ``forward_to`` (``HOST:PORT``), it is a gateway, which
    computes up to a second split and asks that server for the rest, as ``gateway`` says, or the
    bundle's own plan; ``forward_credentials`` are how it is reached over TLS.

    ``secured`` (`presplit.runtime.wire.credentials.secured`) encrypts and says who may come in.

    Raises `SpecError` for numbers out of their range and a gateway that forwards to itself,
    `PlanError` if the bundle's own plan, or what the gateway should do, does not fit it,
    `ServerError` if the next server has another net, or if the address cannot be had, or is not a
    loopback one and it is neither secured by TLS and a gate, nor is ``insecure`` set: a server
    that is open to all who reach it must be asked for in so many words.
    """
    secured = secured or Secured()
    check_reach(host, secured, insecure=insecure)
    found = bundle if isinstance(bundle, Bundle) else read(bundle)
    if found.plan is not None:
        fits(found.plan, found)
    first = first_model(found, forwards=forward_to is not None)
    with contextlib.ExitStack() as closing:
        if forward_to is None:
            hosted = hosting(
                found,
                threads=threads,
                keep_bytes=keep_bytes,
                load=load,
                thresholds=exits_of(found, gateway),
            )
        else:
            does = what_it_does(found, gateway)
            check_not_itself(forward_to, host, port)
            client = Client(forward_to, patience_s=PATIENCE_S, credentials=forward_credentials)
            closing.callback(client.close)
            hosted, passing = forwarding(
                found, client, does=does, threads=threads, keep_bytes=keep_bytes, load=load
            )
            check_same_net(passing.sending, forward_to)
        asyncio.run(_serve(echoing(hosted), first, secured, host=host, port=port, ready=ready))


async def _serve(
    hosted: Hosted,
    first: str,
    secured: Secured,
    *,
    host: str,
    port: int,
    ready: Callable[[str], None] | None,
) -> None:
    """Warm up, listen, and wait for the signal to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        if not await _warmed(hosted, first, stopped):
            return
        listener = Listener(
            hosted,
            name="presplit",
            version=__version__,
            credentials=secured.credentials,
            gate=secured.gate,
        )
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


def first_model(bundle: Bundle, *, forwards: bool = False) -> str:
    """The tail that will be asked for: the plan's if it has one, else the whole net's.

    Where the plan has a gateway, one that ``forwards`` is asked by the edge, the other by that.
    """
    plan, last = bundle.plan, bundle.net.last
    if plan is None or plan.split == last:
        return bundle.manifest.model_name(0, "float32")
    second = plan.gateway
    if second is not None and second.split < last and not forwards:
        return bundle.manifest.model_name(second.split, second.codec, second.server_form)
    return bundle.manifest.model_name(plan.split, plan.codec, plan.server_form)
