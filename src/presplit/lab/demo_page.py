"""What a demo did, as one HTML page with a table and two plots."""

from __future__ import annotations

from pathlib import Path

from presplit.core import units
from presplit.lab.demo import Shown
from presplit.plan.explain import named
from presplit.report.page import Figure, write_page
from presplit.report.plots import accuracy_against_bytes, answers_over_time, time_against_bytes


def write_demo_page(path: Path, shown: Shown) -> Path:
    """Write the page to ``path`` and give the path back.

    Raises `MissingLibrary` without matplotlib or jinja2.
    """
    weights, dense = shown.sparse["weights"], shown.dense["weights"]
    dense_accuracy = units.percent(shown.dense["accuracy"]["final"])
    link = f"{shown.link.up_bps / 1e6:g} Mbit/s"
    over_time = answers_over_time(shown.answers, outage=shown.broken, deadline_s=shown.deadline_s)
    return write_page(
        path,
        title=f"Presplit demo: {shown.data}",
        lead=shown.verdict,
        rows=shown.rows,
        facts={
            f"Dense net, {dense:,} weights": dense_accuracy,
            f"Sparse net, {weights:,} weights": units.percent(shown.sparse["accuracy"]["final"]),
            "Device": f"{shown.slow.device.name}: this machine slowed {shown.slow.factor:,.0f}x",
            "Planned": named(shown.plan),
            "Answers lost in the outage": str(shown.lost),
            "Longest answer in the outage": units.seconds(shown.longest_s),
            "Deadline": units.seconds(shown.deadline_s),
            f"Link, round trip {units.seconds(shown.link.rtt_s)}": link,
        },
        figures=[
            Figure(
                "Time against bytes",
                "Down and to the left is better: mean time of an answer, mean bytes sent for it.",
                time_against_bytes(shown.rows),
            ),
            Figure(
                "Accuracy against bytes",
                "Up and to the left is better.",
                accuracy_against_bytes(shown.rows),
            ),
            Figure(
                "Answers across the outage",
                "The server was killed and started again in the shaded span.",
                over_time,
            ),
        ],
        footer=f"Made by presplit demo in {shown.seconds:.0f} s.",
    )
