"""Rows as plain aligned text for terminals, as Markdown for docs.

What a column shows is said once, by its `Column`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from presplit.core import units


@dataclass(frozen=True)
class Column:
    """One column: the rows' ``key`` that it shows, its ``title``, and how a value becomes text.

    Text is aligned to the left, numbers to the right. A row without the key shows an empty cell.
    """

    key: str
    title: str
    show: Callable[[Any], str] = units.count
    text: bool = False

    def cell(self, row: Mapping[str, Any]) -> str:
        """What this column shows of ``row``."""
        value = row.get(self.key)
        return "" if value is None else self.show(value)


WAYS: tuple[Column, ...] = (
    Column("way", "way", str, text=True),
    Column("accuracy", "accuracy", units.percent),
    Column("edge_share", "on the edge", units.percent),
    Column("p50_s", "p50", units.seconds),
    Column("p99_s", "p99", units.seconds),
    Column("up_bytes", "sent/answer", units.data),
    Column("weights", "weights", units.count),
    Column("edge_macs", "edge MACs", units.count),
)
"""The demo's table: one row for each way to answer the same inputs.

Rows without weights may leave them out.
"""


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    """The text of every cell, row by row."""
    return [[column.cell(row) for column in columns] for row in rows]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Plain text: titles, a rule, one line for each row, columns two spaces apart.

    >>> rows = [{"way": "edge", "accuracy": 0.97}, {"way": "server", "accuracy": 0.985}]
    >>> print(table(rows, WAYS[:2]))
    way     accuracy
    ------  --------
    edge     97.00 %
    server   98.50 %
    """
    body = cells(rows, columns)
    widths = [
        max(map(len, column)) for column in zip(*([c.title for c in columns], *body), strict=True)
    ]
    lines = [[c.title for c in columns], ["-" * width for width in widths], *body]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column.text else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """The same table for a Markdown file.

    >>> print(markdown([{"way": "edge", "accuracy": 0.97}], WAYS[:2]))
    | way | accuracy |
    | :-- | --: |
    | edge | 97.00 % |
    """
    titles, rule = [c.title for c in columns], [":--" if c.text else "--:" for c in columns]
    lines = [
        [cell.replace("|", "\\|") for cell in line]
        for line in (titles, rule, *cells(rows, columns))
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
