"""What the runs of each point are worth together, and against the dense net seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from presplit.lab.sweep.found import Estimate, Row, Worth
from presplit.lab.sweep.intervals import estimate


def worths(rows: Sequence[Row], baseline: Mapping[str, str]) -> tuple[Worth, ...]:
    """Every point that has a finished run, in the order of ``rows``."""
    done = [row for row in rows if row.state == "finished"]
    names = dict.fromkeys(row.point for row in done)
    by_name = {name: [row for row in done if row.point == name] for name in names}
    return tuple(
        _worth(own, [] if own[0].dense else by_name.get(baseline[name], []))
        for name, own in by_name.items()
    )


def _worth(rows: Sequence[Row], dense: Sequence[Row]) -> Worth:
    """One point of these ``rows``; ``dense`` are those of its dense net."""
    first, beside = rows[0], {row.seed: row for row in dense}
    pairs = [(row, beside[row.seed]) for row in rows if row.seed in beside]
    shared = [name for name in first.accuracy if all(name in other.accuracy for _, other in pairs)]

    def over(value: Callable[[Row], float | None]) -> Estimate | None:
        return _estimate(map(value, rows))

    return Worth(
        point=first.point,
        settings=first.settings,
        dense=first.dense,
        runs=len(rows),
        accuracy={name: estimate([row.accuracy[name] for row in rows]) for name in first.accuracy},
        difference={
            name: estimate([row.accuracy[name] - other.accuracy[name] for row, other in pairs])
            for name in shared
            if pairs
        },
        routed_accuracy=over(lambda row: row.routed and row.routed.accuracy),
        routed_difference=_estimate(
            row.routed.accuracy - other.routed.accuracy
            for row, other in pairs
            if row.routed and other.routed
        ),
        routed_macs=over(lambda row: row.routed and row.routed.macs),
        weights=statistics.fmean(row.weights or 0 for row in rows),
        macs=statistics.fmean(row.macs or 0 for row in rows),
        bytes=statistics.fmean(row.bytes or 0 for row in rows),
        seconds=over(lambda row: row.seconds),
    )


def _estimate(values: Iterable[float | None]) -> Estimate | None:
    """The estimate of what is known; None of nothing."""
    known = [value for value in values if value is not None]
    return estimate(known) if known else None
