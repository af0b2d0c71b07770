"""``presplit serve``: host the tails of bundles over the Open Inference Protocol."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.live import LivePort, server_shown
from presplit.cli.options import Json, exits_here, gateway_with, say, show
from presplit.cli.scale import hosting_by
from presplit.cli.secure import (
    SECURE,
    Allow,
    ForwardCa,
    ForwardCert,
    ForwardKey,
    ForwardToken,
    ServerCa,
    TlsCert,
    TlsKey,
    Tokens,
    TrustKey,
    Untrusted,
)
from presplit.core import units
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.core.plans import Gateway
    from presplit.runtime.serving.config import Config, Secure
    from presplit.runtime.serving.process import Started

LISTEN, COMPUTE, CHANGE, PASS, SCALE = (
    "Where it listens",
    "How much it computes",
    "How it changes and ends",
    "As a gateway",
    "On several machines",
)
"""The groups of options in the help."""
NO_GATEWAY = (None, None, None)
SHOWN = 6
"""Bundles that are named when it is ready; ``--json`` names all."""


def serve(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Bundles, or folders of bundles.", metavar="BUNDLE..", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A file of TOML with these options; flags win. See --print-config."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print such a file with all defaults, and end.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(help="Address; default this machine's own.", rich_help_panel=LISTEN),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0: any free one. Default 8443.", rich_help_panel=LISTEN
        ),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="REST and /metrics too, on this port of 127.0.0.1; off unless it is given.",
            rich_help_panel=LISTEN,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of one engine; default 1.", rich_help_panel=COMPUTE),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Engines that run at once; default: processors / threads.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    places: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests inside at once, one more is refused; default: 64 a worker.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples computed together where that pays; 1: each request alone; default 32.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    batch_wait: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Wait so long for others to compute with, if deadlines allow it; default 0.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    keep_mb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="MB of a bundle's models kept ready; default four times the net's, 64 at least. "
            "The least used goes, and is loaded again when it is asked for.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    most_mb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="MB of the longest request; default: what the bundles take at most.",
            rich_help_panel=COMPUTE,
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Look so often for new and changed bundles; default 2s; 0: on SIGHUP only.",
            rich_help_panel=CHANGE,
        ),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="After SIGTERM whoever is inside is answered within so long; default 9s.",
            rich_help_panel=CHANGE,
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="text|json|none",
            help="Lines on standard error; default text.",
            rich_help_panel=CHANGE,
        ),
    ] = None,
    forward_to: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Be a gateway: compute up to a second split, and ask the server there for the "
            "rest, as the bundle's plan says or the options below.",
            rich_help_panel=PASS,
        ),
    ] = None,
    split: Annotated[
        int | None, typer.Option(help="The gateway's split.", rich_help_panel=PASS)
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(help="How the gateway sends that on; default float32.", rich_help_panel=PASS),
    ] = None,
    threshold: Annotated[
        list[str],
        typer.Option(
            metavar="EXIT=SCORE",
            help="Least score with which an exit answers, here or on a gateway.",
            rich_help_panel=PASS,
        ),
    ] = [],
    spare: Annotated[
        str | None,
        typer.Option(
            help="Kept back of the edge's time, for the way to the gateway and back: 20ms.",
            rich_help_panel=PASS,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="own|ray",
            help="Who computes: this process, or replicas on Ray Serve; default own.",
            rich_help_panel=SCALE,
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With ray: replicas of a bundle at most, as the load wants; default 2.",
            rich_help_panel=SCALE,
        ),
    ] = None,
    ray_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="With ray: open its own gRPC ingress too, on every address (--insecure).",
            rich_help_panel=SCALE,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen where others can reach it without TLS, or for whoever asks.",
            rich_help_panel=SECURE,
        ),
    ] = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_ca: ServerCa = None,
    allow: Allow = None,
    tokens: Tokens = None,
    forward_ca: ForwardCa = None,
    forward_cert: ForwardCert = None,
    forward_key: ForwardKey = None,
    forward_token_file: ForwardToken = None,
    trust_key: TrustKey = [],
    untrusted: Untrusted = False,
    live: LivePort = None,
    json: Json = False,
) -> None:
    """Serve every tail of bundles until SIGTERM or SIGINT; says its address when it is ready."""
    from presplit.runtime.serving.config import TEMPLATE
    from presplit.runtime.serving.process import Hung
    from presplit.runtime.serving.server import serve as listen

    if print_config:
        show({"config": TEMPLATE}, TEMPLATE.rstrip("\n"), as_json=json)
        return
    chosen = _config(
        config,
        bundles=tuple(map(str, bundles or ())),
        host=host,
        port=port,
        http=http,
        threads=threads,
        workers=workers,
        places=places,
        batch=batch,
        batch_wait_s=_seconds(batch_wait, "--batch-wait"),
        keep_mb=keep_mb,
        most_mb=most_mb,
        watch_s=_seconds(watch, "--watch"),
        drain_s=_seconds(drain, "--drain"),
        log=log,
        forward_to=forward_to,
        engine=engine,
        replicas=replicas,
        ray_port=ray_port,
        insecure=insecure,
        secure=_given(
            tls_cert=tls_cert, tls_key=tls_key, tls_ca=tls_ca, allow=allow, tokens=tokens
        ),
        forward=_given(
            ca=forward_ca, cert=forward_cert, key=forward_key, token_file=forward_token_file
        ),
        trust_keys=tuple(map(str, trust_key)),
        untrusted=untrusted,
    )
    if not chosen.bundles:
        raise SpecError(
            "give a bundle, or a folder of bundles: presplit serve BUNDLE, or bundles = [..] in "
            "the file of --config"
        )
    gateway = _gateway(chosen, split=split, codec=codec, threshold=threshold, spare=spare)
    try:
        with hosting_by(chosen, gateway) as host, server_shown(live) as shown:
            listen(
                chosen.bundles,
                chosen,
                ready=lambda started: _say_ready(started, chosen.secure, as_json=json),
                gateway=gateway,
                watch=shown,
                told=None if shown is None else shown.know,
                host=host,
            )
    except Hung as error:
        say(f"presplit: {error}")
        sys.stdout.flush()
        os._exit(1)  # Python would wait for the engine's thread


def _config(file: Path | None, **flags: Any) -> Config:
    """What the file says, with what the flags say over it."""
    from presplit.runtime.serving.config import config_from, read_config

    unsaid = (None, False, ())
    given = {key: value for key, value in flags.items() if not any(value is no for no in unsaid)}
    return config_from(given) if file is None else read_config(file, given)


def _given(**paths: Path | None) -> dict[str, str] | None:
    """Those of ``paths`` that are given; None if none is."""
    return {name: str(path) for name, path in paths.items() if path is not None} or None


def _seconds(text: str | None, flag: str) -> float | None:
    """A time on the command line, in seconds."""
    return None if text is None else units.number(text, units.SECONDS, flag)


def _gateway(config: Config, **words: Any) -> Gateway | None:
    """What a gateway does, or which exits answer, if the command line says anything of it."""
    if not any(words.values()) and words["split"] is None:
        return None
    if config.forward_to is None and (words["split"], words["codec"], words["spare"]) != NO_GATEWAY:
        raise SpecError(
            "--split, --codec and --spare are a gateway's: give --forward-to HOST:PORT; of the "
            "exits of this server itself --threshold EXIT=SCORE alone tells"
        )
    if len(config.bundles) > 1 or not (Path(config.bundles[0]) / "manifest.json").exists():
        raise SpecError(
            f"exits and splits are one bundle's: name one, got {', '.join(config.bundles)}"
        )
    found = config.reader()(config.bundles[0])
    if config.forward_to is None:
        return exits_here(found, words["threshold"])
    return gateway_with(found, **words)


def _say_ready(started: Started, secure: Secure, *, as_json: bool) -> None:
    """Say where it listens, what it hosts, and how an edge asks it."""
    from presplit.bundle import read
    from presplit.cli.following import reaching, running

    rest = "" if started.http is None else f", REST and metrics at http://{started.http}"
    lines = [f"Ready at {started.address}{rest}. Models NAME.from-SPLIT[-CODEC][.in-FORM]:"]
    lines += [f"  {key}  from {path}" for key, path in list(started.bundles.items())[:SHOWN]]
    if len(started.bundles) > SHOWN:
        lines.append(f"  and {len(started.bundles) - SHOWN} more; --json names all")
    lines += [f"  not served: {problem}" for problem in started.broken.values()]
    first = str(next(iter(started.bundles.values()), ""))
    if first:
        on_edge = running(read(first), *reaching(started.address, secure))
        lines += [f"Next, on the edge: {on_edge}", "Stop with Ctrl-C."]
    result = {
        "address": started.address,
        "http": started.http,
        "bundles": started.bundles,
        "models": {name: started.path_of(name) for name in started.models},
        "broken": started.broken,
    }
    show(result, "\n".join(lines), as_json=as_json)
