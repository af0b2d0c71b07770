"""``presplit serve``: host a bundle's tails over the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, gateway_with, show
from presplit.cli.secure import Allow, ServerCa, TlsCert, TlsKey, Tokens, server_with
from presplit.core.errors import SpecError


def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; default this machine's own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8443,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one engine.")] = 1,
    keep_mb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="MB of models kept ready; default four times the net's, 64 at least. The least "
            "used goes, and is loaded again when it is asked for.",
        ),
    ] = None,
    forward_to: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Be a gateway: compute up to a second split, and ask the server there for the "
            "rest, as the bundle's plan says or the options below.",
        ),
    ] = None,
    split: Annotated[int | None, typer.Option(help="The gateway's split.")] = None,
    codec: Annotated[
        str | None, typer.Option(help="How the gateway sends that on; default float32.")
    ] = None,
    threshold: Annotated[
        list[str],
        typer.Option(metavar="EXIT=SCORE", help="Least score with which a gateway's exit answers."),
    ] = [],
    spare: Annotated[
        str | None,
        typer.Option(
            help="Kept back of the edge's time, for the way to the gateway and back: 20ms."
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen where others can reach it without TLS, or for whoever asks.",
        ),
    ] = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: ServerCa = None,
    allow: Allow = None,
    tokens: Tokens = None,
    json: Json = False,
) -> None:
    """Serve every tail of a bundle until SIGTERM or SIGINT; says its address when it is ready."""
    from presplit.bundle import read
    from presplit.runtime.server import serve as listen

    secured = server_with(
        tls_cert=tls_cert, tls_key=tls_key, tls_ca=tls_ca, allow=allow, tokens=tokens
    )
    found = read(bundle)
    gateway = gateway_with(found, split=split, codec=codec, threshold=threshold, spare=spare)
    if gateway is not None and forward_to is None:
        raise SpecError(
            "--split, --codec, --threshold and --spare are a gateway's: give --forward-to HOST:PORT"
        )

    def ready(address: str) -> None:
        show({"address": address}, f"Ready at {address}. Stop with Ctrl-C.", as_json=json)

    listen(
        found,
        host=host,
        port=port,
        threads=threads,
        keep_bytes=None if keep_mb is None else keep_mb * 10**6,
        ready=ready,
        insecure=insecure,
        forward_to=forward_to,
        gateway=gateway,
        secured=secured,
    )
