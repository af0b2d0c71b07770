"""Whom an edge asks: the servers that were named, each behind a guard, the first of them chosen."""

from __future__ import annotations

from collections.abc import Sequence

from presplit.core.errors import SpecError
from presplit.runtime.address import address_of
from presplit.runtime.upstreams.first_of import FirstOf
from presplit.runtime.upstreams.guard import Guarded
from presplit.runtime.wire.client import Client
from presplit.runtime.wire.credentials import ClientCredentials
from presplit.runtime.wire.words import Words, carried

MOST_SERVERS = 16


def named(server: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses in ``server``: one, several with commas between them, or a list.

    Raises `SpecError` for one of another form, one given twice, none, or too many.

    >>> named("10.0.0.1:8443, 10.0.0.2:8443")
    ('10.0.0.1:8443', '10.0.0.2:8443')
    """
    given = server.split(",") if isinstance(server, str) else list(server)
    found = tuple(one.strip() for one in given)
    places = [address_of(one) for one in found]
    if len(set(places)) < len(places):
        raise SpecError(f"server: expected different addresses, got {', '.join(places)}")
    if not 1 <= len(found) <= MOST_SERVERS:
        raise SpecError(f"server: expected 1 to {MOST_SERVERS} addresses, got {len(found)}")
    return found


def guarded(
    server: str | Sequence[str],
    *,
    patience_s: float,
    credentials: ClientCredentials | None,
    metadata: Words = (),
) -> Guarded | FirstOf:
    """The servers, connecting begun; the arguments are those of `Client`."""
    found, words = named(server), carried(metadata)

    def one(address: str) -> Guarded:
        return Guarded(
            lambda: Client(address, patience_s=patience_s, credentials=credentials, metadata=words),
            address=address_of(address),
            retries=len(found) == 1,  # with several, another one is asked instead
        )

    ups = list[Guarded]()
    try:
        for address in found:
            ups.append(one(address))
    except BaseException:
        for up in ups:
            up.close()
        raise
    return ups[0] if len(ups) == 1 else FirstOf(ups)
