"""What people read of a net's classes: the worst ones, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from presplit.core.tables import Column, table

CONFUSIONS = 5
"""So many of the commonest confusions are told."""
EXITS = 3
"""So many early exits have a column of their own."""


def classes_text(result: Mapping[str, Any], *, most: int) -> str:
    """The worst ``most`` classes of a run's ``result``, and its commonest confusions."""
    rows = result["per_class"]
    final = [*result["accuracy"]][-1]
    tested = [row for row in rows if row["test"]]
    worst = sorted(tested, key=lambda row: (row["accuracy"][final], -row["test"]))
    shown = worst[:most]
    names = [row["name"] for row in rows]
    lines = [_title(len(shown), len(tested))] if shown else []
    if shown:
        lines.append(table([_row(row, result, names) for row in shown], _columns(result)))
    rest = worst[most:]
    if rest:
        least = rest[0]["accuracy"][final]
        lines.append(
            f"{len(rest)} more, each at least {100 * least:.1f} % right: --classes {len(worst)} "
            "shows all"
        )
    if len(tested) < len(rows):
        lines.append(_untested([row["name"] for row in rows if not row["test"]]))
    lines += _confusions(result["confusion"][final], names)
    return "\n".join(lines)


def _title(shown: int, tested: int) -> str:
    which = "Each class" if shown == tested else f"The {shown} worst of {tested} classes"
    return f"{which} on the test set, worst first (95 % interval of the final exit):"


def _columns(result: Mapping[str, Any]) -> list[Column]:
    early = [*result["accuracy"]][:-1][:EXITS]
    return [
        Column("name", "class", str, text=True),
        Column("test", "samples"),
        *(Column(name, name, str) for name in early),
        Column("final", "final", str),
        Column("interval", "interval", str),
        Column("precision", "right when named", str),
        Column("taken", "most often taken for", str, text=True),
    ]


def _row(row: Mapping[str, Any], result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    exits = [*result["accuracy"]]
    final = exits[-1]
    low, high = row["interval"][final]
    cells: dict[str, Any] = {name: _share(row["accuracy"][name]) for name in exits[:-1][:EXITS]}
    counts = result["confusion"][final][names.index(row["name"])]
    return cells | {
        "name": _short(row["name"]),
        "test": row["test"],
        "final": _share(row["accuracy"][final]),
        "interval": f"{100 * low:.0f} .. {100 * high:.0f} %",
        "precision": _share(row["precision"][final]),
        "taken": _taken(counts, names.index(row["name"]), names),
    }


def _taken(counts: Sequence[int], own: int, names: Sequence[str]) -> str:
    """What a class is most often taken for, and how often."""
    others = [(count, -at) for at, count in enumerate(counts) if at != own and count]
    if not others:
        return ""
    count, place = max(others)
    return f"{_name(-place, names)} ({count})"


def _confusions(counts: Sequence[Sequence[int]], names: Sequence[str]) -> list[str]:
    """The commonest confusions, if there are any."""
    cells = [
        (count, -label, -answer)
        for label, row in enumerate(counts)
        for answer, count in enumerate(row)
        if count and answer != label
    ]
    if not cells:
        return []
    said = [
        f"  {_short(names[-label])} taken for {_name(-answer, names)}: {count} of "
        f"{sum(counts[-label])}"
        for count, label, answer in sorted(cells, reverse=True)[:CONFUSIONS]
    ]
    wrong = sum(count for count, *_ in cells)
    return [f"Most frequent confusions, of {wrong:,} wrong answers of the final exit:", *said]


def _untested(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"Nothing is known of {', '.join(names[:5])}{more}: the test set has no sample of it"


def _name(place: int, names: Sequence[str]) -> str:
    """A class's name; outputs that stand for no class have none."""
    return _short(names[place]) if place < len(names) else f"output {place}"


def _short(name: str) -> str:
    """A name that leaves room for the numbers beside it."""
    return name if len(name) <= 28 else f"{name[:27]}…"


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
