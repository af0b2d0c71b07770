"""``presplit run``: answer samples on the edge, one line of JSON each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import plan_with, read_samples, say
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
from presplit.core.errors import context

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Floats
    from presplit.runtime.engines import Load

FAR = 50
"""Spans that differ by more than so many times are told.

Photographs differ by less, 0..1 and 0..255 by more.
"""


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    samples: Annotated[
        Path,
        typer.Argument(
            help="A .npy file: float32 (n, *shape), or uint8 images scaled to 0..1; or a .wav file."
        ),
    ],
    server: Annotated[
        str | None, typer.Option(help="HOST:PORT of presplit serve; without it the edge is alone.")
    ] = None,
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
        str | None, typer.Option(help="A codec of the bundle, as presplit inspect lists.")
    ] = None,
    threshold: Annotated[
        list[str],
        typer.Option(metavar="EXIT=SCORE", help="Least score with which an exit answers."),
    ] = [],
    deadline_s: Annotated[
        float | None, typer.Option(help="Deadline of each answer, in seconds.")
    ] = None,
    dynamic: Annotated[
        bool | None,
        typer.Option(
            "--dynamic/--fixed",
            help="Choose a row of the bundle's table before each answer (done if it has one), or "
            "keep to one plan.",
        ),
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Samples a second, as a camera gives them.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one engine.")] = 1,
    form: Annotated[
        str | None, typer.Option(help="Compute here in a form of the bundle: float32, int8.")
    ] = None,
    server_form: Annotated[
        str | None, typer.Option(help="And on the server; float32 unless the plan says so.")
    ] = None,
    slow: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", help="To try: as on a device so many times as slow."),
    ] = None,
    steady: Annotated[
        bool, typer.Option("--steady", help="With --slow: waking up is not stretched.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON are what it prints anyway.")
    ] = True,
) -> None:
    """Answer every sample in order, one JSON object a line.

    Its fields are sample, label, exit, where, why, elapsed_s, up_bytes, degraded, split, row (of
    the bundle's table, if it chooses from one) and t_s.

    If the bundle names its classes, ``class`` is the label's name.
    Without a plan in the bundle and without --split, all is answered on the edge.
    """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from json import dumps

    from presplit.runtime.edge import Edge

    credentials = edge_with(
        server, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, token_file=token_file
    )
    found = bundle_with(bundle, trust_key=trust_key, untrusted=untrusted)
    images = _images(samples, found)
    dynamic = _chooses(
        found, dynamic, given=bool(split is not None or codec or threshold or form or server_form)
    )
    plan = table = None
    if dynamic:
        table = found.table
    else:
        plan = plan_with(
            found,
            split=split,
            codec=codec,
            threshold=threshold,
            deadline_s=deadline_s,
            forms={"form": form, "server_form": server_form},
        )
    if split is not None and not threshold and found.plan and found.plan.thresholds:
        say(
            f"--split {split}: the plan's thresholds belong to its split {found.plan.split}; none "
            "is used here"
        )
    names, given = found.manifest.labels, list[dict[str, Any]]()
    if note := _another_scale(found, images):
        say(f"{samples}: {note}")
    opened = Edge.open(
        found,
        server=server,
        credentials=credentials,
        plan=plan,
        table=table,
        threads=threads,
        load=_load(slow, steady=steady),
    )
    with opened as edge, ThreadPoolExecutor(streams) as pool:
        _say_who_answers(server, stays=plan is not None and plan.split == found.net.last)
        began = time.monotonic()

        def one(number: int) -> dict[str, Any]:
            if rate is not None:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            asked_s = time.monotonic() - began
            with context(f"{samples}: sample {number}"):
                answer = edge.answer(images[number], deadline_s=deadline_s)
            named = {"class": names[answer.label]} if answer.label < len(names) else {}
            return {"sample": number, **named, **answer.to_builtins(), "t_s": asked_s}

        for answer in pool.map(one, range(len(images))):
            given.append(answer)
            print(dumps(answer), flush=True)
    _sum_up(given, server, took_s=time.monotonic() - began)


def _say_who_answers(server: str | None, *, stays: bool) -> None:
    """Say what a user may not expect; ``stays`` is True if the plan keeps all on the edge."""
    if server is not None and stays:
        say(
            f"{server} is not asked: all stays on the edge, by the plan or for want of one; "
            "give --split, or save a plan with presplit plan --save"
        )
    if server is None and not stays:
        say(
            "no --server was given: what would be sent is answered by the exit that ran here "
            "(why: link_down)"
        )


def _sum_up(given: list[dict[str, Any]], server: str | None, *, took_s: float) -> None:
    """Say how many answers were given why and by which rows, and what may be wrong."""
    import sys
    from collections import Counter

    whys = Counter[str](answer["why"] for answer in given)
    rows = Counter[int](answer["row"] for answer in given if answer["row"] is not None)
    counts = ", ".join(f"{count} {why}" for why, count in whys.most_common())
    torch = "torch" in sys.modules
    say(f"{len(given)} answers in {took_s:.2f} s ({counts}); torch loaded: {torch}")
    if rows:
        used = ", ".join(f"{count} by row {row}" for row, count in sorted(rows.items()))
        say(f"of the table: {used}")
    if server and whys["link_down"]:
        say(
            f"{server} could not be reached for {whys['link_down']} of them: is presplit serve "
            "running there?"
        )
    if server and whys["failed"]:
        say(f"the server, or the engine here, failed for {whys['failed']} of them: see its output")
    if whys["refused"]:
        say(f"{server} refused: it hosts another bundle, or is no tail server of this one")


def _chooses(bundle: Bundle, dynamic: bool | None, *, given: bool) -> bool:
    """True if a row of the bundle's table is chosen before each answer.

    ``given`` is True if options say what the plan is. Raises `PlanError` if ``dynamic`` cannot be.
    """
    from presplit.core.errors import PlanError

    if dynamic and given:
        raise PlanError(
            "--dynamic chooses the plan itself: leave --split, --codec, --threshold and forms out"
        )
    if dynamic and bundle.table is None:
        raise PlanError(
            f"{bundle.path}: carries no table to choose from; make one with presplit plan --table "
            "--save"
        )
    if dynamic is None:
        return bundle.table is not None and not given
    return dynamic


def _load(slow: float | None, *, steady: bool) -> Load:
    """What makes the engines: those of this machine, or slower ones."""
    from presplit.runtime.engines import DEFAULT, ENGINES

    if slow is None:
        return ENGINES[DEFAULT]
    from presplit.lab.slow_device import Slowed

    with context("--slow"):
        return Slowed(slow, steady=steady)


def _images(path: Path, bundle: Bundle) -> Floats:
    """The samples in ``path`` as the net of ``bundle`` takes them."""
    from presplit.bundle import as_input

    array = _sound(path, bundle) if path.suffix.lower() == ".wav" else read_samples(path)
    with context(str(path)):
        return as_input(array, whole=bundle.manifest.whole_input)


def _sound(path: Path, bundle: Bundle) -> Floats:
    """The sound in a ``.wav`` file as one sample, at the bundle's rate and of its length."""
    from presplit.core.errors import InputError
    from presplit.core.sound import fitted, resampled, wav

    shape = bundle.net.boundaries[0].shape
    rate = (bundle.manifest.spec or {}).get("data", {}).get("rate")
    if len(shape) != 2 or shape[0] != 1 or not rate:
        raise InputError(
            f"{path}: expected samples for a net that takes {shape} and does not say the rate of "
            "its sounds, got a .wav file; give a .npy file, or a bundle of a run trained on sounds"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with context(str(path)):
        sound, own_rate = wav(raw)
        return fitted(resampled(sound, own_rate, rate), shape[1])[None, None]


def _another_scale(bundle: Bundle, images: Floats) -> str:
    """What to say if samples have a range far from that of the held-out ones.

    Bytes that were never scaled have such a range.
    """
    seen = bundle.manifest.ports[0].encodings.get("int8")
    if seen is None or not images.size:
        return ""
    span, own = 255 * seen.scale, max(float(images.max()), 0.0) - min(float(images.min()), 0.0)
    if not 0 < own < math.inf or span / FAR < own < span * FAR:
        return ""
    return (
        f"its values span {own:.3g}, those that the net was exported with {span:.3g}: are they "
        "scaled alike? "
        "(only uint8 is scaled here, to 0..1)"
    )
