"""Options of several verbs: who may come in, how a server is reached, which bundles are trusted.

A token is never an option: everybody on a machine sees the words of a command.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.runtime.wire.credentials import ClientCredentials

SECURE = "Who may call, and how"
"""The group of these options in the help."""
TOKEN = "PRESPLIT_TOKEN"
"""The environment's word for an edge's token."""

TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        metavar="PEM",
        rich_help_panel=SECURE,
        help="This end's certificate, with its chain.",
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(
        "--tls-key", metavar="PEM", rich_help_panel=SECURE, help="The certificate's private key."
    ),
]
ServerCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="PEM",
        rich_help_panel=SECURE,
        help="Admit only who shows a certificate of these authorities (mutual TLS); with --allow.",
    ),
]
Allow = Annotated[
    Path | None,
    typer.Option(
        "--allow",
        metavar="FILE",
        rich_help_panel=SECURE,
        help="Names that certificates of edges may carry, one a line; read again when it changes.",
    ),
]
Tokens = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        metavar="FILE",
        rich_help_panel=SECURE,
        help="Admit only calls with a token of this file, lines of NAME TOKEN [END]; read again "
        "when it changes.",
    ),
]
EdgeCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="PEM",
        rich_help_panel=SECURE,
        help="Reach the server over TLS and trust these authorities alone; grpcs://HOST:PORT "
        "trusts the public ones.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        rich_help_panel=SECURE,
        help=f"A file with the token that the server wants; or set {TOKEN}.",
    ),
]
ForwardCa = Annotated[
    Path | None,
    typer.Option(
        "--forward-ca",
        metavar="PEM",
        rich_help_panel=SECURE,
        help="As a gateway: reach the next server over TLS and trust these authorities.",
    ),
]
ForwardCert = Annotated[
    Path | None,
    typer.Option(
        "--forward-cert",
        metavar="PEM",
        rich_help_panel=SECURE,
        help="As a gateway: show the next server this certificate; with --forward-key.",
    ),
]
ForwardKey = Annotated[
    Path | None,
    typer.Option("--forward-key", metavar="PEM", rich_help_panel=SECURE, help="And its key."),
]
ForwardToken = Annotated[
    Path | None,
    typer.Option(
        "--forward-token-file",
        metavar="FILE",
        rich_help_panel=SECURE,
        help="As a gateway: a file with the token that the next server wants.",
    ),
]
TrustKey = Annotated[
    list[Path],
    typer.Option(
        "--trust-key",
        rich_help_panel=SECURE,
        metavar="FILE",
        help="Take only bundles that are signed by this public key (or another that is given), "
        "and none that is older than what this machine has taken before.",
    ),
]
Untrusted = Annotated[
    bool,
    typer.Option(
        "--untrusted",
        rich_help_panel=SECURE,
        help="The bundle is a stranger's: allow fewer operators, and try it first in a process "
        "with little memory and time.",
    ),
]


def edge_with(
    server: str | None,
    *,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
) -> ClientCredentials | None:
    """How ``server`` is reached by the options of these names; None where openly.

    Raises `SpecError`, also for a token that would travel openly.
    """
    from presplit.runtime.wire.credentials import reaching

    if server is None:
        return None
    files = {"ca": tls_ca, "cert": tls_cert, "key": tls_key, "token_file": token_file}
    return reaching(server, files, token=os.environ.get(TOKEN))


def bundle_with(path: Path, *, trust_key: list[Path], untrusted: bool) -> Bundle:
    """The bundle at ``path`` as far as these options trust it; raises `BundleError`."""
    from presplit.runtime.trusted import reader

    reads = reader(trust_key, untrusted=untrusted)
    found = reads(path)
    reads.taken(found)
    return found
