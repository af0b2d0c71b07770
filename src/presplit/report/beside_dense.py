"""What a sweep's report says in words of sparse nets beside their dense ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presplit.report.scales import share

FINAL = "final"
Found = Mapping[str, Any]
"""What ``sweep.json`` holds, as decoded JSON."""


def best_sparse(found: Found) -> dict[str, str]:
    """What the most accurate sparse net gains and loses beside its dense one."""
    sparse = [point for point in found["points"] if not point["dense"]]
    best = max(sparse, key=lambda point: point["accuracy"][FINAL]["mean"], default=None)
    if best is None or (dense := _dense_of(found, best)) is None:
        return {}
    facts: dict[str, str] = {}
    part = share(round(best["weights"] / dense["weights"], 3))
    lost = plus(best["difference"].get(FINAL))
    if lost is not None:
        facts[f"percentage points with {part} of the weights ({best['point']})"] = lost
    if best["seconds"] and dense["seconds"]:
        ratio = dense["seconds"]["mean"] / best["seconds"]["mean"]
        quick = f"{ratio:.2g}x as fast" if ratio >= 1 else f"{1 / ratio:.2g}x as slow"
        facts[f"as the dense net ({best['point']})"] = quick
    return facts


def _dense_of(found: Found, point: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The dense net that a sparse one stands beside."""
    name = found["baseline"].get(point["point"])
    return next((each for each in found["points"] if each["point"] == name), None)


def slower(found: Found) -> str:
    """What to say of nets that multiply less than another one and take longer."""
    timed = [point for point in found["points"] if point["seconds"]]
    said: list[str] = []
    for point in timed:
        larger = [other for other in timed if other["macs"] > point["macs"]]
        quickest = min(larger, key=_mean_s, default=None)
        if quickest is not None and _mean_s(quickest) < _mean_s(point):
            said.append(f"{point['point']} than {quickest['point']}")
    if not said:
        return ""
    return (
        f" Fewer MACs, yet more time: {', '.join(said)}. What an engine takes for each operation, "
        "and to fetch values that lie apart, does not shrink with the MACs."
    )


def _mean_s(point: Mapping[str, Any]) -> float:
    return point["seconds"]["mean"]


def clock_words(state: str) -> str:
    """What the machine was like, in words: a load is how many programs wanted to compute."""
    start = "load "
    parts = [
        f"{part.removeprefix(start)} programs at a time wanted to compute"
        if part.startswith(start)
        else part
        for part in state.split(", ")
    ]
    return ", ".join(parts)


def plus(each: Mapping[str, Any] | None) -> str | None:
    """A difference as percentage points with its interval; None where there is none."""
    if each is None:
        return None
    half = "" if each["high"] is None else f" ± {100 * (each['high'] - each['mean']):.2f}"
    return f"{100 * each['mean']:+.2f}{half}"
