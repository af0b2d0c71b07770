"""A report in a real browser: whole on a phone, legible in the dark, quiet on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presplit.core import units
from presplit.core.tables import Column
from presplit.report.sections import Section, Table, write_report

COLUMNS = [
    Column("way", "way", str, text=True),
    *(Column(f"c{k}", f"a column of number {k}", units.percent) for k in range(8)),
]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    rows = [{"way": f"way {n}", **{f"c{k}": 0.1 * k for k in range(8)}} for n in range(3)]
    sections = [Section("Ways", "All of them.", {"fact": "1 s"}, tables=[Table(rows, COLUMNS)])]
    return write_report(
        tmp_path / "r.html", title="A report", lead="So it is.", facts={"a": "b"}, sections=sections
    )


def test_every_cell_of_a_wide_table_is_seen_on_a_phone(
    report: Path, open_page: Any, fits: Any, axe: Any
) -> None:
    page = open_page(report, width=390)
    assert fits(page)
    lefts = page.evaluate(
        "[...document.querySelectorAll('td')].map(e => e.getBoundingClientRect().right)"
    )
    assert len(lefts) == 24 and max(lefts) <= 390
    assert axe(page) == []


def test_a_report_reads_well_in_the_dark(report: Path, open_page: Any, fits: Any, axe: Any) -> None:
    page = open_page(report, dark=True)
    assert fits(page)
    assert axe(page) == []
