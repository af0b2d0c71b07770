"""A report is one file: complete without a network, safe with any text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from presplit.core.errors import SpecError
from presplit.core.tables import Column
from presplit.report.pages import files
from presplit.report.sections import Figure, Section, Table, write_report

COLUMNS = (Column("way", "way", str, text=True), Column("n", "how many"))
SVG = '<svg viewBox="0 0 4 3"></svg>'


def written(path: Path, **words: object) -> str:
    title = str(words.pop("title", "Run"))
    return write_report(path / "deep" / "r.html", title=title, **words).read_text("utf-8")


def test_all_that_is_given_is_shown_and_nothing_is_loaded(tmp_path: Path) -> None:
    section = Section(
        "Ways",
        "Two of them.",
        facts={"fact": "1 s"},
        figures=[Figure("Time", "Down is better.", SVG)],
        tables=[Table([{"way": "edge", "n": 1200}], COLUMNS, caption="All ways")],
        note="By hand.",
    )
    page = written(tmp_path, sections=[section], lead="So.", facts={"a": "b"}, footer="End.")
    for words in ("Two of them.", "1 s", "1,200", "All ways", "By hand.", "So.", "End.", SVG):
        assert words in page
    assert 'data-label="how many"' in page and "prefers-color-scheme: dark" in page
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(|https?:", page)


def test_text_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    bad = "<script>1</script>"
    column = Column("way", f'"{bad}', str, text=True)
    section = Section(bad, bad, {bad: bad}, tables=[Table([{"way": bad}], [column], caption=bad)])
    page = written(tmp_path, title=bad, lead=bad, facts={bad: bad}, sections=[section], footer=bad)
    assert "<script" not in page and page.count("&lt;script&gt;") >= 12


def test_a_figure_that_is_not_a_plain_svg_is_refused() -> None:
    for svg in ("<img src=x>", "<svg><script>1</script></svg>", "<svg></svg><p>"):
        with pytest.raises(SpecError, match="figure 'f': expected one <svg> element"):
            Figure("f", "", svg)


def test_a_name_that_is_no_text_is_written_as_its_bytes(tmp_path: Path) -> None:
    assert r"runs/r\udcff" in written(tmp_path, sections=[], footer="runs/r\udcff")


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match=r"file/r\.html: the report cannot be written"):
        write_report(tmp_path / "file" / "r.html", title="t", sections=[])


def test_a_page_s_file_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(SpecError, match=r"expected one of .*look\.css.*, got '\.\./page\.html'"):
        files("look.css", "../page.html")
