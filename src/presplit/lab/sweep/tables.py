"""A sweep as comma-separated values: its runs, and its points with their intervals."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from presplit.lab.sweep.found import POINTS, ROWS, Estimate, Found, Row, Worth


def write_tables(found: Found, directory: Path) -> None:
    """Write both beside ``sweep.json``; raises `DataError` if they cannot be written."""
    from presplit.train import checkpoint

    for name, rows in (
        (ROWS, [_row(row) for row in found.rows]),
        (POINTS, [_point(point) for point in found.points]),
    ):
        checkpoint.write(directory / name, _csv(rows).encode())


def _row(row: Row) -> dict[str, Any]:
    routed = row.routed
    return {
        "point": row.point,
        **row.settings,
        "seed": row.seed,
        "dense": row.dense,
        "state": row.state,
        "weights": row.weights,
        "macs": row.macs,
        "bytes": row.bytes,
        "seconds": row.seconds,
        **{f"accuracy.{name}": share for name, share in row.accuracy.items()},
        **{f"balanced_accuracy.{name}": share for name, share in row.balanced_accuracy.items()},
        **({} if routed is None else _routed(routed.accuracy, routed.macs, routed.shares)),
        "train_s": row.train_s,
        "run": row.run,
        "reason": row.reason,
    }


def _routed(accuracy: float, macs: float, shares: Mapping[str, float]) -> dict[str, float]:
    leaves = {f"routed_share.{name}": share for name, share in shares.items()}
    return {"routed_accuracy": accuracy, "routed_macs": macs, **leaves}


def _point(point: Worth) -> dict[str, Any]:
    estimates = {
        **{f"accuracy.{name}": each for name, each in point.accuracy.items()},
        **{f"difference.{name}": each for name, each in point.difference.items()},
        "routed_accuracy": point.routed_accuracy,
        "routed_difference": point.routed_difference,
        "routed_macs": point.routed_macs,
        "seconds": point.seconds,
    }
    row: dict[str, Any] = {
        "point": point.point,
        **point.settings,
        "dense": point.dense,
        "runs": point.runs,
        "weights": point.weights,
        "macs": point.macs,
        "bytes": point.bytes,
    }
    for name, each in estimates.items():
        if each is not None:
            row |= _cells(name, each)
    return row


def _cells(name: str, each: Estimate) -> dict[str, float | None]:
    return {
        f"{name}.mean": each.mean,
        f"{name}.spread": each.spread,
        f"{name}.low": each.low,
        f"{name}.high": each.high,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows with a column for every key that any of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
