"""What makes a connection secret and its ends known: TLS, both ends' certificates, tokens.

Every file is checked when it is named, and what is wrong is said with the file's name. A server
reads its certificate, its key and its authorities again when they change, from the next handshake
on: so they can be replaced without a restart, and two authorities can stand in one file while one
takes over from the other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from presplit.core.errors import ServerError, SpecError
from presplit.runtime.address import is_loopback, is_secret
from presplit.runtime.wire.gate import HEADER, SCHEME, Gate
from presplit.runtime.wire.lists import check_token
from presplit.runtime.wire.pem import certificates, pair, secret

CURE = "presplit keys makes all of them"


@dataclass(frozen=True)
class Secured:
    """How a server is secured: what `Listener` takes.

    ``credentials`` encrypt, ``gate`` admits; without them the server is open to all who reach it.
    """

    credentials: Any = field(default=None, repr=False)
    gate: Gate | None = None


@dataclass(frozen=True)
class ClientCredentials:
    """How an edge reaches a server over TLS: what `Client` takes.

    ``channel`` is gRPC's credentials of the connection, ``words`` go with every call. Neither shows
    in messages.
    """

    channel: Any = field(repr=False)
    words: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def secured(
    *,
    cert: Path | None = None,
    key: Path | None = None,
    ca: Path | None = None,
    allow: Path | None = None,
    tokens: Path | None = None,
) -> Secured:
    """A server's side of TLS, from PEM files: ``cert`` (with its chain) and its ``key``.

    With ``ca`` every peer must show a certificate of one of these authorities, with a name that
    stands in the file ``allow``; with ``tokens`` every call must carry a token of that file.
    Without any file the server is open. Raises `SpecError` for files that are missing, expired, do
    not belong together, or are given in part.
    """
    if (cert is None) != (key is None):
        raise SpecError(f"a certificate and its key go together: give both; {CURE}")
    if (ca is None) != (allow is None):
        raise SpecError(
            "certificates of edges need their authority (ca) and the list of admitted names "
            f"(allow): give both; {CURE}"
        )
    if cert is None or key is None:
        if ca is not None or tokens is not None:
            raise SpecError(
                f"certificates of edges and tokens work only over TLS: give cert and key; {CURE}"
            )
        return Secured()
    gate = None
    if allow is not None or tokens is not None:
        gate = Gate(allow=allow, tokens_file=tokens)
    return Secured(_Kept(cert, key, ca).credentials(), gate)


def check_reach(host: str, found: Secured, *, insecure: bool) -> None:
    """Raise `ServerError` if others may reach ``host`` and the server is not secured for that."""
    if insecure or is_loopback(host):
        return
    lacks = [
        word
        for word, there in (
            ("TLS (a certificate and its key)", found.credentials is not None),
            (
                "a gate (tokens, or edges' certificates with a list of names)",
                found.gate is not None,
            ),
        )
        if not there
    ]
    if lacks:
        raise ServerError(
            f"{host!r} is no loopback address, so others may reach it, and the server lacks "
            f"{' and '.join(lacks)}: {CURE}; or serve on 127.0.0.1, or pass insecure=True "
            "(--insecure) on a network you trust"
        )


def client_credentials(
    *,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    token: str | None = None,
) -> ClientCredentials:
    """An edge's side of TLS: the authorities ``ca`` that it trusts, else the public ones.

    ``cert`` and ``key`` show the server who it is; ``token`` goes with every call, without
    the blanks and the end of the line that files and variables leave around it. Raises
    `SpecError` as `secured`.
    """
    if (cert is None) != (key is None):
        raise SpecError(f"a certificate and its key go together: give both; {CURE}")
    own = (None, None) if cert is None or key is None else pair(cert, key)
    trusted = None if ca is None else certificates(ca)
    words: tuple[tuple[str, str], ...] = ()
    if token is not None:
        words = ((HEADER, f"{SCHEME.title()}{check_token(token.strip(), 'token')}"),)
    channel: Any = grpc.ssl_channel_credentials(trusted, own[1], own[0])
    return ClientCredentials(channel, words)


def reaching(
    server: str, files: Mapping[str, Path | None], *, token: str | None = None
) -> ClientCredentials | None:
    """How ``server`` is reached with ``files``: ca, cert, key, token_file; None where openly.

    A ``token`` that the environment gives is used where there is TLS, one of a file demands it.
    Raises `SpecError`.
    """
    ca, cert, key = files.get("ca"), files.get("cert"), files.get("key")
    token_file = files.get("token_file")
    encrypted = is_secret(server.partition(",")[0]) or ca is not None or cert is not None
    if not encrypted and token_file is not None:
        raise SpecError(
            f"{token_file}: a token goes over TLS only: say grpcs://{server}, or give the "
            "authorities to trust (--tls-ca)"
        )
    if not encrypted:
        return None
    if token_file is not None:
        token = token_in(token_file)
    return client_credentials(ca=ca, cert=cert, key=key, token=token)


def token_in(path: Path) -> str:
    """The token in the file ``path``, alone on its first line; raises `SpecError`."""
    lines = secret(path).decode("utf-8", "replace").split()
    return check_token(lines[0] if len(lines) == 1 else "", str(path))


def credentials_for(server: str, given: ClientCredentials | None) -> ClientCredentials | None:
    """How to reach ``server``: as ``given``, by public authorities for ``grpcs://``, else openly.

    Raises `SpecError` if the address says ``grpc://`` and credentials are given: they would have
    no use.
    """
    secret_ = is_secret(server)
    if given is not None and secret_ is False:
        raise SpecError(f"{server}: credentials are given and grpc:// uses none; say grpcs://")
    if given is None and secret_:
        return client_credentials()
    return given


class _Kept:
    """A server's certificate, key and authorities, as their files are now."""

    def __init__(self, cert: Path, key: Path, ca: Path | None) -> None:
        self._cert, self._key, self._ca = cert, key, ca
        self._mark = self._seen()
        self._first = self._read()

    def credentials(self) -> Any:
        """What gRPC takes: it asks again at each handshake."""
        made: Any = grpc.dynamic_ssl_server_credentials(
            self._first, self._changed, require_client_authentication=self._ca is not None
        )
        return made

    def _changed(self) -> Any:
        """The new configuration; None if the old one stays."""
        mark = self._seen()
        if mark == self._mark:
            return None
        try:
            found = self._read()
        except SpecError as error:
            # Two files are not replaced in one step; the next handshake looks again.
            logging.getLogger("presplit").warning("%s; what was read before is used", error)
            return None
        self._mark = mark
        return found

    def _read(self) -> Any:
        chain, key = pair(self._cert, self._key)
        authorities = None if self._ca is None else certificates(self._ca)
        made: Any = grpc.ssl_server_certificate_configuration([(key, chain)], authorities)
        return made

    def _seen(self) -> object:
        """What differs when one of the files was written or replaced."""
        found: list[object] = []
        for path in (self._cert, self._key, self._ca):
            try:
                state = path.stat() if path is not None else None
            except OSError:
                state = None
            found.append(state and (state.st_mtime_ns, state.st_size, state.st_ino))
        return found
