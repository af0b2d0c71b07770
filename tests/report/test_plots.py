"""Plots and charts: well-formed SVG that says what it shows, in the page's own colours."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from presplit.core.errors import SpecError
from presplit.report.charts import (
    MANY,
    WIDTH,
    Rule,
    Series,
    Span,
    alone,
    chart,
    matrix,
    ranges,
)
from presplit.report.plots import accuracy_against_bytes, answers_over_time, times_over_links
from presplit.report.scales import Axis, laid, share


def texts(svg: str) -> str:
    return " ".join(element.text or "" for element in ET.fromstring(svg).iter("text"))


def places(svg: str) -> list[tuple[float, float]]:
    """Where the drawing's absolute moves and lines lead."""
    found = re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", svg)
    return [(float(x), float(y)) for x, y in found]


def test_every_way_is_named(rows: list[dict]) -> None:
    shown = texts(accuracy_against_bytes(rows))
    assert all(row["way"] in shown for row in rows)
    assert "sent for one answer (mean)" in shown and "accuracy" in shown


def test_every_why_is_counted_and_the_deadline_is_drawn(timeline: list[dict]) -> None:
    shown = texts(answers_over_time(timeline, outage=(3.0, 6.0), deadline_s=0.05))
    for words in (
        "an early exit was sure (30)",
        "the server answered (30)",
        "no reply in time (30)",
        "alone: server not reached (30)",
        "server gone",
        "deadline 50 ms",
    ):
        assert words in shown
    assert "overloaded" not in shown


def test_a_way_that_is_too_large_is_hollow_and_ways_on_one_another_share_a_mark(
    rows: list[dict],
) -> None:
    same = [dict(row, accuracy=0.9 + k / 50) for k, row in enumerate(rows)]
    same[4] |= {"up_bytes": same[3]["up_bytes"] + 1, "accuracy": same[3]["accuracy"]}
    drawn = accuracy_against_bytes([dict(same[0], is_large=True, ends=(0.8, 0.9)), *same[1:]])
    assert drawn.count('class="mo"') == 1 and drawn.count("edge (too large)") == 1
    assert "split+exit and split+exit+outage" in texts(drawn)
    assert drawn.count("m-3,0h6") == 1


def test_no_axis_of_shares_goes_beyond_all() -> None:
    assert laid(Axis("accuracy", share), [0.2, 1.0], 0, 100).high == 1.0


def test_one_way_alone_or_no_answer_yet_can_be_drawn(rows: list[dict]) -> None:
    ET.fromstring(accuracy_against_bytes(rows[:1]))
    ET.fromstring(answers_over_time([], outage=(0.0, 1.0), deadline_s=None))


def test_no_rows_are_refused() -> None:
    with pytest.raises(SpecError, match="at least one row, got 0"):
        accuracy_against_bytes([])
    with pytest.raises(SpecError, match="at least one row, got 0"):
        times_over_links([])


def test_every_device_and_link_is_named_and_the_boundaries_of_each_chart_are_kept() -> None:
    rows = [
        {"device": device, "link": link, "way": way, "mean_s": 0.01}
        for device in ("pi", "mcu")
        for link in ("lte", "wifi")
        for way in ("edge", "ours")
    ]
    svg = times_over_links(rows)
    assert {"pi", "mcu", "lte", "wifi", "edge", "ours"} <= set(texts(svg).split())
    assert svg == times_over_links(rows)


def test_nothing_is_drawn_beyond_the_edges() -> None:
    series = [
        Series("low & high", [1, 10, 1e4], [1e-6, 0.5, 0.9], spread=[(0, 1), (0.4, 0.6), (0, 1)]),
        Series("marks", [3.0], [0.2], line=False, marks=True, spread=[(0.1, 0.3)]),
    ]
    drawn = chart(
        series,
        x=Axis("bytes", log=True, high=100),
        y=Axis("share", share, low=0.0, high=1.0),
        rules=[Rule("here", x=50), Rule("there", y=0.5)],
        spans=[Span("gone", 2, 5)],
    )
    assert {"here", "there", "gone", "low & high"} <= {e.text for e in ET.fromstring(drawn).iter()}
    assert all(-1 <= x <= WIDTH + 1 and -1 <= y <= 260 for x, y in places(drawn))


def test_many_marks_weigh_little_and_few_have_forms_of_their_own() -> None:
    few = chart(
        [Series(f"{n}", [1.0], [1.0], line=False, marks=True) for n in range(8)],
        x=Axis("x"),
        y=Axis("y"),
    )
    marks = re.findall(r'class="s(\d) mk" d="M[^a-z]*(\w[^"]*)"', few)
    assert len(dict(marks)) == len({form for _, form in marks}) == 8
    many = Series("n", range(100 * MANY), range(100 * MANY), line=False, marks=True)
    assert len(chart([many], x=Axis("x"), y=Axis("y"))) < 20 * 100 * MANY


def test_a_series_of_uneven_length_is_refused() -> None:
    with pytest.raises(SpecError, match="a: expected a y for each of 2 x"):
        chart([Series("a", [1, 2], [1])], x=Axis("x"), y=Axis("y"))


@pytest.mark.parametrize("low", [-3e5, 0.0, 1e-6, 0.1, 7.0])
@pytest.mark.parametrize("width", [0.0, 1e-7, 0.04, 3.0, 1e6])
@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_few_and_rise_within_the_ends(low: float, width: float, log: bool) -> None:
    scale = laid(Axis("x", log=log), [low, low + width], 0, 100)
    ticks = [value for value, _ in scale.ticks()]
    assert len(ticks) <= 10 and ticks == sorted(ticks)
    assert all(-0.01 <= scale.place(value) <= 100.01 for value in ticks)
    if not log and width > 1e-3 * abs(low):
        assert len(ticks) >= 3


def test_counts_have_no_ticks_between_them_and_a_short_powers_axis_has_ticks_too() -> None:
    epochs = [
        value for value, _ in laid(Axis("epoch", whole=True, low=1, high=3), [], 0, 9).ticks()
    ]
    assert epochs == [1, 2, 3]
    near = laid(Axis("time", log=True), [0.0195, 0.0199], 0, 9).ticks()
    assert len(near) >= 2


def test_a_matrix_counts_every_confusion_while_there_is_room() -> None:
    assert texts(matrix([[9, 1], [0, 7]], ["cat", "dog"])).split() == [
        *("taken", "for", "cat", "9", "1", "dog", "7", "cat", "dog")
    ]
    many = matrix([[1] * 40 for _ in range(40)], [f"class {k}" for k in range(40)])
    assert texts(many) == "taken for"


def test_ranges_name_each_row_and_shorten_what_is_too_long() -> None:
    shown = texts(
        ranges([("early", 0.9, 0.8, 0.95), ("x" * 60, 0.5, 0.4, 0.6)], axis=Axis("accuracy", share))
    )
    assert "early" in shown and "x" * 30 not in shown and "accuracy" in shown


def test_a_chart_as_a_file_brings_its_colours_for_light_and_dark() -> None:
    svg = alone(chart([Series("a", [1, 2], [1, 2])], x=Axis("x"), y=Axis("y")))
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in svg and ".s1 {" in svg
