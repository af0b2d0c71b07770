"""Rows as plain aligned text: the one printer of plans, verbs and benchmarks.

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


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """A column for every key that the rows have, under the key's own name.

    Numbers keep four digits: in a measurement, more are noise.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    return [Column(key, key, plain, text=_holds_text(rows, key)) for key in keys]


def cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[list[str]]:
    """The text of every cell, row by row."""
    return [[column.cell(row) for column in columns] for row in rows]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Plain text: titles, a rule, one line for each row, columns two spaces apart.

    >>> rows = [{"way": "edge", "accuracy": 0.97}, {"way": "server", "accuracy": 0.985}]
    >>> columns = Column("way", "way", str, text=True), Column("accuracy", "right", units.percent)
    >>> print(table(rows, columns))
    way       right
    ------  -------
    edge    97.00 %
    server  98.50 %
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


def plain(value: object) -> str:
    """``value`` as text, of a float four digits.

    >>> plain(1.23456), plain(1234), plain("edge")
    ('1.235', '1234', 'edge')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _holds_text(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [row[key] for row in rows if row.get(key) is not None]
    return any(not isinstance(value, int | float) for value in values)
