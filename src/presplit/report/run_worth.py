"""How good a run is: its exits, how sure they are, what thresholds give, and class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from presplit.core import units
from presplit.core.shares import interval
from presplit.core.tables import Column
from presplit.report.charts import Series, chart, matrix, ranges
from presplit.report.markup import Html, element
from presplit.report.scales import Axis, share
from presplit.report.sections import Figure, Section, Table, data_table

USUAL_DROP = 0.005
"""The loss of accuracy for which shares of exits are shown, the planner's own default."""
MOST_CLASSES = 20
"""Classes that are drawn: the worst of more."""
MOST_IN_MATRIX = 40
MOST_CONFUSIONS = 8
MOST_DIAGRAMS = 3
FEWEST = 5
"""Samples of a cell of a calibration diagram: what fewer say is chance."""

Result = Mapping[str, Any]


def usual_row(result: Result) -> dict[str, Any] | None:
    """The thresholds that lose at most `USUAL_DROP`; None without early exits."""
    rows = [row for row in result.get("thresholds", ()) if "max_drop" in row["goal"]]
    fitting = [row for row in rows if row["goal"]["max_drop"] <= USUAL_DROP]
    return fitting[-1] if fitting else None


def exits_section(result: Result) -> Section:
    """Every exit's accuracy with its interval, calibration, and the line of thresholds."""
    names = [*result["accuracy"]]
    rows = [_exit_row(result, name) for name in names]
    columns = [
        Column("exit", "exit", str, text=True),
        Column("accuracy", "accuracy", units.percent),
        Column("between", "95 % between", str),
        Column("held_out", "on held-out samples", units.percent),
        Column("balanced", "every class alike", units.percent),
        Column("macs", "MACs of an answer", units.count),
        Column("temperature", "temperature", "{:.2f}".format),
    ]
    is_uneven = bool(result.get("is_uneven"))
    columns = [
        column
        for column in columns
        if any(row.get(column.key) is not None for row in rows)
        and (column.key != "balanced" or is_uneven)
    ]
    figures = [*_exit_figure(rows), *_curve_figures(result), *_calibration_figures(result)]
    lead = "How often each exit is right when it answers every sample."
    if len(names) > 1:
        lead += (
            " An early exit answers where its score reaches a threshold; all other samples go on, "
            "so the higher the threshold, the more work and the more right answers."
        )
    return Section(
        "How good it is",
        lead,
        tables=[Table(rows, columns), _thresholds_table(result)],
        figures=figures,
        note=(
            "An exit is calibrated when it is as often right as it is sure. The temperature is "
            "what its scores are divided by to be so: above 1 it was too sure, below 1 not sure "
            "enough."
        ),
    )


def class_section(result: Result) -> Section | None:
    """Class by class, the worst first, and what is taken for what."""
    rows = result.get("per_class")
    if not rows:
        return None
    last = [*result["accuracy"]][-1]
    known = [row for row in rows if row["accuracy"][last] is not None]
    worst = sorted(known, key=lambda row: row["accuracy"][last])
    drawn = [
        (row["name"], row["accuracy"][last], *row["interval"][last]) for row in worst[:MOST_CLASSES]
    ]
    few = f"The {len(drawn)} worst of {len(rows)}" if len(drawn) < len(rows) else "All classes"
    figures = [
        Figure(
            "How often each class is right",
            f"{few}, each with the interval in which it lies with 95 % confidence.",
            ranges(drawn, axis=Axis("accuracy", share)),
        )
    ]
    counts = result["confusion"][last]
    if len(counts) <= MOST_IN_MATRIX:
        caption = "Each row is a class, each column an answer; blue is right, orange is not."
        names = [row["name"] for row in rows]
        square = [line[: len(names)] for line in counts]
        figures.append(Figure("What is taken for what", caption, matrix(square, names)))
    return Section(
        "Class by class",
        _confused(counts, [row["name"] for row in rows]),
        figures=figures,
        html=_classes_table(worst, [*result["accuracy"]]),
    )


def _exit_row(result: Result, name: str) -> dict[str, Any]:
    accuracy = result["accuracy"][name]
    row = {
        "exit": name,
        "accuracy": accuracy,
        "held_out": result.get("validation_accuracy", {}).get(name),
        "balanced": result.get("balanced_accuracy", {}).get(name),
        "macs": result.get("exit_macs", {}).get(name),
        "temperature": result.get("temperatures", {}).get(name),
    }
    if "samples" in result:
        low, high = interval(accuracy, result["samples"]["test"])
        row |= {"ends": (low, high), "between": f"{100 * low:.2f} and {100 * high:.2f} %"}
    return row


def _thresholds_table(result: Result) -> Table:
    """What thresholds give that were chosen for each goal; without rows where there are none."""
    names = [*result["accuracy"]]
    usual = usual_row(result)
    found = [row for row in result.get("thresholds", ()) if "accuracy" in row]
    rows = [
        {
            "goal": goal_words(row["goal"]),
            "accuracy": row["accuracy"],
            "held_out": row.get("validation_accuracy"),
            "macs": row.get("macs"),
            **{f"at {name}": row["shares"].get(name) for name in names},
        }
        for row in found
    ]
    columns = [
        Column("goal", "thresholds chosen to", str, text=True),
        Column("accuracy", "accuracy with exits", units.percent),
        Column("held_out", "on held-out samples", units.percent),
        Column("macs", "mean MACs of an answer", units.count),
        *(Column(f"at {name}", f"answered at {name}", units.percent) for name in names),
    ]
    columns = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    chosen = frozenset(number for number, row in enumerate(found) if row is usual)
    return Table(rows, columns, "With early exits, on test samples", chosen)


def goal_words(goal: Mapping[str, Any]) -> str:
    """What thresholds were chosen for, as the end of "chosen to".

    >>> goal_words({"max_drop": 0.005}), goal_words({"max_drop": 0.0})
    ('lose at most 0.5 points', 'lose nothing')
    """
    if "max_drop" not in goal:
        return ", ".join(f"{name} {value:g}" for name, value in goal.items())
    drop = 100 * goal["max_drop"]
    return f"lose at most {drop:g} points" if drop else "lose nothing"


def _exit_figure(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    if len(rows) < 2 or "ends" not in rows[0]:
        return []
    drawn = ranges(
        [(row["exit"], row["accuracy"], *row["ends"]) for row in rows],
        axis=Axis("accuracy", share),
    )
    caption = "Test accuracy, with the interval in which it lies with 95 % confidence."
    return [Figure("Accuracy of each exit", caption, drawn)]


def _curve_figures(result: Result) -> list[Figure]:
    curve: list[dict[str, Any]] = result.get("curve") or []
    if not curve:
        return []
    macs = [row["macs"] for row in curve]
    series = [
        Series("test", macs, [row["accuracy"] for row in curve]),
        Series("held out", macs, [row["validation_accuracy"] for row in curve], dashed=True),
    ]
    figures = [
        Figure(
            "Accuracy against work",
            "Each point of a line is one way to set the thresholds: to the right fewer answers are "
            "early.",
            chart(series, x=Axis("mean MACs of an answer", units.count), y=Axis("accuracy", share)),
        )
    ]
    names = [*curve[0]["thresholds"]]
    if len(names) == 1:
        rows = sorted(curve, key=lambda row: row["thresholds"][names[0]])
        levels = [row["thresholds"][names[0]] for row in rows]
        series = [
            Series(f"answered at {names[0]}", levels, [row["shares"][names[0]] for row in rows]),
            Series("right, test", levels, [row["accuracy"] for row in rows]),
        ]
        drawn = chart(
            series, x=Axis("threshold", low=min(levels), high=max(levels)), y=Axis("share", share)
        )
        caption = "The higher the threshold, the fewer answers are early, and the more are right."
        figures.append(Figure("What a threshold does", caption, drawn))
    return figures


def _calibration_figures(result: Result) -> list[Figure]:
    found: dict[str, dict[str, Any]] = result.get("calibration") or {}
    names = [*found]
    shown = [*names[: MOST_DIAGRAMS - 1], names[-1]] if len(names) > MOST_DIAGRAMS else names
    return [_diagram(name, found[name]) for name in shown]


def _diagram(name: str, found: Mapping[str, Any]) -> Figure:
    series = [Series("as right as sure", [0, 1], [0, 1], dashed=True, hue=0)]
    for label, key in (("as trained", "before"), ("by temperature", "after")):
        bins = [each for each in found[key]["bins"] if each["samples"] >= FEWEST]
        sure, right = ([each[k] for each in bins] for k in ("confidence", "accuracy"))
        hue = 1 if key == "before" else 2
        series.append(Series(label, sure, right, marks=True, hue=hue))
    x = Axis("how sure it is", share, low=0, high=1)
    y = Axis("how often it is right", share, low=0, high=1)
    before, after = (share(round(found[key]["error"], 4)) for key in ("before", "after"))
    caption = (
        f"Off by {before} on average as trained, by {after} with the temperature. Cells of fewer "
        f"than {FEWEST} samples are left out."
    )
    return Figure(f"Calibration of {name}", caption, chart(series, x=x, y=y))


def _confused(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    pairs = [
        (count, names[row], names[column] if column < len(names) else f"output {column}")
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if row != column and count
    ]
    pairs.sort(reverse=True)
    if not pairs:
        return "Nothing is taken for anything else."
    told = [f"{true} for {said} ({count})" for count, true, said in pairs[:MOST_CONFUSIONS]]
    return f"Most often mistaken: {', '.join(told)}."


def _classes_table(rows: Sequence[Mapping[str, Any]], exits: Sequence[str]) -> Html:
    columns = [
        Column("name", "class", str, text=True),
        Column("train", "to train with"),
        Column("test", "tested"),
        *(Column(f"at {name}", f"right at {name}", units.percent) for name in exits[-3:]),
        Column("precision", "right where it is named", units.percent),
    ]
    shown = [
        {
            **row,
            **{f"at {name}": row["accuracy"][name] for name in exits},
            "precision": row["precision"][exits[-1]],
        }
        for row in rows[:MOST_CLASSES]
    ]
    return element(
        "details", element("summary", "The classes in numbers"), data_table(Table(shown, columns))
    )
