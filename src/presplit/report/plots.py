"""What the demo and the headline show: ways to answer the same inputs, and answers over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from presplit.core import units
from presplit.core.errors import SpecError
from presplit.core.tables import Column
from presplit.core.types import WHYS
from presplit.report.charts import HUES, Rule, Series, Span, chart, stacked
from presplit.report.scales import Axis, share

Row = Mapping[str, Any]

IN_WORDS = {
    "confident": "an early exit was sure",
    "planned": "on the edge, as planned",
    "server": "the server answered",
    "late": "no reply in time",
    "no_time": "too little time was left",
    "link_down": "alone: server not reached",
    "overloaded": "the server was overloaded",
    "refused": "the server refused it",
    "bad_reply": "the reply was not understood",
    "failed": "an engine failed",
}
"""What a legend calls each of `WHYS`."""
NEAR = 0.02
"""As a share of an axis: marks that are nearer than this in both would hide one another."""

WAYS: tuple[Column, ...] = (
    Column("way", "way", str, text=True),
    Column("accuracy", "accuracy", units.percent),
    Column("edge_share", "on the edge", units.percent),
    Column("mean_s", "mean", units.seconds),
    Column("p50_s", "p50", units.seconds),
    Column("p99_s", "p99", units.seconds),
    Column("up_bytes", "sent/answer", units.data),
    Column("edge_bytes", "weights there", units.data),
    Column("edge_macs", "edge MACs", units.count),
)
"""The demo's table: one row for each way to answer the same inputs.

``edge_bytes`` are the weights that the edge needs.
"""


def accuracy_against_bytes(rows: Sequence[Row]) -> str:
    """SVG: each way's accuracy over the bytes it sends for one answer.

    The rows are as in `WAYS`; ``ends``, if a row has them, are those of its accuracy's interval,
    and a way that ``is_large`` for the device is hollow. Up and to the left is better. Raises
    `SpecError` without rows.
    """
    return _ways(rows, "accuracy", Axis("accuracy", share))


def time_against_bytes(rows: Sequence[Row]) -> str:
    """SVG: the mean time of each way's answers over the bytes it sends for one.

    The rows are as in `WAYS`; a way that ``is_large`` for the device is hollow. Down and to the
    left is better. Raises `SpecError` without rows.
    """
    axis = Axis("mean time of an answer", units.seconds, log=True)
    return _ways(rows, "mean_s", axis)


def _ways(rows: Sequence[Row], key: str, y: Axis) -> str:
    """A mark for each way over the bytes that it sends; one for ways that lie on one another."""
    if not rows:
        raise SpecError(f"{y.title} against bytes: expected at least one row, got 0")
    series = [_together(group, key) for group in _groups(rows, key, is_log=y.log)]
    return chart(series, x=Axis("sent for one answer (mean)", units.data, low=0), y=y, height=290)


def _together(group: Sequence[Row], key: str) -> Series:
    """The mark of ways that lie on one another, which has the names of all."""
    name = " and ".join(row["way"] for row in group)
    hollow = bool(group[0].get("is_large"))
    first = group[0]
    spread = [first["ends"]] if key == "accuracy" and "ends" in first else []
    return Series(
        f"{name} (too large)" if hollow else name,
        [first["up_bytes"]],
        [first[key]],
        line=False,
        marks=True,
        hollow=hollow,
        spread=spread,
    )


def _groups(rows: Sequence[Row], key: str, *, is_log: bool) -> list[list[Row]]:
    """The rows, those together whose marks would hide one another."""
    places = [(row["up_bytes"], math.log(row[key]) if is_log else row[key]) for row in rows]
    wide = NEAR * (max(x for x, _ in places) or 1.0)
    low, high = min(y for _, y in places), max(y for _, y in places)
    tall = NEAR * (high - low)
    found: list[tuple[tuple[float, float], list[Row]]] = []
    for (x, y), row in zip(places, rows, strict=True):
        large = bool(row.get("is_large"))
        for (first_x, first_y), group in found:
            is_near = abs(x - first_x) <= wide and abs(y - first_y) <= tall
            if is_near and bool(group[0].get("is_large")) == large:
                group.append(row)
                break
        else:
            found.append(((x, y), [row]))
    return [group for _, group in found]


def answers_over_time(
    timeline: Sequence[Row], *, outage: tuple[float, float], deadline_s: float | None
) -> str:
    """SVG: the time of each answer over the time at which it was asked.

    Its colour says why the answer is what it is.

    ``timeline`` holds ``t_s`` (since the start), ``elapsed_s`` and ``why`` of each answer;
    ``outage`` is the shaded span, start and end in the same seconds.
    """
    series: list[Series] = []
    for number, why in enumerate(WHYS):
        shown = [answer for answer in timeline if answer["why"] == why]
        if shown:
            t_s, elapsed_s = ([answer[key] for answer in shown] for key in ("t_s", "elapsed_s"))
            name, hue = f"{IN_WORDS[why]} ({len(shown):,})", number % HUES + 1
            series.append(Series(name, t_s, elapsed_s, line=False, marks=True, hue=hue))
    rules = (
        [] if deadline_s is None else [Rule(f"deadline {units.seconds(deadline_s)}", y=deadline_s)]
    )
    return chart(
        series,
        x=Axis("time since the start", units.seconds),
        y=Axis("time of the answer", units.seconds, log=True),
        rules=rules,
        spans=[Span("server gone", *outage)],
        height=290,
    )


def times_over_links(rows: Sequence[Row]) -> str:
    """SVG: the mean time of each way over the links, in their order; one chart for each device.

    ``rows`` hold ``device``, ``link``, ``way`` and ``mean_s`` (seconds). Down is better. Raises
    `SpecError` without rows.
    """
    if not rows:
        raise SpecError("times over links: expected at least one row, got 0")
    devices, links, ways = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("device", "link", "way")
    )

    def drawn(device: str) -> str:
        series: list[Series] = []
        for way in ways:
            mine = [row for row in rows if (row["device"], row["way"]) == (device, way)]
            places = [float(links.index(row["link"])) for row in mine]
            series.append(Series(way, places, [row["mean_s"] for row in mine], marks=True))
        y = Axis("mean time", units.seconds, log=True)
        return chart(series, x=Axis("link", names=links), y=y, height=270)

    return stacked([(device, drawn(device)) for device in devices])
