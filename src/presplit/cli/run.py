"""``presplit run``: answer samples on the edge, one line of JSON each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import plan_with, read_samples, say
from presplit.core.errors import context

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.types import Floats

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
    streams: Annotated[int, typer.Option(min=1, help="Samples answered at once.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Samples a second, as a camera gives them.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one engine.")] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Lines of JSON are what it prints anyway.")
    ] = True,
) -> None:
    """Answer every sample in order, one JSON object a line.

    Its fields are sample, label, exit, where, why, elapsed_s, up_bytes, t_s.

    If the bundle names its classes, ``class`` is the label's name.
    Without a plan in the bundle and without --split, all is answered on the edge.
    """
    import sys
    import time
    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor
    from json import dumps

    from presplit.bundle import read
    from presplit.runtime.edge import Edge

    found = read(bundle)
    images = _images(samples, found)
    plan = plan_with(
        found,
        split=split,
        codec=codec,
        threshold=threshold,
        deadline_s=deadline_s,
    )
    if split is not None and not threshold and found.plan and found.plan.thresholds:
        say(
            f"--split {split}: the plan's thresholds belong to its split {found.plan.split}; none "
            "is used here"
        )
    names, whys = found.manifest.labels, Counter[str]()
    if note := _another_scale(found, images):
        say(f"{samples}: {note}")
    with (
        Edge.open(found, server=server, plan=plan, threads=threads) as edge,
        ThreadPoolExecutor(streams) as pool,
    ):
        if server is not None and plan.split == found.net.last:
            say(
                f"{server} is not asked: all stays on the edge, by the plan or for want of one; "
                "give --split, or save a plan with presplit plan --save"
            )
        if server is None and plan.split < found.net.last:
            say(
                "no --server was given: what would be sent is answered by the exit that ran here "
                "(why: link_down)"
            )
        began = time.monotonic()

        def one(number: int) -> dict[str, Any]:
            if rate is not None:
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
            asked_s = time.monotonic() - began
            with context(f"{samples}: sample {number}"):
                answer = edge.answer(images[number])
            named = {"class": names[answer.label]} if answer.label < len(names) else {}
            return {"sample": number, **named, **answer.to_builtins(), "t_s": asked_s}

        for answer in pool.map(one, range(len(images))):
            whys[answer["why"]] += 1
            print(dumps(answer), flush=True)
    counts = ", ".join(f"{count} {why}" for why, count in whys.most_common())
    took = time.monotonic() - began
    say(f"{len(images)} answers in {took:.2f} s ({counts}); torch loaded: {'torch' in sys.modules}")
    if server and whys["link_down"]:
        say(
            f"{server} could not be reached for {whys['link_down']} of them: is presplit serve "
            "running there?"
        )
    if server and whys["failed"]:
        say(f"the server, or the engine here, failed for {whys['failed']} of them: see its output")
    if whys["refused"]:
        say(f"{server} refused: it hosts another bundle, or is no tail server of this one")


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
