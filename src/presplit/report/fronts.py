"""The report of a sweep: accuracy against what it costs, the differences to dense, every run.

It is made of what ``sweep.json`` holds (`presplit.lab.sweep.found`), as decoded JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from presplit.core import units
from presplit.core.tables import Column
from presplit.report.beside_dense import FINAL, Found, best_sparse, clock_words, plus, slower
from presplit.report.charts import HUES, Series, chart, ranges
from presplit.report.markup import Html, element
from presplit.report.scales import Axis, share
from presplit.report.sections import Figure, Section, Table, write_report


@dataclass(frozen=True)
class Mark:
    """A point of a sweep in a chart: its accuracy with its interval, if it has one, at a cost."""

    name: str
    cost: float
    accuracy: float
    ends: tuple[float, float] | None


def write_sweep(path: str | Path, found: Found) -> Path:
    """Write the report of a sweep to ``path``; raises `SpecError` if it cannot be written."""
    points = found["points"]
    best = max((_mean(point) for point in points), default=0.0)
    facts = {
        **best_sparse(found),
        "settings": str(len(points)),
        "finished runs": f"{sum(point['runs'] for point in points)} of {len(found['rows'])}",
        "test samples": f"{found['samples'].get('test', 0):,}",
        "best accuracy": units.percent(best),
    }
    return write_report(
        path,
        title=f"Sweep {found['name']}",
        lead=f"{_varied(found)}, each with {len(found['seeds'])} seeds, beside the dense net.",
        facts=facts,
        sections=sections(found),
        footer=f"Presplit {found['versions'].get('presplit', '')}; {found['machine']}.",
    )


def sections(found: Found) -> list[Section]:
    """The parts of a sweep's report; parts for which nothing is finished are left out."""
    made = [_fronts(found), _early(found), _differences(found), _points(found), _runs(found)]
    return [section for section in (*made, _made(found)) if section is not None]


def front(marks: Sequence[Mark]) -> list[Mark]:
    """The marks that no other one beats: none is at least as accurate at no more cost.

    They are in the order of their cost.

    >>> some = [Mark("a", 1, 0.8, None), Mark("b", 2, 0.7, None), Mark("c", 3, 0.9, None)]
    >>> [mark.name for mark in front(some)]
    ['a', 'c']
    """
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.cost, -mark.accuracy)):
        if not kept or mark.accuracy > kept[-1].accuracy:
            kept.append(mark)
    return kept


def _fronts(found: Found) -> Section | None:
    """Accuracy against each cost."""
    if not found["points"]:
        return None
    timed = [point for point in found["points"] if point["seconds"]]
    costs: list[tuple[str, str, str, Axis, Callable[[Any], float], Sequence[Any]]] = [
        ("weights", "weights", "that are stored and trained.", _axis("weights", units.count),
         lambda point: point["weights"], found["points"]),
        ("macs", "MACs", "(multiplications) of one answer at the last exit, as the exported net "
         "does them.", _axis("MACs of an answer", units.count),
         lambda point: point["macs"], found["points"]),
        ("time", "measured time", "of one sample on one thread of the machine below.",
         _axis("time of an answer", units.seconds),
         lambda point: point["seconds"]["mean"], timed),
        ("bytes", "bytes", "that the exported net takes where it is stored.",
         _axis("bytes stored", units.data), lambda point: point["bytes"], found["points"]),
    ]  # fmt: skip
    figures = [
        Figure(
            f"Accuracy against {title}",
            f"{title[0].upper()}{title[1:]} {what}",
            _chart(_marks(of, cost), axis),
        )
        for _, title, what, axis, cost, of in costs
        if of
    ]
    return Section(
        "What accuracy costs",
        "Up and to the left is better. The dashed line joins what nothing else beats: no net "
        "is as accurate for less.",
        figures=figures,
        note=_interval_note(found) + slower(found),
    )


def _early(found: Found) -> Section | None:
    """What answers at early exits give."""
    points = [point for point in found["points"] if point["routed_accuracy"]]
    if not points:
        return None
    marks = [
        _mark(point["point"], point["routed_macs"]["mean"], point["routed_accuracy"])
        for point in points
    ]
    routed = next(row["routed"] for row in found["rows"] if row["routed"])
    drop, held = 100 * routed["max_drop"], found["samples"].get("held_out", 0)
    return Section(
        "With early answers",
        "Each sample is answered by the first exit that is sure of it, so most are answered for "
        f"less. What sure means was chosen to lose at most {drop:g} percentage points on "
        f"{held:,} held-out samples.",
        figures=[
            Figure(
                "Accuracy against mean MACs",
                "Both over the test set, where a sample costs what was computed until it left.",
                _chart(marks, _axis("mean MACs of an answer", units.count)),
            ),
            Figure(
                "Accuracy of each exit",
                "Were it to answer every sample.",
                _exits_chart(found),
            ),
        ],
    )


def _exits_chart(found: Found) -> str:
    names = list(found["points"][0]["accuracy"])
    axis = Axis("", names=names)
    series = [
        Series(
            point["point"],
            [float(place) for place in range(len(names))],
            [point["accuracy"][name]["mean"] for name in names],
            marks=True,
        )
        for point in found["points"][:HUES]
        if list(point["accuracy"]) == names
    ]
    return chart(series, x=axis, y=Axis("test accuracy", share))


def _differences(found: Found) -> Section | None:
    """What each point gains or loses against the dense net of the same seed."""
    rows = [
        (point["point"], 100 * each["mean"], 100 * _low(each), 100 * _high(each))
        for point in found["points"]
        if (each := point["difference"].get(FINAL)) is not None
    ]
    if not rows:
        return None
    several = len(found["seeds"]) > 1
    ends = (
        "The line is the 95 % interval of the mean: where it crosses 0, these seeds do not tell "
        "the two apart."
        if several
        else "One seed says nothing of others: sweep with --seeds 3 to see intervals."
    )
    return Section(
        "Against the dense net",
        "Accuracy less that of the dense net which was trained with the same seed, on the same "
        "test samples.",
        figures=[
            Figure(
                "Percentage points gained or lost",
                ends,
                ranges(rows, axis=Axis("percentage points of accuracy")),
            )
        ],
    )


def _points(found: Found) -> Section | None:
    """Every point as a row."""
    if not found["points"]:
        return None
    early = [name for name in found["points"][0]["accuracy"] if name != FINAL]
    columns = [
        Column("point", "setting", str, text=True),
        Column("runs", "runs", str),
        *(Column(f"exit {name}", f"exit {name}", str) for name in (*early, FINAL)),
        Column("difference", "minus dense, percentage points", str),
        Column("weights", "weights"),
        Column("macs", "MACs"),
        Column("bytes", "stored", units.data),
        *([Column("seconds", "time", units.seconds)] if found["measured"] else []),
    ]
    rows = [
        {
            **{key: point[key] for key in ("point", "runs", "weights", "macs", "bytes")},
            **{f"exit {name}": _percent(each) for name, each in point["accuracy"].items()},
            "difference": plus(point["difference"].get(FINAL)),
            "seconds": point["seconds"] and point["seconds"]["mean"],
        }
        for point in found["points"]
    ]
    dense = frozenset(n for n, point in enumerate(found["points"]) if point["dense"])
    return Section(
        "Settings",
        tables=[Table(rows, columns, "Means over seeds; dense nets are marked.", dense)],
    )


def _runs(found: Found) -> Section:
    """Every run as a row."""
    columns = [
        Column("run", "run", str, text=True),
        Column("state", "state", str, text=True),
        Column("accuracy", "accuracy", units.percent),
        Column("routed", "leaving early", units.percent),
        Column("weights", "weights"),
        Column("seconds", "time", units.seconds),
        Column("train_s", "trained in", units.seconds),
    ]
    shown = [
        column
        for column in columns
        if column.text or any(_run_row(row).get(column.key) is not None for row in found["rows"])
    ]
    return Section("Runs", tables=[Table([_run_row(row) for row in found["rows"]], shown)])


def _run_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": row["run"],
        "state": f"{row['state']}: {row['reason']}" if row["reason"] else row["state"],
        "accuracy": row["accuracy"].get(FINAL),
        "routed": row["routed"] and row["routed"]["accuracy"],
        **{key: row[key] for key in ("weights", "seconds", "train_s")},
    }


def _made(found: Found) -> Section:
    """What makes the sweep again."""
    measured = found["measured"]
    facts = {
        **{key: ", ".join(values) for key, values in found["grid"].items()},
        "seeds": ", ".join(map(str, found["seeds"])),
        **{name: f"{count:,}" for name, count in _samples(found["samples"])},
        **found["versions"],
    }
    timed = (
        f"Times: {measured['engine']}; all nets in turn for {measured['rounds']:,} rounds, so that "
        "a busy moment falls on all; every exit is computed. Then: "
        f"{clock_words(measured['clock'])}."
        if measured
        else "Times were not measured."
    )
    command = element("pre", found["command"], class_="wrap", tabindex="0")
    return Section(
        "How it was made",
        facts=facts,
        html=command if found["command"] else Html(""),
        note=f"{timed} Machine: {found['machine']}.",
    )


def _samples(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    words = {"train": "samples to train with", "held_out": "held out", "test": "to test with"}
    return [(words[key], count) for key, count in counts.items() if key in words]


def _chart(marks: Sequence[Mark], axis: Axis) -> str:
    """Every mark with its interval, and the line of those that none beats."""
    best = front(marks)
    line = Series(
        "nothing is as accurate for less" if len(best) > 1 else "",
        [mark.cost for mark in best],
        [mark.accuracy for mark in best],
        steps=True,
        dashed=True,
        hue=0,
    )
    lines = [line] if len(best) > 1 else []
    return chart([*lines, *_series(marks)], x=axis, y=Axis("test accuracy", share))


def _series(marks: Sequence[Mark]) -> list[Series]:
    """A series for each mark while there are hues for them, else all dense and all sparse ones."""
    groups = {mark.name: [mark] for mark in marks}
    if len(marks) > HUES:
        groups = {
            "dense": [mark for mark in marks if mark.name.startswith("dense")],
            "sparse": [mark for mark in marks if not mark.name.startswith("dense")],
        }
    return [
        Series(
            name,
            [mark.cost for mark in group],
            [mark.accuracy for mark in group],
            line=False,
            marks=True,
            spread=[mark.ends or (mark.accuracy, mark.accuracy) for mark in group],
            hue=number % HUES + 1,
        )
        for number, (name, group) in enumerate(groups.items())
        if group
    ]


def _marks(points: Sequence[Any], cost: Callable[[Any], float]) -> list[Mark]:
    return [_mark(point["point"], cost(point), point["accuracy"][FINAL]) for point in points]


def _mark(name: str, cost: float, each: Mapping[str, Any]) -> Mark:
    ends = None if each["low"] is None else (max(0.0, each["low"]), min(1.0, each["high"]))
    return Mark(name, cost, each["mean"], ends)


def _axis(title: str, show: Callable[[float], str]) -> Axis:
    return Axis(title, show, low=0.0)


def _varied(found: Found) -> str:
    """What the sweep varies, in words."""
    said = [f"{key} = {', '.join(values)}" for key, values in found["grid"].items()]
    return " and ".join(said)


def _interval_note(found: Found) -> str:
    tested = f"Accuracy: of {found['samples'].get('test', 0):,} test samples"
    count = len(found["seeds"])
    if count == 1:
        return f"{tested}, with one seed, which says nothing of others."
    return f"{tested}, mean over {count} seeds with its 95 % interval (Student's t)."


def _mean(point: Mapping[str, Any]) -> float:
    return point["accuracy"][FINAL]["mean"]


def _low(each: Mapping[str, Any]) -> float:
    return each["mean"] if each["low"] is None else each["low"]


def _high(each: Mapping[str, Any]) -> float:
    return each["mean"] if each["high"] is None else each["high"]


def _percent(each: Mapping[str, Any]) -> str:
    half = "" if each["high"] is None else f" ± {100 * (each['high'] - each['mean']):.2f}"
    return f"{100 * each['mean']:.2f} %{half}"
