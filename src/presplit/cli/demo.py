"""``presplit demo``: the main job once through, for real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli.options import Json, say, show
from presplit.core.errors import context

if TYPE_CHECKING:
    from presplit.lab.demo import Shown
    from presplit.plan.limits import Limits

SLACK_S = 0.01
"""What an answer may take beyond its deadline."""


def demo(
    data: Annotated[str, typer.Option(help="digits (nothing to download) or mnist.")] = "digits",
    out: Annotated[Path, typer.Option(help="Directory for runs, bundle and report.")] = Path(
        "runs/demo"
    ),
    device: Annotated[
        str,
        typer.Option(
            help="What this machine is slowed down to: a profile, one with changes, or numbers: "
            "macs=60M,memory=128kB."
        ),
    ] = "cortex-m7,memory=128kB",
    link: Annotated[
        str, typer.Option(help="Link between edge and server: a profile, or up=3M,rtt=40ms.")
    ] = "10mbit",
    deadline_s: Annotated[
        float, typer.Option(min=0.02, help="Every answer is given by then, in seconds.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of both trainings.")] = 0,
    images: Annotated[
        int | None,
        typer.Option(min=10, help="Test images to answer; default all, 2,000 of mnist."),
    ] = None,
    json: Json = False,
) -> None:
    """Train dense and sparse, cut, plan for a slow device, compare the ways over a shaped link.

    In the last way the server is killed in the middle.
    """
    from presplit.lab import demo as lab
    from presplit.lab.demo_page import write_demo_page
    from presplit.profiles import device_from, link_from

    with context("--data"):
        settings = lab.DEMOS.find(data)
    shown = lab.show(
        settings,
        out,
        device=device_from(device),
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
            "Next: presplit plan BUNDLE --device D --link L for a device and a link of yours; "
            "presplit train for your own net.",
        ]
    )


def _asked(limits: Limits) -> str:
    """The limits that the plan keeps to, in words."""
    told = f"at most {100 * (limits.drop or 0):g} points of accuracy lost"
    if limits.max_up_bytes is None:
        return f"{told}, which no plan keeps that sends so little as was wished"
    return f"{told} and {limits.max_up_bytes:g} bytes sent an answer"
