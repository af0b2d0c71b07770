"""``presplit demo``: the main job once through, for real."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli import completing
from presplit.cli.options import Json, say, show
from presplit.core.errors import SpecError, context

if TYPE_CHECKING:
    from presplit.lab.demo import Settings, Shown
    from presplit.plan.limits import Limits

DEVICE, LIVE_DEVICE = "cortex-m7,memory=128kB", "macs=10M,memory=1MB"
"""What the edge stands for. To play, it is slower and has room for the whole net, so that each of
several cuts is the best at some rate of the link."""
SLACK_S = 0.01
"""What an answer may take beyond its deadline."""


def demo(
    data: Annotated[str, typer.Option(help="digits (nothing to download) or mnist.")] = "digits",
    out: Annotated[Path, typer.Option(help="Directory for runs, bundle and report.")] = Path(
        "runs/demo"
    ),
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.devices,
            help="What this machine is slowed down to: a profile, one with changes, or numbers: "
            f"macs=60M,memory=128kB. Default {DEVICE}; {LIVE_DEVICE} with --live.",
        ),
    ] = None,
    link: Annotated[
        str,
        typer.Option(
            autocompletion=completing.links,
            help="Link between edge and server: a profile, or up=3M,rtt=40ms.",
        ),
    ] = "10mbit",
    deadline_s: Annotated[
        float, typer.Option(min=0.02, help="Every answer is given by then, in seconds.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of both trainings.")] = 0,
    images: Annotated[
        int | None,
        typer.Option(min=10, help="Test images to answer; default all, 2,000 of mnist."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Play instead: a page on this machine with sliders for the link and a button that "
            "stops the server, until Ctrl-C. A net that is in --out is taken.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --live: the page's port; 0 any free one.")
    ] = 0,
    json: Json = False,
) -> None:
    """Train dense and sparse, cut, plan for a slow device, compare the ways over a shaped link.

    In the last way the server is killed in the middle.

    With --live only the sparse net is trained, unless it is there, and one changes the link and
    stops the server by hand, on a page.
    """
    from presplit.lab import demo as lab
    from presplit.lab.demo_page import write_demo_page
    from presplit.profiles import device_from, link_from

    with context("--data"):
        settings = lab.DEMOS.find(data)
    _refuse_others(out, lab.DEMOS)
    if live:
        given = (device or LIVE_DEVICE, link, deadline_s)
        _play(settings, out, given, seed=seed, port=port, as_json=json)
        return
    if (out / "report.html").exists():
        say(f"{out} holds an earlier demo, which this one replaces")
    shown = lab.show(
        settings,
        out,
        device=device_from(device or DEVICE),
        link=link_from(link),
        deadline_s=deadline_s,
        seed=seed,
        images=images,
        tell=say,
    )
    report = str(write_demo_page(out / "report.html", shown))
    show(shown.to_builtins(), text(shown, report), as_json=json)
    if shown.lost or shown.longest_s > deadline_s + SLACK_S:
        say("presplit: the promise did not hold: an answer was lost, or later than its deadline")
        raise typer.Exit(1)


def _play(
    settings: Settings,
    out: Path,
    given: tuple[str, str, float],
    *,
    seed: int,
    port: int,
    as_json: bool,
) -> None:
    """Show the page until Ctrl-C; ``given``: the device, the link, the deadline."""
    import threading

    from presplit.cli.answering import stoppable
    from presplit.cli.live import page_files
    from presplit.lab.live_demo import playing, ready
    from presplit.profiles import device_from, link_from

    device, link, deadline_s = given
    at_first = link_from(link)
    found = ready(
        settings,
        out,
        device=device_from(device),
        link=at_first,
        deadline_s=deadline_s,
        seed=seed,
        tell=say,
    )
    with (
        stoppable(),
        playing(found, at_first, port=port, files=page_files(), deadline_s=deadline_s) as address,
    ):
        text = (
            f"Open {address} in a browser on this machine: lower the rate and see where the net is "
            "cut, stop the server and see the edge carry on. Ctrl-C ends it."
        )
        show({"address": address}, text, as_json=as_json)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _refuse_others(out: Path, demos: Iterable[str]) -> None:
    """Raise `SpecError` if runs that are no demo's are where those of a demo go.

    Those of an earlier demo are replaced: the same seed makes the same ones.
    """
    import msgspec

    own = {name for data in demos for name in (data, f"{data}-dense")}
    for folder in (out / "dense", out / "sparse"):
        try:
            named = msgspec.json.decode((folder / "spec.json").read_bytes())["name"]
        except (OSError, msgspec.MsgspecError, LookupError, TypeError):
            continue
        if named not in own:
            raise SpecError(
                f"{folder} holds a run of your own, {named}, which the demo would replace; give it "
                "another folder with --out"
            )


def text(shown: Shown, report: str) -> str:
    """The table and the outage line, for people."""
    from presplit.core.tables import table
    from presplit.lab.demo_ways import too_large
    from presplit.plan.explain import named
    from presplit.report.plots import WAYS

    weights, dense = shown.sparse["weights"], shown.dense["weights"]
    large = ", ".join(too_large(shown.rows, shown.slow.device)) or "none"
    return "\n".join(
        [
            table(shown.rows, WAYS),
            "",
            f"Device: {shown.slow.told()}; too large for it: {large}.",
            f"Dense net: {100 * shown.dense['accuracy']['final']:.2f} % with {dense:,} weights; "
            f"the sparse net has {weights / dense:.3f} of them.",
            f"Planned: {named(shown.plan)}; asked: {_asked(shown.limits)}.",
            f"Thresholds: as {shown.held_out:,} held-out samples show them, too few for a promise; "
            "accuracies: of the test set.",
            f"Outage: {shown.lost} answers lost; longest answer {1e3 * shown.longest_s:.1f} ms, "
            f"deadline {1e3 * shown.deadline_s:g} ms.",
            f"Report: {report}",
            shown.verdict,
            "Next: presplit init FOLDER, with a folder of photos for each class of yours",
        ]
    )


def _asked(limits: Limits) -> str:
    """The limits that the plan keeps to, in words."""
    told = f"at most {100 * (limits.drop or 0):g} points of accuracy lost"
    if limits.max_up_bytes is None:
        return f"{told}, which no plan keeps that sends so little as was wished"
    return f"{told} and {limits.max_up_bytes:g} bytes sent an answer"
