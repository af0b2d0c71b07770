"""One HTML file that says what a run did: facts, a table, figures.

It needs no network, no script and no font.

The only file that knows jinja2. Everything but the figures' SVG is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presplit.core import units
from presplit.core.errors import SpecError, library
from presplit.core.tables import Column, cells

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

_TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True)
class Figure:
    """An SVG element with its title, and a caption that says what is to be seen.

    The elements are made by `presplit.report.plots`.
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


def write_page(
    path: str | Path,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[Column] = WAYS,
    table_title: str = "Ways to answer the same inputs",
    figures: Sequence[Figure] = (),
    facts: Mapping[str, str] | None = None,
    lead: str = "",
    footer: str = "",
) -> Path:
    """Write the page to ``path`` (its directories are made) and give the path back.

    ``facts`` maps labels to values that stand above the table; ``lead`` is the sentence below the
    title, ``footer`` the last line. Raises `MissingLibrary` without jinja2, `SpecError` if the file
    cannot be written.
    """
    path = Path(path)
    jinja2 = library("jinja2", need="the report", extra="report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        lead=lead,
        facts=list((facts or {}).items()),
        table_title=table_title,
        columns=columns,
        rows=cells(rows, columns),
        figures=figures,
        footer=footer,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: the report cannot be written ({error.strerror})") from error
    return path
