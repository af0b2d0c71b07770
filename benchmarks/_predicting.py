"""What the planner expects of single ways against what answers took.

Source of the aims: 2.2 % mean error (arXiv 2504.15162), 99 % within 10 % (nn-Meter, MobiSys 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks._cases import Case, Ground, Way

MOST_S = 1.0
"""Ways that are expected to take longer are not drawn: hundreds of their answers take minutes."""
LEAST_FOR_P99 = 100
P50, P50_FEW, P99 = 0.03, 0.06, 0.15


def picks(case: Case, count: int, seed: int) -> list[Way]:
    """Ways over the link, drawn by chance, each with another split where there are enough."""
    last = case.about.bundle.net.last
    ways = [
        way
        for way, expected in case.expected.items()
        if way.split < last and expected.p50_s <= MOST_S
    ]
    random = np.random.default_rng(seed)
    order = [ways[place] for place in random.permutation(len(ways)).tolist()]
    first: dict[int, Way] = {}
    for way in order:
        first.setdefault(way.split, way)
    return list(first.values())[:count]


def same(ground: Ground, ways: Sequence[Way]) -> float:
    """The largest difference of scores between ways that lose nothing and all on the edge."""
    last = ground.about.bundle.net.last
    plain = Way(last, "float32", "float32", "float32")
    expected = ground.answer(plain)[1]
    found = 0.0
    for way in ways:
        if way.codec == way.form == way.server_form == "float32":
            found = max(found, float(np.abs(ground.answer(way)[1] - expected).max()))
    return found


def rows(case: Case, ways: Sequence[Way]) -> list[dict[str, Any]]:
    """A row for each of ``ways``."""
    return [
        {
            "net": case.about.name,
            "link": case.link.name,
            "split": way.split,
            "codec": way.codec,
            "form": way.form if way.form == way.server_form else f"{way.form}/{way.server_form}",
            "predicted_p50_s": case.expected[way].p50_s,
            "measured_p50_s": case.median_s[way],
            "predicted_p99_s": case.expected[way].p99_s,
            "measured_p99_s": float(np.quantile(case.seen[way], 0.99)),
            "noise": case.noise(way),
            "answers": len(case.seen[way]),
        }
        for way in ways
    ]


def errors(found: Sequence[dict[str, Any]], which: str) -> np.ndarray:
    """Predicted over measured, less one."""
    return np.array([r[f"predicted_{which}_s"] / r[f"measured_{which}_s"] - 1 for r in found])


def checks(found: Sequence[dict[str, Any]], difference: float) -> list[dict[str, Any]]:
    """Whether predictions are as near as asked."""
    p50, noise = np.abs(errors(found, "p50")), np.array([row["noise"] for row in found])
    near = float((p50 <= np.maximum(P50_FEW, 2 * noise)).mean())
    many = [row for row in found if row["answers"] >= LEAST_FOR_P99]
    told = [
        at_most("largest difference of lossless ways", difference, 1e-3),
        at_most("p50, median error", float(np.median(p50)), P50),
        at_least("p50, share within 6 % or twice the noise", near, 0.9),
        plain("p50, mean of predicted over measured less one", float(errors(found, "p50").mean())),
        plain("p50, worst error", float(p50.max())),
        plain("combinations", len(found)),
    ]
    if many:
        p99 = np.abs(errors(many, "p99"))
        told.append(at_most("p99, median error", float(np.median(p99)), P99))
        told.append(plain("p99, share within 15 %", float((p99 <= P99).mean())))
    return told


def at_most(name: str, value: float, most: float) -> dict[str, Any]:
    """A check that ``value`` is at most ``most``."""
    return {"name": name, "value": value, "target": f"<= {most:g}", "ok": bool(value <= most)}


def at_least(name: str, value: float, least: float) -> dict[str, Any]:
    """A check that ``value`` is at least ``least``."""
    return {"name": name, "value": value, "target": f">= {least:g}", "ok": bool(value >= least)}


def plain(name: str, value: float) -> dict[str, Any]:
    """A figure without a target."""
    return {"name": name, "value": value, "target": "", "ok": True}
