"""The tail server: the tails of bundles behind the Open Inference Protocol, in one process.

With a server to forward to it is a gateway (`presplit.runtime.serving.gateway`).

SIGTERM or SIGINT ends it after all requests that are inside, waiting or computed, are answered;
SIGHUP makes it look for bundles that are new or changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from presplit.bundle import Bundle, read
from presplit.core.errors import PlanError, SpecError
from presplit.core.plans import Gateway, Plan
from presplit.core.types import Floats
from presplit.runtime.doors import check_keep_bytes, check_threads
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.head import fits, own_plan
from presplit.runtime.hosted import Hosted, Reply
from presplit.runtime.serving.admission import PLACES_PER_WORKER, admitted
from presplit.runtime.serving.batching import Crew, batched
from presplit.runtime.serving.catalogue import Catalogue, Source
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.echo import echoing
from presplit.runtime.serving.gateway import (
    Forwarding,
    check_not_itself,
    check_same_net,
    next_server,
    what_it_does,
)
from presplit.runtime.serving.golden import prove
from presplit.runtime.serving.logs import logging_to, stream_for
from presplit.runtime.serving.process import Process, Started, Told, check_http
from presplit.runtime.serving.served import Door, Served, Watcher
from presplit.runtime.serving.tail import Tails, workers_for
from presplit.runtime.serving.tally import Tally, Timed
from presplit.runtime.upstream import Upstream
from presplit.runtime.watching import Watching
from presplit.runtime.wire.credentials import check_reach, reaching, secured

DEFAULTS = Config()


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
    (`presplit.runtime.serving.kept.enough`, if None), ``load`` makes the engines. ``crew``
    computes, for several bundles if given the same; its maker closes it. An exit in
    ``thresholds`` answers from the score that stands there on, for a request that enters before it.
    With `presplit.runtime.upstream.InProcess` an edge asks it without any network. Raises
    `SpecError` if a number is out of its range, `PlanError` if there is no such exit.
    """
    tails = _tails(
        bundle, threads=threads, keep_bytes=keep_bytes, load=load, thresholds=thresholds or {}
    )
    return batched(tails, crew or Crew(workers_for(threads)), closes=crew is None)


def _tails(
    bundle: Bundle,
    *,
    threads: int,
    keep_bytes: float | None,
    load: Load,
    thresholds: Mapping[str, float],
) -> Tails:
    """The tails of ``bundle``, as `hosting` says."""
    check_threads(threads)
    check_keep_bytes(keep_bytes)
    policy = own_plan(bundle).policy
    if thresholds:
        fits(Plan(bundle.net.last, dict(thresholds), policy=policy), bundle)
    return Tails(
        bundle,
        threads=threads,
        keep_bytes=keep_bytes,
        load=load,
        thresholds=thresholds,
        policy=policy,
    )


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
    bundles: Source | Sequence[Source],
    config: Config = DEFAULTS,
    *,
    ready: Callable[[Started], None] | None = None,
    load: Load = ENGINES[DEFAULT],
    gateway: Gateway | None = None,
    watch: Watcher | None = None,
    told: Callable[[Told], None] | None = None,
    host: Callable[[Bundle], Hosted] | None = None,
) -> None:
    """Serve ``bundles`` as ``config`` says until SIGTERM or SIGINT.

    Each is a bundle, its path, or the path of a folder of bundles; those that come, change or go
    while it runs are followed, at once on SIGHUP. Must be called on the main thread, where signals
    arrive. ``ready`` is called once it listens: after every bundle has run once and said what it
    should of the golden input. ``watch`` is told of every request, on a thread of its own
    (`presplit.runtime.serving.served`); ``told`` is given what the server is made of. With
    ``config.forward_to`` it is a gateway, which computes up to a second split and asks that server
    for the rest, as ``gateway`` says, or the bundle's own plan. ``host`` hosts one bundle, if not
    this process does.

    Raises `SpecError` for numbers out of their range and a gateway that forwards to itself,
    `BundleError` for a bundle that was named and cannot be read, `PlanError` if its own plan, or
    what the gateway should do, does not fit it, `ServerError` if no bundle can be served, if the
    next server has another net, or if the address cannot be had, or is not a loopback one and it is
    neither secured by TLS and a gate, nor ``config.insecure`` set: a server that is open to all who
    reach it must be asked for in so many words. Raises `Hung` if it ended while it still computes.
    """
    sources = [bundles] if isinstance(bundles, Bundle | str | Path) else list(bundles)
    _check_sources(sources, config)
    check_threads(config.threads)
    guarded = secured(**config.secure.paths)
    check_reach(config.host, guarded, insecure=config.insecure)
    check_http(config, guarded)
    tally = Tally()
    with contextlib.ExitStack() as closing:
        missed = closing.enter_context(
            logging_to(stream_for(config.log), as_json=config.log == "json")
        )
        crew = Crew(
            _workers(config),
            joined=config.batch,
            wait_s=config.batch_wait_s,
            places=config.places,
            waited=tally.waited,
        )
        timed = Timed(load, tally)
        made = partial(_made, gateway, crew, config=config, load=timed)
        if host is not None:
            made = partial(_made_elsewhere, host, load=timed)
        if config.forward_to is not None:
            check_not_itself(config.forward_to, config.host, config.port)
            known = reaching(config.forward_to, config.forward.paths)
            client = next_server(config.forward_to, known)
            closing.callback(client.close)
            made = partial(_made_gateway, client, gateway, config=config, load=timed)
        limit = None if config.most_mb is None else int(config.most_mb * 10**6)
        reads = config.reader()
        catalogue = Catalogue(sources, made, most_bytes=limit, reads=reads, taken=reads.taken)
        watchers: list[Watcher] = [tally]
        if watch is not None:
            watching = Watching(watch)
            closing.callback(watching.close)
            watchers.append(watching.see)
        door = Door(echoing(catalogue), partial(_tell, watchers), crew.book.knock)
        made_of = Told(tally, crew, catalogue, door, missed)
        if told is not None:
            told(made_of)
        asyncio.run(Process(config, guarded, made_of, ready).run())


def _tell(watchers: Sequence[Watcher], served: Served) -> None:
    """Tell every watcher of a request."""
    for watch in watchers:
        watch(served)


def _workers(config: Config) -> int:
    """How many engines run at once."""
    return config.workers or workers_for(config.threads)


def _made(
    given: Gateway | None, crew: Crew, bundle: Bundle, *, config: Config, load: Load
) -> Hosted:
    """``bundle`` on ``crew``, warmed and proved; the exits answer that are ``given``."""
    _check_plan(bundle)
    tails = _tails(
        bundle,
        threads=config.threads,
        keep_bytes=config.keep_bytes,
        load=load,
        thresholds=exits_of(bundle, given),
    )
    first = first_model(bundle)
    # By hand and not by the crew: those that are served meanwhile do not wait for it.
    prove(partial(tails.run, until=None), bundle, load, split=first.split, form=first.form)
    tails.warm(first.name)
    return batched(tails, crew)


def _made_elsewhere(host: Callable[[Bundle], Hosted], bundle: Bundle, *, load: Load) -> Hosted:
    """``bundle`` as ``host`` hosts it, warmed and proved."""
    _check_plan(bundle)
    hosted, first = host(bundle), first_model(bundle)

    def run(name: str, values: Floats) -> Reply:
        return hosted.run(name, values, until=None).result()

    try:
        hosted.warm(first.name).result()
        prove(run, bundle, load, split=first.split, form=first.form)
    except BaseException:
        hosted.close()
        raise
    return hosted


def _made_gateway(
    upstream: Upstream, given: Gateway | None, bundle: Bundle, *, config: Config, load: Load
) -> Hosted:
    """``bundle`` as a gateway to ``upstream``, warmed."""
    _check_plan(bundle)
    hosted, gateway = forwarding(
        bundle,
        upstream,
        does=what_it_does(bundle, given),
        threads=config.threads,
        keep_bytes=config.keep_bytes,
        load=load,
    )
    try:
        assert config.forward_to is not None, "a gateway has a server to forward to"
        check_same_net(gateway.sending, config.forward_to)
        gateway.warm(first_model(bundle, forwards=True).name).result()
    except BaseException:
        hosted.close()
        raise
    return hosted


def _check_plan(bundle: Bundle) -> None:
    if bundle.plan is not None:
        fits(bundle.plan, bundle)


def _check_sources(sources: Sequence[Source], config: Config) -> None:
    """Raise `SpecError` unless there is something to serve, and one bundle for a gateway."""
    if not sources:
        raise SpecError("bundles: give one at least: a bundle, or a folder of bundles")
    if config.forward_to is not None and len(sources) > 1:
        raise SpecError(
            f"bundles: a gateway has one bundle, got {len(sources)}; start one for each"
        )
    for source in sources:
        if not isinstance(source, Bundle) and not Path(source).is_dir():
            read(source)  # says what is wrong


@dataclass(frozen=True)
class First:
    """The model that will be asked for first."""

    name: str
    split: int
    form: str


def first_model(bundle: Bundle, *, forwards: bool = False) -> First:
    """The tail that will be asked for: the plan's if it has one, else the whole net's.

    Where the plan has a gateway, one that ``forwards`` is asked by the edge, the other by that.
    """
    plan, last = bundle.plan, bundle.net.last
    name = bundle.manifest.model_name
    if plan is None or plan.split == last:
        return First(name(0, "float32"), 0, "float32")
    second = plan.gateway
    if second is not None and second.split < last and not forwards:
        called = name(second.split, second.codec, second.server_form)
        return First(called, second.split, second.server_form)
    return First(name(plan.split, plan.codec, plan.server_form), plan.split, plan.server_form)
