"""The tables of a sweep for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from presplit.core import units
from presplit.core.tables import Column, table

if TYPE_CHECKING:
    from presplit.lab.sweep import Found
    from presplit.lab.sweep.found import Estimate, Worth

FINAL = "final"


def text(found: Found, directory: Path, report: str) -> str:
    """One line for each point, what the columns are, and what to do next."""
    if not found.points:
        return f"no run of {directory} is finished"
    dense = {point.point: point for point in found.points if point.dense}
    rows = [_row(point, dense.get(found.baseline[point.point])) for point in found.points]
    lines = [table(rows, _columns(found)), "", *_notes(found)]
    runs = [row.run for row in found.rows if row.state == "finished" and not row.dense]
    some = directory / (runs or [row.run for row in found.rows])[0]
    return "\n".join(
        [
            *lines,
            f"Sweep: {directory} (sweep.json, sweep.csv, points.csv). Report: {report}",
            "Next: look at the report, then presplit export the run that you choose, as in",
            f"  presplit export {quote(str(some))}",
        ]
    )


def _columns(found: Found) -> list[Column]:
    """The columns for which there is something to show."""
    early = [name for name in found.points[0].accuracy if name != FINAL]
    columns = [Column("point", "point", str, text=True), Column("runs", "runs", str)]
    columns += [Column(f"exit {name}", f"exit {name}", str) for name in (*early, FINAL)]
    columns.append(Column("difference", "minus dense", str))
    if early:
        columns += [
            Column("routed", "leaving early", str),
            Column("routed_macs", "MACs then"),
        ]
    columns += [
        Column("weights", "weights"),
        Column("macs", "MACs"),
        Column("bytes", "stored", units.data),
    ]
    if found.measured:
        columns += [Column("seconds", "time", units.seconds), Column("faster", "speed", str)]
    return columns


def _row(point: Worth, dense: Worth | None) -> Mapping[str, Any]:
    """What the table shows of ``point``."""
    row: dict[str, Any] = {
        "point": point.point,
        "runs": point.runs,
        "weights": point.weights,
        "macs": point.macs,
        "bytes": point.bytes,
        **{f"exit {name}": _share(each) for name, each in point.accuracy.items()},
    }
    if FINAL in point.difference:
        row["difference"] = _points(point.difference[FINAL])
    if point.routed_accuracy is not None and point.routed_macs is not None:
        row["routed"] = _share(point.routed_accuracy)
        row["routed_macs"] = point.routed_macs.mean
    if point.seconds is not None:
        row["seconds"] = point.seconds.mean
        if dense is not None and dense.seconds is not None:
            row["faster"] = f"{dense.seconds.mean / point.seconds.mean:.2f} x"
    return row


def _notes(found: Found) -> list[str]:
    """What the columns are."""
    tested = found.samples.get("test", 0)
    if any(point.runs > 1 for point in found.points):
        lines = [
            f"Accuracy on {tested:,} test samples: mean over seeds ± half of its 95 % interval "
            "(Student's t); minus dense: points, seed by seed."
        ]
    else:
        lines = [
            f"Accuracy on {tested:,} test samples; one seed says nothing of others: --seeds 3."
        ]
    routed = next((row.routed for row in found.rows if row.routed), None)
    if routed is not None:
        lines.append(
            f"Leaving early: at the first exit that is sure, by thresholds that lose at most "
            f"{100 * routed.max_drop:g} points on {found.samples.get('held_out', 0):,} held-out "
            "samples."
        )
    if found.measured:
        lines.append(
            f"Time: {found.measured['engine']}, median of {found.measured['rounds']:,} rounds on "
            f"{found.machine}; all exits computed."
        )
    return lines


def _share(each: Estimate) -> str:
    half = _half(each)
    return f"{100 * each.mean:.2f} %" + ("" if half is None else f" ± {100 * half:.2f}")


def _points(each: Estimate) -> str:
    half = _half(each)
    return f"{100 * each.mean:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def _half(each: Estimate) -> float | None:
    """Half of the interval."""
    return None if each.high is None else each.high - each.mean
