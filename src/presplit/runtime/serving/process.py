"""A server's life: it warms up, listens, follows what is on disk, drains, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from presplit import __version__
from presplit.core import units
from presplit.core.errors import ServerError, SpecError
from presplit.runtime.beside import in_thread
from presplit.runtime.http import Http
from presplit.runtime.serving.batching import Crew
from presplit.runtime.serving.catalogue import Catalogue, Change
from presplit.runtime.serving.config import Config
from presplit.runtime.serving.logs import LOGGER, tell
from presplit.runtime.serving.metrics import KIND, Metrics
from presplit.runtime.serving.rest import Rest
from presplit.runtime.serving.served import Door
from presplit.runtime.serving.tally import Tally
from presplit.runtime.wire.credentials import Secured
from presplit.runtime.wire.readiness import Readiness
from presplit.runtime.wire.server import Listener

HTTP_HOST = "127.0.0.1"
"""Where REST listens: nobody else may reach it, because it is not encrypted."""
HTTP_BYTES = 2**20
"""What a request over REST may hold besides what the longest over gRPC holds."""
POLL_S = 0.01
"""While it drains, the server looks so often whether anybody is still inside."""
HOLD_S = 0.1
"""Who asks again after a refusal does so within about this time."""
LAST_S = 0.5
"""What the very last steps may take."""


@dataclass(frozen=True)
class Started:
    """What a server that is ready says of itself.

    ``address`` is HOST:PORT, ``http`` the same of REST or None, ``bundles`` the paths by the first
    part of their models' names, ``models`` the names of all, ``broken`` what is not served and why.
    """

    address: str
    http: str | None
    bundles: Mapping[str, str]
    models: tuple[str, ...]
    broken: Mapping[str, str]

    def path_of(self, model: str) -> str:
        """The path of the bundle that ``model`` is of."""
        return self.bundles[model.rpartition(".from-")[0]]


class Hung(ServerError):
    """The server has ended, but an engine still computes and would not let the process end."""


@dataclass(frozen=True)
class Told:
    """What a server is made of, as far as it can be told of: counts, places, bundles, requests."""

    tally: Tally
    crew: Crew
    catalogue: Catalogue
    door: Door
    missed: Callable[[], int]


def check_http(config: Config, guarded: Secured) -> None:
    """Raise `SpecError` if REST is wanted and cannot tell who calls."""
    if config.http is not None and guarded.gate is not None and config.secure.tokens is None:
        raise SpecError(
            "http: REST sees no certificates, so it cannot tell who calls: give tokens "
            "(--tokens) too, or leave http out"
        )


def _open_many() -> None:
    """As many descriptors as the system allows: a storm of connections takes one each.

    Many systems give 1,024 at first and allow far more to who asks.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Process:
    """A server from its start to its end, on one event loop."""

    def __init__(
        self,
        config: Config,
        guarded: Secured,
        told: Told,
        ready: Callable[[Started], None] | None,
    ) -> None:
        self._config, self._guarded, self._told, self._ready = config, guarded, told, ready
        self._catalogue, self._door = told.catalogue, told.door
        self._readiness = Readiness(ready=False)
        self._stop, self._look, self._hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Warm up, listen, follow what is on disk, and wait for the signal to stop."""
        _open_many()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._look.set)
        http = at = None
        try:
            if self._config.http is not None:
                http = self._http()
                at = await http.start(HTTP_HOST, self._config.http)
            if await self._loaded():
                await self._listen(http, at)
                self._tell_counts()
        finally:
            if http is not None:
                await http.stop(LAST_S)
            await self._close()

    def _end(self) -> None:
        """The first signal ends it, the second at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _loaded(self) -> bool:
        """True when every bundle is warm; False if the signal to stop comes before.

        Raises `PresplitError` if a bundle that was named cannot be served, or none can.
        """
        work = in_thread(self._catalogue.refresh)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._stop.is_set():
            return False
        changes = work.result()
        named = self._catalogue.named
        for change in changes:
            if change.error is not None and change.path in named:
                raise change.error
            _log(change)
        if not self._catalogue.bundles:
            why = "; ".join(change.text for change in changes) or "there are none"
            where = ", ".join(map(str, named))
            raise ServerError(f"{where}: no bundle can be served: {why}")
        return True

    def _http(self) -> Http:
        """REST and metrics: live from the start, ready with the rest."""
        told, gate, metrics = self._told, self._guarded.gate, Metrics()

        def text() -> tuple[bytes, str]:
            catalogue = told.catalogue
            hashes = {key: each.manifest.model_hash for key, each in catalogue.bundles.items()}
            gauges = {
                "inside": told.door.inside,
                "ready": self._readiness.ready,
                "bundles_broken": len(catalogue.broken),
                "log_missed": told.missed(),
            }
            found = metrics.text(
                told.tally.now(), bundles=hashes, gauges=gauges, crew=told.crew.told()
            )
            return found, KIND

        rest = Rest(
            told.door,
            self._readiness,
            told.catalogue.names,
            text,
            told.tally.refuse,
            (lambda header: HTTP_HOST) if gate is None else gate.by_header,
            __version__,
        )
        return Http(rest, most_bytes=HTTP_BYTES)

    async def _listen(self, http: Http | None, at: str | None) -> None:
        """Listen until the signal to stop, then drain."""
        config, catalogue = self._config, self._catalogue
        listener = Listener(
            self._door,
            name="presplit",
            version=__version__,
            credentials=self._guarded.credentials,
            gate=self._guarded.gate,
            names=catalogue.names,
            refused=self._told.tally.refuse,
            knock=self._door.knock,
            readiness=self._readiness,
        )
        catalogue.fix_size()
        if http is not None:
            http.most_bytes = max(HTTP_BYTES, self._door.most_bytes + HTTP_BYTES)
        address = await listener.start(config.host, config.port)
        self._readiness.set(True)
        following = asyncio.create_task(self._follow())
        try:
            tell("ready", f"ready at {address}", address=address, http=at)
            if self._ready is not None:
                self._ready(self._started(address, at))
            await self._stop.wait()
        finally:
            following.cancel()
        await self._drain(listener)

    def _started(self, address: str, http: str | None) -> Started:
        """What is said when it is ready."""
        catalogue = self._catalogue
        return Started(
            address,
            http,
            {key: str(bundle.path) for key, bundle in catalogue.bundles.items()},
            tuple(catalogue.names()),
            {str(path): str(error) for path, error in catalogue.broken.items()},
        )

    async def _follow(self) -> None:
        """Look for bundles that are new or changed, now and then, and at once on SIGHUP."""
        pause = self._config.watch_s or None
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause)
            asked = self._look.is_set()
            self._look.clear()
            try:
                changes = await in_thread(partial(self._catalogue.refresh, settled=not asked))
            # What is on disk may be anything, and what is served must go on whatever it is.
            except Exception as error:
                LOGGER.error("looking for bundles failed: %s", error, exc_info=error)
                continue
            for change in changes:
                _log(change)
            if asked:
                count = len(self._catalogue.bundles)
                served = units.counted(count, "bundle")
                tell("reloaded", f"looked again: serving {served}", bundles=count)
            if not self._stop.is_set():  # once it drains it is never ready again
                self._readiness.set(bool(self._catalogue.bundles))

    async def _drain(self, listener: Listener) -> None:
        """Say that it is not ready, take nothing more, answer whoever is inside, and close."""
        config, began = self._config, time.monotonic()
        tell("stopping", f"stopping with {units.counted(self._door.inside, 'request')} inside")
        self._readiness.set(False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), config.moment_s)
        self._door.shut()
        until = began + config.drain_s
        while self._door.inside and time.monotonic() < until and not self._hurry.is_set():
            await asyncio.sleep(POLL_S)
        if self._door.inside:
            tell(
                "cut_off",
                f"{units.counted(self._door.inside, 'request')} not answered after "
                f"{config.drain_s:g} s",
                level=logging.WARNING,
            )
        # Their replies are on their way; who has been refused and asks again is held meanwhile.
        await listener.hold(HOLD_S, 2 * LAST_S)
        await listener.stop(max(LAST_S, until - time.monotonic()))

    def _tell_counts(self) -> None:
        """Say what was served."""
        counts = self._told.tally.now()
        others = dict(counts.by_why)
        full = others.pop("server", 0)
        half, most = (counts.all_seconds.quantile(q) for q in (0.5, 0.99))
        text = f"ended: {full} answered in full, others: {others or 'none'}"
        if most:
            text += f"; half of the answers within {half:g} s, 99 of 100 within {most:g} s"
        tell("ended", text, requests=counts.by_why, p50_s=half, p99_s=most)

    async def _close(self) -> None:
        """Let go of everything."""

        def let_go() -> None:
            self._catalogue.close()
            self._told.crew.close()

        closing = in_thread(let_go)
        done, _ = await asyncio.wait({closing}, timeout=LAST_S)
        if not done:
            raise Hung("an engine still computes: it is left alone, and the process must be ended")
        closing.result()


def _log(change: Change) -> None:
    """Log what became of a bundle."""
    level = logging.INFO if change.kind in ("loaded", "replaced", "gone") else logging.WARNING
    tell(f"bundle_{change.kind}", change.text, level=level, path=str(change.path))
