"""A report in a real browser: whole on a phone, legible in the dark, quiet on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit.core import units
from presplit.core.tables import Column
from presplit.core.types import Boundary, Exit, Net, Pattern
from presplit.report.charts import Series, chart, matrix, ranges
from presplit.report.markup import joined
from presplit.report.pictures import Connections, pictures
from presplit.report.scales import Axis
from presplit.report.sections import Figure, Section, Table, write_report
from presplit.report.strip import strip

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


def test_a_run_s_report_reads_well_on_a_phone_and_in_the_dark(
    tmp_path: Path, open_page: Any, fits: Any, axe: Any
) -> None:
    """The net's strip, two figures, a matrix and a picture."""
    net = Net(
        tuple(Boundary(f"a.long.name.of.block{k}", (64, 16, 16)) for k in range(12)),
        (Exit("early", 4, 10), Exit("final", 11, 10)),
    )
    costs = [(10_000 * (k + 1), 1000) for k in range(11)]
    pattern = Pattern(n_in=256, tile=16, index=np.arange(256).reshape(4, 64))
    drawn = joined(
        strip(net, costs, shares={"early": 0.8}, split=5, payload="int8, 4.1 kB"),
        pictures([Connections(f"conv{k}", pattern) for k in range(3)]),
    )
    lines = [Series(name, range(50), range(50)) for name in ("early", "final")]
    figures = [
        Figure("Lines", "Up is better.", chart(lines, x=Axis("x"), y=Axis("y"))),
        Figure("Matrix", "All of it.", matrix([[9, 1], [0, 7]], ["cat", "dog"])),
        Figure("Ranges", "Each.", ranges([("early", 0.9, 0.8, 0.95)], axis=Axis("accuracy"))),
    ]
    sections = [Section("The net", "A row.", html=drawn, figures=figures)]
    path = write_report(tmp_path / "r.html", title="A run", sections=sections)
    for width, dark in ((390, True), (1280, False)):
        page = open_page(path, width=width, dark=dark)
        assert fits(page) and axe(page) == []
    pages = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert pages == [86, 86, 86]  # three of 256 inputs are a dot
