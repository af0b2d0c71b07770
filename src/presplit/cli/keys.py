"""``presplit keys``: a private authority, certificates and tokens for a server and its edges."""

from __future__ import annotations

import enum
import shlex
from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, show
from presplit.core.errors import SpecError
from presplit.core.private import NewFiles


class By(enum.StrEnum):
    """What an edge shows at the gate."""

    certificate = "certificate"
    token = "token"
    both = "both"


def keys(
    folder: Annotated[Path, typer.Argument(help="Where all of it is kept; keep it to yourself.")],
    server: Annotated[
        list[str],
        typer.Option(
            metavar="HOST",
            help="Make an authority and a server's certificate for this address or name, by which "
            "edges reach it; several times, if it has several.",
        ),
    ] = [],
    add_edge: Annotated[
        list[str],
        typer.Option(
            "--edge", "--add-edge", metavar="NAME", help="Make what this edge shows, and list it."
        ),
    ] = [],
    by: Annotated[
        By | None,
        typer.Option(
            help="What all edges of this folder show: a certificate, a token or both. By default "
            "what those before show, and a certificate where there are none."
        ),
    ] = None,
    signing: Annotated[
        bool, typer.Option("--signing", help="Make a pair of keys that sign bundles.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long each of them holds.")] = 397,
    json: Json = False,
) -> None:
    """Make what a server and its edges need to know each other; nothing is written over.

    In one command: presplit keys KEYS --server HOST --edge NAME --edge NAME. Later: presplit keys
    KEYS --add-edge NAME. To shut an edge out, take its line out of KEYS/allowed.txt or
    KEYS/tokens.txt, which the running server sees at once.
    """
    if not (server or add_edge or signing):
        raise SpecError("nothing to make: give --server HOST, --edge NAME or --signing")
    before = _files(folder)
    with NewFiles(folder) as new:
        _make(new, server, add_edge, _shown(folder, by) if add_edge else None, days)
        if signing:
            from presplit.bundle.sign import make_keys

            make_keys(new)
    made = sorted(_files(folder) - before)
    lines = _lines(folder, server, add_edge)
    text = [f"{folder}: made {', '.join(made) or 'no new file'}"]
    text += [f"{key}:\n  {line}" for key, line in lines]
    if signing:
        place = shlex.quote(str(folder))
        text.append(
            f"sign a bundle:\n  presplit sign BUNDLE --key {place}/signing.key\n"
            f"have it checked:\n  presplit serve BUNDLE --trust-key {place}/signing.pub"
        )
    show({"folder": str(folder), "made": made, **dict(lines)}, "\n".join(text), as_json=json)


def _shown(folder: Path, by: By | None) -> By:
    """What the edges of ``folder`` show: the same all of them, as its lists say."""
    from presplit.runtime.authority import ALLOWED, TOKENS

    listed = {
        frozenset({ALLOWED}): By.certificate,
        frozenset({TOKENS}): By.token,
        frozenset({ALLOWED, TOKENS}): By.both,
    }
    there = frozenset(_files(folder) & {ALLOWED, TOKENS})
    if there and by not in (None, listed[there]):
        raise SpecError(
            f"{folder}: its edges are known by {' and '.join(sorted(there))}, and the server wants "
            "the same of all: leave --by out, or use another folder"
        )
    return listed.get(there, by or By.certificate)


def _make(new: NewFiles, hosts: list[str], edges: list[str], by: By | None, days: int) -> None:
    """What the server shows that is reached as ``hosts``, and what the ``edges`` do."""
    from presplit.runtime.authority import Authority, add_token

    authority = None
    if hosts:
        authority = Authority.found(new)
        authority.server(hosts, days=days)
    if edges and by is not By.token:
        authority = authority or Authority.of(new)
    for name in dict.fromkeys(edges):
        if authority is not None and by is not By.token:
            authority.edge(name, days=days)
        if by is not By.certificate:
            add_token(new, name, days=days)


def _files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _lines(folder: Path, hosts: list[str], edges: list[str]) -> list[tuple[str, str]]:
    """The commands that use what is in ``folder``: the server's, then each edge's."""
    from presplit.runtime.address import joined
    from presplit.runtime.authority import ALLOWED, TOKENS

    there, place = _files(folder), shlex.quote(str(folder))
    if "server.pem" not in there or not there & {ALLOWED, TOKENS}:
        return []
    serve = f"presplit serve BUNDLE --host 0.0.0.0 --tls-cert {place}/server.pem"
    serve += f" --tls-key {place}/server.key"
    if ALLOWED in there:
        serve += f" --tls-ca {place}/ca.pem --allow {place}/{ALLOWED}"
    if TOKENS in there:
        serve += f" --tokens {place}/{TOKENS}"
    found = [("serve", serve)]
    host = joined(hosts[0], 8443) if hosts else "HOST:8443"
    for name in dict.fromkeys(edges):
        run = f"presplit run BUNDLE SAMPLES --server grpcs://{host} --tls-ca {place}/ca.pem"
        if f"edge-{name}.pem" in there:
            run += f" --tls-cert {place}/edge-{name}.pem --tls-key {place}/edge-{name}.key"
        if f"edge-{name}.token" in there:
            run += f" --token-file {place}/edge-{name}.token"
        found.append((f"run on {name}", run))
    return found
