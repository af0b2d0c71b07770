"""``presplit run``: answer samples on the edge, one line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli import completing
from presplit.cli.goes_by import goes_by, load_of
from presplit.cli.live import LivePort, ShowImages, asking, edge_shown, live_of
from presplit.cli.options import fallback_named, say
from presplit.cli.scale import words_in
from presplit.cli.secure import (
    EdgeCa,
    TlsCert,
    TlsKey,
    TokenFile,
    TrustKey,
    Untrusted,
    bundle_with,
    edge_with,
)
from presplit.core import units
from presplit.core.errors import InputError

if TYPE_CHECKING:
    from presplit.cli.answering import Printer
    from presplit.runtime.edge import Edge
    from presplit.runtime.feeding.ledger import Ledger
    from presplit.runtime.feeding.lines import Lines
    from presplit.runtime.feeding.newest import Newest
    from presplit.runtime.feeding.sample import Sample
    from presplit.runtime.feeding.sources import Found
    from presplit.runtime.feeding.taking import Taking

SETTLING_S = 5.0
"""How long what is asked behind the last answers is waited for."""
ESCALATES = "answer_then_escalate"
CAMERA_ROOM = 2
"""Frames of a camera that wait, unless --newest says another number."""


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    samples: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Images, .wav files, folders of them, .npy files (float32 (n, *shape), or uint8 "
            "scaled to 0..1), a video, camera:0, or - for lines of JSON on standard input: "
            '{"id": 7, "image": PATH}, or values or base64 instead of image.',
        ),
    ] = None,
    http: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Answer what programs on this machine POST to 127.0.0.1:PORT, until Ctrl-C.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of presplit serve, or several, best first to be found: a:8443,b:8443; "
            "without it the edge is alone."
        ),
    ] = None,
    metadata: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Goes with every call, for whoever stands before the server; application=NAME-HASH"
            " for Ray's ingress.",
        ),
    ] = [],
    tls_ca: EdgeCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    token_file: TokenFile = None,
    trust_key: TrustKey = [],
    untrusted: Untrusted = False,
    split: Annotated[
        int | None, typer.Option(help="Cut here instead of where the bundle's plan does.")
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.codecs,
            help="A codec of the bundle, as presplit inspect lists.",
        ),
    ] = None,
    threshold: Annotated[
        list[str],
        typer.Option(metavar="EXIT=SCORE", help="Least score with which an exit answers."),
    ] = [],
    deadline: Annotated[
        str | None, typer.Option(help="Deadline of each answer, as 50ms; seconds without a unit.")
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.fallbacks,
            help="What this device may run where no server answers: none, exit, or deepest; else "
            "the plan's.",
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            autocompletion=completing.profiles,
            help="Who answers first: balanced, edge_first, server_first, answer_then_escalate "
            "(what the server says later is a line with correction: true) or offline.",
        ),
    ] = "balanced",
    audit: Annotated[
        str,
        typer.Option(
            help="Share of the sure exits' answers that the server is asked for too, as 0.1%; "
            "says when it contradicts them more often than it did at export."
        ),
    ] = "0",
    dynamic: Annotated[
        bool | None,
        typer.Option(
            "--dynamic/--fixed",
            help="Choose a row of the bundle's table before each answer (done if it has one), or "
            "keep to one plan.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first sample that has no answer.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep each answer in this file of SQLite before its line is printed; what it has "
            "answered before is not asked again.",
        ),
    ] = None,
    ledger_most: Annotated[
        int, typer.Option(min=1, help="Answers that the ledger keeps; the oldest go.")
    ] = 100_000,
    newest: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Where samples come faster than answers, let the newest N wait and drop older "
            "ones, counted; 0 drops none. A camera's is 2, all others' 0.",
        ),
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 1,
    rate: Annotated[float | None, typer.Option(min=0.01, help="Samples a second at most.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one engine.")] = 1,
    form: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.forms,
            help="Compute here in a form of the bundle: float32, int8.",
        ),
    ] = None,
    server_form: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.forms,
            help="And on the server; float32 unless the plan says so.",
        ),
    ] = None,
    slow: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="To try: as on a device so many times as slow."),
    ] = None,
    steady: Annotated[
        bool, typer.Option("--steady", help="With --slow: waking up is not stretched.")
    ] = False,
    live: LivePort = None,
    show_images: ShowImages = False,
    json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON are what it prints anyway.")
    ] = True,
) -> None:
    """Answer every sample in order, one JSON object a line.

    Its fields are sample, file, frame, line or id (where it came from), class (its name, if the
    bundle has names), label, exit, where, why, elapsed_s, up_bytes, degraded, split, row (of the
    bundle's table, if it chooses from one), prepare_s and t_s. A sample that cannot be answered has
    error instead, and the others go on.

    Exit codes: 0 answered; 3 every answer was degraded; 4 some samples have no answer; 2 what was
    asked for is wrong.
    Without a plan in the bundle and without --split, all is answered on the edge.
    """
    from presplit.cli.answering import Printer, Scale, sum_up_ledger
    from presplit.cli.corrections import Corrections
    from presplit.runtime.edge import Edge
    from presplit.runtime.feeding.lines import Lines
    from presplit.runtime.feeding.taking import Taking

    credentials = edge_with(
        server, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, token_file=token_file
    )
    deadline_s = None if deadline is None else units.number(deadline, units.SECONDS, "--deadline")
    found = bundle_with(bundle, trust_key=trust_key, untrusted=untrusted)
    taking = Taking(found)
    inputs = _inputs(samples or [], http, taking)
    plan, table = goes_by(
        found,
        dynamic=dynamic,
        split=split,
        codec=codec,
        threshold=threshold,
        deadline_s=deadline_s,
        forms={"form": form, "server_form": server_form},
    )
    watch = live_of(
        found, table or plan, server, port=live, images=show_images, deadline_s=deadline_s
    )
    kept = None if ledger is None else _ledger(ledger, ledger_most)
    printer, scale = Printer(strict=strict), Scale(found)
    corrections = Corrections(printer, found.manifest.labels)
    opened = Edge.open(
        found,
        server=server,
        credentials=credentials,
        metadata=words_in(metadata),
        plan=plan,
        table=table,
        fallback=fallback_named(fallback),
        profile=profile,
        audit=units.number(audit, units.SHARES, "--audit"),
        alarm=say,
        corrected=corrections if profile == ESCALATES else None,
        threads=threads,
        watch=watch,
        load=load_of(slow, steady=steady),
    )
    with opened as edge, edge_shown(live, watch, edge):
        _say_who_answers(server, stays=plan is not None and plan.split == found.net.last)
        lines = Lines(
            asking(edge, watch, deadline_s),
            labels=found.manifest.labels,
            ledger=kept,
            model=found.manifest.model_hash[:12],
            see=scale.see,
            note=corrections.note if profile == ESCALATES else None,
        )
        flow = _Flow(http, newest, printer, streams, rate, server)
        code = _answered(lines, inputs, taking, flow, edge)
        scale.end()
    if profile == ESCALATES:
        say(f"{corrections.count} answers were corrected by the server")
    if kept is not None:
        sum_up_ledger(kept)
        kept.close()
    raise typer.Exit(code)


def _ledger(path: Path, most: int) -> Ledger:
    from presplit.runtime.feeding.ledger import Ledger

    return Ledger(path, most=most)


def _inputs(words: list[str], http: int | None, taking: Taking) -> Found | None:
    """What ``words`` name; None if samples come over HTTP."""
    import sys

    from presplit.runtime.feeding.json_lines import samples_of_lines
    from presplit.runtime.feeding.sources import STANDARD_INPUT, find

    if bool(words) == (http is not None):
        got = "both" if words else "neither"
        raise InputError(
            f"expected INPUT... (files, folders, a camera, - for standard input) or --http PORT, "
            f"got {got}"
        )
    if http is not None:
        return None
    if words.count(STANDARD_INPUT) > 1:
        raise InputError("- is standard input, which can be read once; got it more often")
    found = find(words, taking, lambda: samples_of_lines(sys.stdin.buffer, taking))
    for doubt in taking.doubts:
        say(doubt)
    return found


@dataclass(frozen=True)
class _Flow:
    """How samples come and lines go; ``newest``: how many may wait, older ones being dropped."""

    http: int | None
    newest: int | None
    printer: Printer
    streams: int
    rate: float | None
    server: str | None


def _answered(lines: Lines, inputs: Found | None, taking: Taking, flow: _Flow, edge: Edge) -> int:
    """Answer all, sum it up, and give the exit code."""
    import time

    from presplit.cli import answering
    from presplit.cli.reached import say_of_server
    from presplit.runtime.feeding.lines import answer_all

    began, is_interrupted = time.monotonic(), False
    waiting = _waiting(inputs, flow)
    try:
        with answering.stoppable():
            if flow.http is not None:
                answering.over_http(flow.http, lines, taking, flow.printer, streams=flow.streams)
            if inputs is not None:
                samples = answering.paced(waiting or inputs.samples, flow.rate)
                answer_all(samples, lines, flow.printer, streams=flow.streams)
                edge.settle(SETTLING_S)
    except answering.Stop:
        say("--strict: stopped at the first sample that has no answer")
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        took_s = time.monotonic() - began
        answering.sum_up(lines.tally, took_s=took_s)
        if flow.server is not None:
            say_of_server(flow.server, lines.tally.whys, edge.counts, edge.said)
        _say_left(inputs, waiting)
    is_endless = inputs is None or inputs.endless
    if is_interrupted and not is_endless:
        return 130
    if not is_endless and not lines.tally.seen:
        raise InputError("standard input gave no sample; a line is one, as --help says")
    return answering.code_of(lines.tally)


def _waiting(inputs: Found | None, flow: _Flow) -> Newest[Sample] | None:
    """The queue in which samples wait and from which the oldest are dropped, if any are."""
    from presplit.runtime.feeding.newest import Newest

    if inputs is None:
        return None
    usual = CAMERA_ROOM if inputs.live else 0
    room = usual if flow.newest is None else flow.newest
    return Newest(inputs.samples, room) if room else None


def _say_left(inputs: Found | None, waiting: Newest[Sample] | None) -> None:
    """Say what was neither answered nor told as bad."""
    if waiting is not None:
        say(f"{waiting.dropped} samples were dropped: newer ones came before their turn")
    if inputs is not None and inputs.passed_over:
        endings = ", ".join(f"{count} {end}" for end, count in inputs.passed_over.most_common(10))
        say(f"passed over, no samples by their names: {endings}")


def _say_who_answers(server: str | None, *, stays: bool) -> None:
    """Say what a user may not expect; ``stays`` is True if the plan keeps all on the edge."""
    if server is not None and stays:
        say(
            f"{server} is not asked: all stays on the edge, by the plan or for want of one; "
            "give --split, or save a plan with presplit plan --save"
        )
    if server is None and not stays:
        say(
            "no --server was given: what would be sent is answered by this device alone (why: "
            "link_down)"
        )
