"""Who computes for ``presplit serve``: its own process, or replicas on Ray Serve."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from presplit.cli.options import say
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.plans import Gateway
    from presplit.runtime.hosted import Hosted
    from presplit.runtime.serving.config import Config


@contextlib.contextmanager
def hosting_by(
    config: Config, gateway: Gateway | None
) -> Iterator[Callable[[Bundle], Hosted] | None]:
    """What hosts a bundle, by ``config.engine``; None for the server's own process.

    Raises `SpecError` for what only one of them can do, and what
    `presplit.runtime.serving.ray_app.Cluster` raises.
    """
    if config.engine == "own":
        if config.ray_port is not None:
            raise SpecError("ray_port is of Ray's gRPC ingress: give --engine ray")
        yield None
        return
    if config.forward_to is not None or gateway is not None:
        raise SpecError(
            "--engine ray passes nothing on, and its exits are those of the bundle's plan: leave "
            "out --forward-to and --threshold, or put a gateway of its own process in front"
        )
    from presplit.runtime.serving.ray_app import Cluster, application_of

    with Cluster(
        threads=config.threads,
        keep_bytes=config.keep_bytes,
        replicas=config.replicas,
        ingress=config.ray_port,
        insecure=config.insecure,
    ) as cluster:

        def host(bundle: Bundle) -> Hosted:
            hosted = cluster.host(bundle)
            if config.ray_port is not None:
                say(f"Ray's ingress: port {config.ray_port}, application {application_of(bundle)}")
            return hosted

        yield host


def words_in(texts: list[str]) -> list[tuple[str, str]]:
    """What ``--metadata`` says, as KEY=VALUE each time; raises `SpecError` for another form.

    >>> words_in(["application=digits-1f6b0c2d9a7e"])
    [('application', 'digits-1f6b0c2d9a7e')]
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise SpecError(f"--metadata {text!r}: expected KEY=VALUE, as in application=NAME-HASH")
        found.append((key, value))
    return found
