"""A report is a list of sections in one HTML file that needs no network, no script and no font.

Whatever is not SVG or `presplit.report.markup.Html` is text, and text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from presplit.core.errors import SpecError
from presplit.core.tables import Column, cells
from presplit.report.markup import Html, element, joined
from presplit.report.pages import text


@dataclass(frozen=True)
class Figure:
    """An SVG element with its title, and a caption that says what is to be seen.

    The elements are made by `presplit.report.charts`.
    """

    title: str
    caption: str
    svg: str

    def __post_init__(self) -> None:
        if (
            not self.svg.startswith("<svg")
            or not self.svg.endswith("</svg>")
            or re.search(r"<script", self.svg, re.I)
        ):
            raise SpecError(f"figure {self.title!r}: expected one <svg> element without scripts")


@dataclass(frozen=True)
class Table:
    """Rows as `presplit.core.tables` takes them; the first column names the row.

    ``caption`` stands above it; ``chosen`` are the numbers of rows that are marked.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[Column]
    caption: str = ""
    chosen: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Section:
    """A part of a report: what is given is shown in this order, what is empty is left out.

    ``lead`` is a sentence or two that say what is to be seen. ``facts`` maps labels to values,
    ``html`` is ready HTML of the section's own making, ``note`` is small print below all.
    """

    title: str
    lead: str = ""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    html: Html = Html("")
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    note: str = ""


def write_report(
    path: str | Path,
    *,
    title: str,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
    sections: Sequence[Section],
    footer: str = "",
) -> Path:
    """Write the page to ``path`` (its directories are made) and give the path back.

    ``lead`` is the sentence below the title, ``facts`` what a reader is to see first. Raises
    `SpecError` if the file cannot be written.
    """
    path = Path(path)
    page = report(title=title, lead=lead, facts=facts or {}, sections=sections, footer=footer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of a file may hold bytes that are no text.
        path.write_bytes(page.encode(errors="backslashreplace"))
    except OSError as error:
        raise SpecError(f"{path}: the report cannot be written ({error.strerror})") from error
    return path


def report(
    *, title: str, lead: str, facts: Mapping[str, str], sections: Sequence[Section], footer: str
) -> Html:
    """The page as text."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(_without_comments(text("look.css")))),
    )
    header = element("header", element("h1", title), _paragraph(lead, "lead"), facts_list(facts))
    parts = [section_card(section, number) for number, section in enumerate(sections, 1)]
    body = element("main", header, *parts, _footer(footer))
    return joined(
        Html("<!doctype html>\n"), element("html", head, element("body", body), lang="en")
    )


def section_card(section: Section, number: int) -> Html:
    """One section as a card whose title has the id ``section-NUMBER``."""
    name = f"section-{number}"
    return element(
        "section",
        element("h2", section.title, id=name),
        _paragraph(section.lead),
        facts_list(section.facts),
        section.html,
        figures_grid(section.figures),
        *(data_table(table) for table in section.tables),
        _paragraph(section.note, "note"),
        class_="card",
        aria_labelledby=name,
    )


def facts_list(facts: Mapping[str, str]) -> Html:
    """Labels and values side by side; nothing where there are none."""
    if not facts:
        return Html("")
    pairs = (
        element("div", element("dt", label), element("dd", value)) for label, value in facts.items()
    )
    return element("dl", *pairs, class_="facts")


def figures_grid(figures: Sequence[Figure]) -> Html:
    """Figures side by side where there is room; nothing where there are none."""
    if not figures:
        return Html("")
    drawn = (
        element(
            "figure",
            element("h3", each.title),
            element("div", Html(each.svg), role="img", aria_label=f"{each.title}. {each.caption}"),
            element("figcaption", each.caption),
        )
        for each in figures
    )
    return element("div", *drawn, class_="figures")


def data_table(table: Table) -> Html:
    """A table whose rows become blocks of labelled values on a phone; nothing without rows."""
    if not table.rows:
        return Html("")
    head = [
        element("th", column.title, scope="col", role="columnheader", class_=_kind(column))
        for column in table.columns
    ]
    body = [
        _table_row(row, table.columns, is_chosen=number in table.chosen)
        for number, row in enumerate(cells(table.rows, table.columns))
    ]
    caption = element("caption", table.caption) if table.caption else Html("")
    # The roles stay said where the look makes blocks of the rows: browsers forget them then.
    shown = element(
        "table",
        caption,
        element("thead", element("tr", *head, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        class_="stack",
        role="table",
    )
    label = table.caption or table.columns[0].title or "table"
    return element("div", shown, class_="scroll", tabindex="0", role="region", aria_label=label)


def _table_row(row: Sequence[str], columns: Sequence[Column], *, is_chosen: bool) -> Html:
    name, *values = (
        element("th", cell, scope="row", role="rowheader", class_=_kind(column))
        if number == 0
        else element("td", cell, role="cell", class_=_kind(column), data_label=column.title)
        for number, (cell, column) in enumerate(zip(row, columns, strict=True))
    )
    return element("tr", name, *values, role="row", class_="chosen" if is_chosen else None)


def _kind(column: Column) -> str | None:
    return "text" if column.text else None


def _paragraph(words: str, kind: str | None = None) -> Html:
    return element("p", words, class_=kind) if words else Html("")


def _footer(words: str) -> Html:
    return element("footer", words) if words else Html("")


def _without_comments(css: str) -> str:
    return re.sub(r"/\*.*?\*/\s*", "", css, flags=re.S)
