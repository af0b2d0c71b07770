"""``presplit health``: whether a server, or an edge that answers over HTTP, is ready."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from presplit.cli.options import Json, show
from presplit.cli.secure import TOKEN, EdgeCa, TlsCert, TlsKey, TokenFile, edge_with
from presplit.core import units
from presplit.core.errors import ServerError, SpecError

READY_PATH = "/v2/health/ready"
"""Where a server's REST says it; an edge's port says it wherever it is asked."""


def health(
    address: Annotated[
        str,
        typer.Argument(
            help="HOST:PORT or grpcs://HOST:PORT of presplit serve, or http://127.0.0.1:PORT of "
            "its --http and of presplit run --http."
        ),
    ] = "127.0.0.1:8443",
    within: Annotated[
        str, typer.Option(metavar="TIME", help="It must say so within so long.")
    ] = "3s",
    tls_ca: EdgeCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Ask a server, or an edge with --http, whether it is ready: exit code 0 if so, else 1.

    It is what keepers of containers and services run now and then.
    """
    within_s = units.number(within, units.SECONDS, "--within")
    if not within_s > 0:
        raise SpecError(f"--within: expected a time above 0, got {within}")
    try:
        if address.startswith(("http://", "https://")):
            ready = _over_http(address, within_s, token_file)
        else:
            ready = _over_grpc(address, within_s, tls_ca, tls_cert, tls_key, token_file)
        problem = "" if ready else "it says that it is not ready"
    except ServerError as error:
        problem = _advised(str(error))
    text = f"{address} is ready" if not problem else f"{address} is not ready: {problem}"
    show({"address": address, "ready": not problem, "problem": problem}, text, as_json=json)
    if problem:
        raise typer.Exit(1)


def _over_grpc(
    address: str,
    within_s: float,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
) -> bool:
    """What the server at ``address`` says to gRPC's own health call."""
    credentials = edge_with(
        address, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, token_file=token_file
    )
    from presplit.runtime.wire.checking import is_serving

    return is_serving(address, within_s=within_s, credentials=credentials)


def _over_http(address: str, within_s: float, token_file: Path | None) -> bool:
    """Whether 200 comes from there; raises `ServerError` if nothing does."""
    from presplit.runtime.address import is_loopback

    url = urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if url.scheme != "http" or not host or port is None or not is_loopback(host):
        raise SpecError(
            f"expected http://127.0.0.1:PORT, got {address}: HTTP is for this machine alone, and "
            "elsewhere grpcs://HOST:PORT is asked"
        )
    connection = http.client.HTTPConnection(host, port, timeout=within_s)
    try:
        headers = _token(token_file)
        connection.request("GET", url.path.rstrip("/") or READY_PATH, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if status == 401:
        raise ServerError("it wants a token that it knows: give it with --token-file")
    return status == 200


def _token(file: Path | None) -> dict[str, str]:
    """The header that carries an edge's token, if it has one; nothing leaves this machine."""
    token = os.environ.get(TOKEN)
    if file is not None:
        from presplit.runtime.wire.credentials import token_in

        token = token_in(file)
    return {"Authorization": f"Bearer {token}"} if token else {}


def _advised(problem: str) -> str:
    """``problem`` as gRPC says it, behind what it means where that is known."""
    from presplit.cli.reached import advice_on

    advice = advice_on(problem, "")
    return f"{advice} ({problem})" if advice else problem
