"""Addresses as people write them: which are this machine's own, and what gRPC takes."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from presplit.core.errors import SpecError


def bare(host: str) -> str:
    """``host`` without the brackets in which an IPv6 address stands before a port.

    >>> bare("[::1]"), bare("::1"), bare("localhost")
    ('::1', '::1', 'localhost')
    """
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    return host


def joined(host: str, port: int) -> str:
    """``HOST:PORT``, in brackets where the host holds colons itself.

    >>> joined("::1", 8443), joined("127.0.0.1", 8443)
    ('[::1]:8443', '127.0.0.1:8443')
    """
    host = bare(host)
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """True if only this machine can reach ``host``: a numeric address or ``localhost``.

    No name is looked up: what a name stands for may change.

    >>> [is_loopback(host) for host in ("[::1]", "127.8.9.10", "LOCALHOST", "::ffff:127.0.0.1")]
    [True, True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.com", "")]
    [False, False, False, False, False]
    """
    host = bare(host)
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python knows an IPv4 address inside an IPv6 one by itself from 3.13 on.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_here(host: str, origin: str | None) -> bool:
    """True if ``host`` is this machine's own, and ``origin`` that very address: no other page asks.

    A request's ``Host`` and ``Origin``; ``origin`` is None where there is none, as programs that
    are no browser send it. A page of another port of this machine is another one: whoever runs
    it, what it shows may come from the web. Raises ValueError for what is no address at all.

    >>> is_here("localhost:80", None), is_here("localhost:80", "http://localhost:80")
    (True, True)
    >>> is_here("localhost:80", "http://localhost:9"), is_here("example.com", None)
    (False, False)
    """
    name = urlsplit(f"//{host}").hostname
    if origin is None:
        return is_loopback(name or "")
    asking = urlsplit(origin)
    is_same = (asking.scheme, asking.netloc.lower()) == ("http", host.lower())
    return is_same and is_loopback(name or "")


def address_of(server: str) -> str:
    """``HOST:PORT`` of ``server``; raises `SpecError` if it is of another form.

    >>> address_of("grpc://127.0.0.1:8001"), address_of("[::1]:8443")
    ('127.0.0.1:8001', '[::1]:8443')
    >>> address_of("https://example.com")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: server must be HOST:PORT, grpcs://HOST:PORT or \
grpc://HOST:PORT, got 'https://example.com'
    """
    host = r"[\w.-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]"
    found = re.fullmatch(rf"(?:grpcs?://)?((?:{host}):(\d{{1,5}}))/?", server, re.ASCII | re.I)
    if found is None or not 1 <= int(found[2]) <= 65535:
        cure = ""
        if re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:\d+", server):
            cure = "; an IPv6 address stands in brackets, as in [::1]:8443"
        raise SpecError(
            f"server must be HOST:PORT, grpcs://HOST:PORT or grpc://HOST:PORT, got {server!r}{cure}"
        )
    return found[1]


def is_secret(server: str) -> bool | None:
    """True if the address asks for TLS, False if it asks for none, None if it says nothing.

    >>> is_secret("grpcs://h:1"), is_secret("grpc://h:1"), is_secret("h:1")
    (True, False, None)
    """
    scheme, there, _ = server.partition("://")
    return scheme.lower() == "grpcs" if there else None


def why_not(host: str, port: int) -> str:
    """Why nothing can listen there, in the system's words: gRPC does not say."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(
            bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as tried:
                # As gRPC's own: a port that is waiting to be free is free.
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(place)
                tried.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "gRPC refused the address"
