"""The plots of a run and of a table of links, as SVG text to stand inside a page.

The only file that knows matplotlib.

No pyplot: every figure is an object of its own, so nothing is left behind. Text and axes are drawn
in the colour of the page around them (``currentColor``), so a plot follows a light or a dark page;
the hues begin as Okabe and Ito's (jfly.uni-koeln.de/color), which colour-blind readers tell apart,
and every series has its own marker as well.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from presplit.core import units
from presplit.core.errors import SpecError, library
from presplit.core.types import WHYS

_INK = "#010203"
"""Stands for the page's own colour while matplotlib draws."""
_HUES = (
    "#2383c4",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c6bb1",
    "#a6761d",
    "#7f7f7f",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

_LOOK = {
    "svg.fonttype": "none",
    "svg.hashsalt": "presplit",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def accuracy_against_bytes(rows: Sequence[Mapping[str, Any]]) -> str:
    """SVG: each way's accuracy over the bytes it sends for one answer.

    The rows are as in `presplit.report.page.WAYS`.

    Up and to the left is better. Raises `MissingLibrary` without matplotlib, `SpecError` without
    rows.
    """
    if not rows:
        raise SpecError("accuracy against bytes: expected at least one row, got 0")
    with _figure() as (figure, (axes,)):
        _ways(axes, rows, lambda row: 100 * row["accuracy"])
        low, high = (f(100 * row["accuracy"] for row in rows) for f in (min, max))
        room = max(0.25 * (high - low), 0.2)
        axes.set_ylim(low - room, min(high + room, 100.0 + room / 4))
        axes.set_ylabel("accuracy (%)")
        return _svg(figure, "accuracy")


def time_against_bytes(rows: Sequence[Mapping[str, Any]]) -> str:
    """SVG: the mean time of each way's answers over the bytes it sends for one.

    The rows are as in `presplit.report.page.WAYS`.

    Down and to the left is better. Raises `MissingLibrary` without matplotlib, `SpecError` without
    rows.
    """
    if not rows:
        raise SpecError("time against bytes: expected at least one row, got 0")
    with _figure() as (figure, (axes,)):
        _ways(axes, rows, lambda row: 1e3 * row["mean_s"])
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel("time of an answer (ms, mean)")
        return _svg(figure, "time")


def _ways(
    axes: Any, rows: Sequence[Mapping[str, Any]], height: Callable[[Mapping[str, Any]], float]
) -> None:
    """A marker for each way over the bytes that it sends."""
    for number, row in enumerate(rows):
        # Ways that coincide stay visible: each later marker is smaller than the one below it.
        axes.plot(
            row["up_bytes"],
            height(row),
            _MARKERS[number % len(_MARKERS)],
            color=_HUES[number % len(_HUES)],
            markersize=13 - min(number, 6),
            markeredgecolor="white",
            markeredgewidth=0.8,
            label=row["way"],
            clip_on=False,
            zorder=3 + number,
        )
    axes.set_xlim(0, 1.08 * max(row["up_bytes"] for row in rows) or 1)
    axes.set_xlabel("bytes sent for one answer (mean)")


def answers_over_time(
    timeline: Sequence[Mapping[str, Any]], *, outage: tuple[float, float], deadline_s: float | None
) -> str:
    """SVG: the time of each answer over the time at which it was asked.

    Its colour says why the answer is what it is.

    ``timeline`` holds ``t_s`` (since the start), ``elapsed_s`` and ``why`` of each answer;
    ``outage`` is the shaded span, start and end in the same seconds. Raises `MissingLibrary`
    without matplotlib.
    """
    with _figure() as (figure, (axes,)):
        axes.axvspan(*outage, color=_HUES[1], alpha=0.14, linewidth=0, label="server gone")
        if deadline_s is not None:
            axes.axhline(1e3 * deadline_s, color=_INK, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.annotate(
                f"deadline {units.seconds(deadline_s)}",
                (1, 1e3 * deadline_s),
                xycoords=("axes fraction", "data"),
                xytext=(0, 4),
                textcoords="offset points",
                horizontalalignment="right",
            )
        for number, why in enumerate(WHYS):
            shown = [answer for answer in timeline if answer["why"] == why]
            if shown:
                axes.plot(
                    [answer["t_s"] for answer in shown],
                    [1e3 * answer["elapsed_s"] for answer in shown],
                    _MARKERS[number % len(_MARKERS)],
                    color=_HUES[number % len(_HUES)],
                    markersize=4.5 if len(shown) > 50 else 7,
                    markeredgewidth=0,
                    alpha=0.8,
                    label=f"{why} ({len(shown):,})",
                )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.01)
        slowest_s = max((answer["elapsed_s"] for answer in timeline), default=0.001)
        axes.set_ylim(top=1.8e3 * max(slowest_s, deadline_s or 0))
        axes.set_xlabel("time since the start (s)")
        axes.set_ylabel("time of the answer (ms)")
        return _svg(figure, "outage")


def times_over_links(rows: Sequence[Mapping[str, Any]]) -> str:
    """SVG: the mean time of each way over the links, in their order; one field for each device.

    ``rows`` hold ``device``, ``link``, ``way`` and ``mean_s`` (seconds); the last way is drawn
    boldly. Down is better. Raises `MissingLibrary` without matplotlib, `SpecError` without rows.
    """
    if not rows:
        raise SpecError("times over links: expected at least one row, got 0")
    devices, links, ways = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("device", "link", "way")
    )
    with _figure(len(devices)) as (figure, fields):
        for device, axes in zip(devices, fields, strict=True):
            for number, way in enumerate(ways):
                mine = [row for row in rows if (row["device"], row["way"]) == (device, way)]
                axes.plot(
                    [links.index(row["link"]) for row in mine],
                    [1e3 * row["mean_s"] for row in mine],
                    marker=_MARKERS[number % len(_MARKERS)],
                    color=_HUES[number % len(_HUES)],
                    linewidth=2.6 if way == ways[-1] else 1.2,
                    markersize=5,
                    label=way if device == devices[0] else None,
                )
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_ylabel("mean time (ms)")
            axes.set_title(device, loc="left", fontsize=10)
            axes.set_xticks(range(len(links)), links)
        return _svg(figure, "links")


@contextlib.contextmanager
def _figure(fields: int = 1) -> Generator[tuple[Any, Sequence[Any]]]:
    """A figure with axes below each other, drawn in this file's look while the block lasts."""
    matplotlib = library("matplotlib", need="a plot", extra="report")
    with matplotlib.rc_context(_LOOK):
        figure = importlib.import_module("matplotlib.figure").Figure(
            (7.4, 1.6 + 2.4 * fields), layout="constrained"
        )
        figure.patch.set_alpha(0)
        found = [figure.add_subplot(fields, 1, number + 1) for number in range(fields)]
        for axes in found:
            axes.patch.set_alpha(0)
        yield figure, found


def _svg(figure: Any, name: str) -> str:
    """The figure as an SVG element.

    It has no prolog, no fixed size, the page's ink and font, and ids that begin with ``name``.
    """
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.6, handlelength=1.4)
    drawn = io.StringIO()
    figure.savefig(
        drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    svg = re.sub(r"\s+", " ", drawn.getvalue())
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r' width="[^"]*"| height="[^"]*"', "", svg, count=2)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = svg.replace("*{stroke", "svg *{stroke").replace(
        "font-family: 'DejaVu Sans'", "font-family: inherit"
    )
    return svg.replace(_INK, "currentColor")
