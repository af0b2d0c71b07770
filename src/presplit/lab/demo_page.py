"""What a demo did, as one HTML page: the ways it compared, and its answers across an outage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from presplit.core import units
from presplit.core.shares import interval
from presplit.lab.demo import Shown
from presplit.lab.demo_ways import too_large
from presplit.plan.explain import named
from presplit.report.plots import (
    WAYS,
    accuracy_against_bytes,
    answers_over_time,
    time_against_bytes,
)
from presplit.report.sections import Figure, Section, Table, write_report

WHY = "Each colour says why an answer is what it is; in brackets, how many answers."


def write_demo_page(path: Path, shown: Shown) -> Path:
    """Write the page to ``path`` and give the path back."""
    weights, dense = shown.sparse["weights"], shown.dense["weights"]
    link = f"{shown.link.up_bps / 1e6:g} Mbit/s, round trip {units.seconds(shown.link.rtt_s)}"
    return write_report(
        path,
        title=f"Presplit demo: {shown.data}",
        lead=shown.verdict,
        facts={
            f"Dense net, {dense:,} weights": units.percent(shown.dense["accuracy"]["final"]),
            f"Sparse net, {weights:,} weights": units.percent(shown.sparse["accuracy"]["final"]),
            "Answers lost in the outage": str(shown.lost),
            "Longest answer in the outage": units.seconds(shown.longest_s),
            "Deadline of every answer": units.seconds(shown.deadline_s),
        },
        sections=[_compared(shown, link), _outage(shown)],
        footer=f"Made by presplit demo in {shown.seconds:.0f} s.",
    )


def _compared(shown: Shown, link: str) -> Section:
    device = shown.slow.device.name.partition(",")[0]
    room, large = units.data(shown.slow.device.memory_bytes), _large(shown)
    rows = [_marked(row, shown.asked, row["way"] in large, room) for row in shown.rows]
    marks = [{**row, "way": plain["way"]} for row, plain in zip(rows, shown.rows, strict=True)]
    hollow = f" Hollow: does not fit in {room}." if large else ""
    return Section(
        "Ways to answer the same images",
        "The dense ways are what one would do without Presplit: all on the device, or the image "
        "sent to a server. The others cut a sparse net, and let an early exit answer where it is "
        "sure.",
        tables=[Table(rows, WAYS, chosen=_planned(shown))],
        figures=[
            Figure(
                "Time against bytes",
                "Down and to the left is better: the mean time of an answer over the mean bytes "
                f"sent for it.{hollow}",
                time_against_bytes(marks),
            ),
            Figure(
                "Accuracy against bytes",
                "Up and to the left is better; whiskers: 95 % intervals of "
                f"{shown.asked:,} images.{hollow}",
                accuracy_against_bytes(marks),
            ),
        ],
        note=(
            f"Device: this machine slowed {shown.slow.factor:,.0f}x, about a {device}. "
            f"Link: {link}. The marked row is what was planned: {named(shown.plan)}. MACs are "
            "multiplications."
        ),
    )


def _large(shown: Shown) -> list[str]:
    """The ways that do not fit the device."""
    return too_large(shown.rows, shown.slow.device)


def _marked(row: Mapping[str, Any], asked: int, is_large: bool, room: str) -> dict[str, Any]:
    """The row with its accuracy's interval, and with what is said of a way that is too large."""
    way = f"{row['way']} (does not fit in {room})" if is_large else row["way"]
    return {**row, "way": way, "is_large": is_large, "ends": interval(row["accuracy"], asked)}


def _planned(shown: Shown) -> frozenset[int]:
    return frozenset(number for number, row in enumerate(shown.rows) if row["way"] == shown.planned)


def _outage(shown: Shown) -> Section:
    over_time = answers_over_time(shown.answers, outage=shown.broken, deadline_s=shown.deadline_s)
    return Section(
        "Answers across the outage",
        "The server was killed and started again in the shaded span; the edge went on alone.",
        figures=[Figure("Time of each answer", WHY, over_time)],
    )
