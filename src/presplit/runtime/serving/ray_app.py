"""The hosted tails on Ray Serve: as many replicas as the load wants, on one machine or on many.

What an edge reaches stays our own listener, with its limits, its encryption and its tokens: whoever
reaches a port of Ray's may run code there, so those stay between the machines of the cluster. The
listener asks replicas through a handle; what came from an edge was checked before, and travels as
an array, so nothing that an edge sent is ever unpickled. Every queue and every time is bounded,
which Ray's own defaults are not.

Where a cluster has its own proxy in front, Ray's gRPC ingress may be opened too: it speaks the same
protocol, on every address of the machine and without encryption.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from concurrent.futures import Future
from typing import Any, Self

from presplit.bundle import Bundle, read
from presplit.core.errors import EngineError, InputError, ServerError, SpecError, library
from presplit.runtime.doors import check_threads
from presplit.runtime.hosted import (
    Array,
    Contract,
    Early,
    Hosted,
    Overloaded,
    Reply,
    TooLate,
    UnknownModel,
)
from presplit.runtime.serving.batching import Crew
from presplit.runtime.serving.server import exits_of, hosting
from presplit.runtime.serving.tail import Tails
from presplit.runtime.wire.ingress import Calls, Raw

INGRESS = "presplit.runtime.wire.ingress.add_to_server"
"""What adds the protocol's calls to Ray's gRPC ingress, by name, as Ray asks for it."""
BUSY = 8
"""Requests inside a replica at once that the number of replicas is steered by."""
ONGOING = 2 * BUSY
"""Requests inside a replica at once, at most."""
UP_S, DOWN_S = 5.0, 120.0
"""So long it must be busy, or idle, until there are more replicas, or fewer."""
QUEUED = 256
"""Requests that wait for a replica at once, at most: one more is refused."""
REQUEST_S = 10.0
"""What any request may take, whatever its caller would wait."""
STOP_S = 10.0
"""How long a replica that goes may finish what it has begun."""
START_S = 120.0
"""How long the first replica may take to be there."""

FAILURES: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UnknownModel, InputError, Overloaded, TooLate, EngineError)
}
"""What a replica says instead of a reply, by name: no exception is sent, and none unpickled."""


class Replica:
    """One copy of a bundle's tails, in a process that Ray starts and ends.

    ``path`` is that of the bundle, on every machine of the cluster; ``model_hash`` is the one that
    it must have there. It answers with ``(failure, reply)``: one of `FAILURES` with its text, or an
    array, or an exit's array with the exit's name and why.
    """

    def __init__(self, path: str, model_hash: str, threads: int, keep_bytes: float | None) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # not a line for each request
        bundle = read(path)
        if bundle.manifest.model_hash != model_hash:
            raise ServerError(
                f"{path}: expected the model {model_hash[:12]}, got "
                f"{bundle.manifest.model_hash[:12]}; copy the bundle to all machines of the cluster"
            )
        # Ray bounds what is inside, and gives as many processors as one engine uses.
        self._hosted = hosting(
            bundle,
            threads=threads,
            keep_bytes=keep_bytes,
            crew=Crew(1),
            thresholds=exits_of(bundle, None),
        )
        self._calls: Calls | None = None

    async def warm(self, name: str) -> tuple[Any, ...]:
        """Make the model ``name`` ready."""
        return await _said(self._hosted.warm, name)

    async def run(self, name: str, array: Array, left_s: float, client: str) -> tuple[Any, ...]:
        """What the model gives for ``array``, which is worthless after ``left_s`` seconds."""
        until = time.monotonic() + left_s
        return await _said(self._hosted.run, name, array, until=until, client=client)

    async def ServerLive(self, raw: bytes, grpc_context: Any) -> Raw:
        """The protocol's call of this name, from Ray's gRPC ingress; so are those that follow."""
        return await self._answer("ServerLive", raw, grpc_context)

    async def ServerReady(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ServerReady", raw, grpc_context)

    async def ServerMetadata(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ServerMetadata", raw, grpc_context)

    async def ModelReady(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ModelReady", raw, grpc_context)

    async def ModelMetadata(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ModelMetadata", raw, grpc_context)

    async def ModelConfig(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ModelConfig", raw, grpc_context)

    async def ModelInfer(self, raw: bytes, grpc_context: Any) -> Raw:
        """See `ServerLive`."""
        return await self._answer("ModelInfer", raw, grpc_context)

    async def _answer(self, call: str, raw: bytes, context: Any) -> Raw:
        if self._calls is None:  # made here, on the loop that answers
            self._calls = Calls(self._hosted, within_s=REQUEST_S)
        return await self._calls.answer(call, raw, context)


async def _said(ask: Any, *arguments: Any, **options: Any) -> tuple[Any, ...]:
    """What comes of ``ask``, in plain values."""
    try:
        reply = await asyncio.wrap_future(ask(*arguments, **options))
    except tuple(FAILURES.values()) as error:
        return (type(error).__name__, str(error))
    if isinstance(reply, Early):
        return ("", reply.logits, reply.exit, reply.why)
    return ("", reply)


def _reply(said: tuple[Any, ...]) -> Reply:
    """What a replica ``said``; raises what it failed with."""
    failure, *rest = said
    if failure:
        raise FAILURES[failure](*rest)
    return Early(*rest) if len(rest) > 1 else rest[0]


class OnRay:
    """Tails that replicas on Ray compute: `presplit.runtime.hosted.Hosted`.

    ``handle`` is Ray's to the replicas; ``stop`` is called at the end.
    """

    def __init__(self, bundle: Bundle, handle: Any, stop: Any) -> None:
        self._tails, self._handle, self._stop = Tails(bundle), handle, stop
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ray", daemon=True)
        self._thread.start()

    @property
    def most_bytes(self) -> int:
        """The largest request that any tail takes, in bytes of its array."""
        return self._tails.most_bytes

    def contract(self, name: str) -> Contract:
        """What the tail ``name`` takes and gives; raises `UnknownModel`."""
        return self._tails.contract(name)

    def warm(self, name: str) -> Future[None]:
        """Done when a replica has run the tail ``name`` once; raises `UnknownModel`."""
        self._tails.contract(name)
        return self._do(self._warm(name))

    def run(
        self, name: str, array: Array, *, until: float | None, client: str = ""
    ) -> Future[Reply]:
        """The logits for ``array``; raises as `presplit.runtime.hosted.Hosted` says."""
        self._tails.contract(name).input.check(array)
        left_s = REQUEST_S if until is None else min(REQUEST_S, until - time.monotonic())
        if left_s <= 0:
            raise TooLate("the deadline passed before the request's turn came")
        return self._do(self._run(name, array, left_s, client))

    def close(self) -> None:
        """Let the replicas finish, and end what was started for them."""
        self._stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _warm(self, name: str) -> None:
        _reply(await self._asked(self._handle.warm.remote(name), START_S))

    async def _run(self, name: str, array: Array, left_s: float, client: str) -> Reply:
        return _reply(
            await self._asked(self._handle.run.remote(name, array, left_s, client), left_s)
        )

    async def _asked(self, response: Any, left_s: float) -> tuple[Any, ...]:
        """What a replica says, within ``left_s``; Ray's own failures in our words."""
        refusals: Any = library("ray.serve.exceptions", need="serving on Ray", extra="ray")
        try:
            return await asyncio.wait_for(response, left_s)
        except TimeoutError as error:
            raise TooLate("no replica answered within the deadline") from error
        except refusals.BackPressureError as error:
            raise Overloaded("all replicas are at their limit; ask again later") from error
        except refusals.RayServeException as error:
            raise EngineError(f"no replica can answer ({type(error).__name__})") from error


class Cluster:
    """Ray, joined or started, which hosts bundles; ended by `close`, or by ``with``.

    The cluster is the one that ``RAY_ADDRESS`` names, which ``RAY_AUTH_TOKEN`` must open; without
    that one is started on this machine, with a token of its own. Ray listens on every address of
    its machines, whatever it is told, so a cluster that is started here must be asked for as
    ``insecure``, unless Ray's own TLS is on (``RAY_USE_TLS=1``).

    A bundle gets from one to ``replicas`` replicas, as the load wants, each with as many processors
    as an engine has ``threads``; ``keep_bytes`` is as in `presplit.runtime.serving.server.hosting`,
    for each. With a port as ``ingress`` Ray's own gRPC ingress listens there too, for every bundle:
    a call says by the metadata ``application`` which one it means (`application_of`), where there
    are several.

    Raises `MissingLibrary` without Ray, `SpecError` for numbers out of their range, `ServerError`
    if Ray does not start.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        keep_bytes: float | None = None,
        replicas: int = 2,
        ingress: int | None = None,
        insecure: bool = False,
    ) -> None:
        check_threads(threads)
        if replicas < 1:
            raise SpecError(f"replicas must be at least 1, got {replicas}")
        self._joined = bool(os.environ.get("RAY_ADDRESS"))
        _check_reach(joined=self._joined, ingress=ingress, insecure=insecure)
        _safe(joined=self._joined)
        self._threads, self._keep_bytes, self._replicas = threads, keep_bytes, replicas
        self._ingress = ingress
        self._ray: Any = library("ray", need="serving on Ray", extra="ray")
        self._serve: Any = library("ray.serve", need="serving on Ray", extra="ray")
        try:
            _join(self._ray, joined=self._joined)
            _start(self._serve, ingress)
        except Exception as error:  # Ray's own share no class
            self.close()
            raise ServerError(f"Ray does not start, or lets nobody in ({_first(error)})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, bundle: Bundle) -> Hosted:
        """The tails of ``bundle`` on replicas; its path must be the same on every machine.

        Raises `ServerError` if no replica comes to be.
        """
        name = application_of(bundle)
        deployment = self._serve.deployment(
            Replica,
            name="tails",
            max_ongoing_requests=ONGOING,
            max_queued_requests=QUEUED,
            graceful_shutdown_timeout_s=STOP_S,
            ray_actor_options={"num_cpus": self._threads},
            autoscaling_config={
                "min_replicas": 1,
                "max_replicas": self._replicas,
                "target_ongoing_requests": BUSY,
                "upscale_delay_s": UP_S,
                "downscale_delay_s": DOWN_S,
            },
        )
        path, model_hash = str(bundle.path.absolute()), bundle.manifest.model_hash
        made = deployment.bind(path, model_hash, self._threads, self._keep_bytes)
        try:
            # Its ingress passes gRPC on by the same routes as HTTP, and without one to nobody.
            route = None if self._ingress is None else f"/{name}"
            handle = self._serve.run(made, name=name, route_prefix=route)
        except Exception as error:  # Ray's own share no class
            with contextlib.suppress(Exception):
                self._serve.delete(name)
            raise ServerError(
                f"{bundle.path}: no replica came to be on Ray ({_first(error)})"
            ) from error
        return OnRay(bundle, handle, lambda: self._delete(name))

    def close(self) -> None:
        """End a cluster that was started here, and leave one that was joined."""
        self._ray.shutdown()

    def _delete(self, name: str) -> None:
        """Have Ray end an application, after the requests that are inside it."""
        if not self._ray.is_initialized():  # it would start anew to be told so
            return
        with contextlib.suppress(Exception):  # where Ray is gone, so is that
            self._serve.delete(name, _blocking=False)


def application_of(bundle: Bundle) -> str:
    """What a bundle's application is called on Ray: NAME-HASH12, as its models' names begin."""
    return bundle.manifest.model_name(0, "float32").partition(".")[0]


def _check_reach(*, joined: bool, ingress: int | None, insecure: bool) -> None:
    """Raise `ServerError` if others could reach ports that nobody spoke of."""
    if insecure or (os.environ.get("RAY_USE_TLS") == "1" and ingress is None):
        return
    if ingress is not None:
        raise ServerError(
            f"Ray's gRPC ingress listens on port {ingress} of every address, without TLS or "
            "tokens: leave it out, or pass insecure=True (--insecure) on a network you trust"
        )
    if not joined:
        raise ServerError(
            "Ray opens ports on every address of this machine, behind a token but without TLS: "
            "name a cluster of yours by RAY_ADDRESS, turn on Ray's own TLS (RAY_USE_TLS=1), or "
            "pass insecure=True (--insecure) behind a firewall or on a network you trust"
        )


def _safe(*, joined: bool) -> None:
    """Settings that Ray reads as it is imported or started: quiet, to itself, nobody let in."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"] = "token"
    if not joined and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        # In the environment of this process and its children alone, and gone with them.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _join(ray: Any, *, joined: bool) -> None:
    """Connect to the user's cluster, or start one on this machine."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not joined:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "dashboard_host": "127.0.0.1",
            # Ray takes 127.0.0.1 for a slip and puts the machine's outer address in its place.
            "_node_ip_address": "127.0.0.2",
        }
    ray.init(**options)


def _start(serve: Any, ingress: int | None) -> None:
    """Start Ray Serve, with its gRPC ingress on the port ``ingress`` or without any proxy."""
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    options: dict[str, Any] = {"proxy_location": "Disabled", "logging_config": quiet}
    if ingress is not None:
        options |= {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": 0, "request_timeout_s": REQUEST_S},
            "grpc_options": {
                "port": ingress,
                "grpc_servicer_functions": [INGRESS],
                "request_timeout_s": REQUEST_S,
                "enable_reflection": False,
            },
        }
    own = logging.getLogger("ray.serve")
    # It would write to standard error, among the server's own lines; `OnRay` tells what fails.
    own.disabled = True
    serve.start(**options)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
