"""Plots: well-formed SVG that says what it shows, the same for the same data, without leftovers."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from presplit.core.errors import MissingLibrary, SpecError
from presplit.report.plots import accuracy_against_bytes, answers_over_time, times_over_links

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> str:
    return " ".join(element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text"))


def test_every_way_is_named(rows: list[dict]) -> None:
    shown = texts(accuracy_against_bytes(rows))
    assert all(row["way"] in shown for row in rows)
    assert "bytes sent for one answer (mean)" in shown and "accuracy (%)" in shown


def test_every_why_is_counted_and_the_deadline_is_drawn(timeline: list[dict]) -> None:
    shown = texts(answers_over_time(timeline, outage=(3.0, 6.0), deadline_s=0.05))
    for words in (
        "confident (30)",
        "server (30)",
        "late (30)",
        "link_down (30)",
        "server gone",
        "deadline 50 ms",
    ):
        assert words in shown
    assert "overloaded" not in shown


def test_equal_data_give_equal_svg(rows: list[dict], timeline: list[dict]) -> None:
    assert accuracy_against_bytes(rows) == accuracy_against_bytes(rows)
    first, second = (
        answers_over_time(timeline, outage=(3.0, 6.0), deadline_s=0.05) for _ in range(2)
    )
    assert first == second


def test_one_way_alone_or_no_answer_yet_can_be_drawn(rows: list[dict]) -> None:
    ET.fromstring(accuracy_against_bytes(rows[:1]))
    ET.fromstring(answers_over_time([], outage=(0.0, 1.0), deadline_s=None))


def test_drawing_leaves_no_settings_behind(rows: list[dict]) -> None:
    import matplotlib

    before = matplotlib.rcParams.copy()
    accuracy_against_bytes(rows)
    assert matplotlib.rcParams.copy() == before


def test_drawing_loads_no_pyplot() -> None:
    program = (
        "import sys; from presplit.report.plots import answers_over_time as plot;"
        "plot([{'t_s': 0, 'elapsed_s': 1, 'why': 'late'}], outage=(0, 1), deadline_s=1);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_the_page_s_own_ink_is_used(rows: list[dict]) -> None:
    svg = accuracy_against_bytes(rows)
    assert "currentColor" in svg and "#010203" not in svg


def test_no_rows_are_refused() -> None:
    with pytest.raises(SpecError, match="at least one row, got 0"):
        accuracy_against_bytes([])


def test_a_missing_matplotlib_is_one_sentence(
    rows: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        MissingLibrary, match=r"a plot needs matplotlib: pip install 'presplit\[report\]'"
    ):
        accuracy_against_bytes(rows)


def test_times_over_links_have_a_field_for_each_device_and_a_line_for_each_way() -> None:
    rows = [
        {"device": device, "link": link, "way": way, "mean_s": 0.01 * (1 + len(way))}
        for device in ("tiny", "small")
        for link in ("slow", "fast")
        for way in ("alone", "ours")
        if (device, link, way) != ("tiny", "fast", "alone")
    ]
    svg = times_over_links(rows)
    said = texts(svg)
    assert all(said.count(word) == 1 for word in ("tiny", "small", "alone", "ours"))
    assert said.count("slow") == said.count("fast") == 2
    with pytest.raises(SpecError, match="expected at least one row, got 0"):
        times_over_links([])
