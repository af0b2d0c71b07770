"""The planner's choice against the best that was measured, and against two other choosers.

Neurosurgeon (ASPLOS 2017) predicts each layer by a regression and takes the best sum: here one is
fitted on the multiplications and bytes of all segments. Scission (arXiv 2008.03523) runs each part
alone and sums what it measured. Both send plain float32 and know the link's rate and round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._cases import Case, Subject, Way
from benchmarks._predicting import at_least, at_most, plain
from presplit.core.link import Link
from presplit.runtime.engines import DEFAULT, ENGINES, Load
from presplit.runtime.measuring.probes import boundary_values, running
from presplit.runtime.measuring.rounds import timed

NEAR = 1.05
SEGMENT_SECONDS = 3.0

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segments:
    """What the segments of a net take one by one, run again at once, on both sides."""

    features: Array
    """``(segments, 3)``: one, multiplications, bytes read and written."""
    edge_s: Array
    server_s: Array
    boundary_bytes: Array
    """float32, ``(segments + 1,)``."""


def segments(about: Subject) -> Segments:
    """The segments of ``about``, timed."""
    bundle = about.bundle
    bytes_ = np.array([4.0 * boundary.size for boundary in bundle.net.boundaries])
    macs = np.array([part.macs for part in bundle.manifest.segments], np.float64)
    features = np.stack([np.ones_like(macs), macs, bytes_[:-1] + bytes_[1:]], axis=1)
    edge_s, server_s = _alone(about, about.slowed), _alone(about, ENGINES[DEFAULT])
    return Segments(features, edge_s, server_s, bytes_)


def _alone(about: Subject, load: Load) -> Array:
    bundle = about.bundle
    values = boundary_values(bundle, 1, load)
    runs = [running(bundle.runnable(k, k + 1), values[k], 1, load) for k in range(bundle.net.last)]
    found = timed(runs, limit_s=SEGMENT_SECONDS)
    return np.array([found.median_s(k) for k in range(bundle.net.last)])


def regression(features: Array, seconds: Array) -> Array:
    """Non-negative weights of ``features`` that are off by least of each time, as a share of it."""
    scaled = features / seconds[:, np.newaxis]
    used = list(range(features.shape[1]))
    while True:
        weights, *_ = np.linalg.lstsq(scaled[:, used], np.ones(len(seconds)), rcond=None)
        if weights.min() >= 0 or len(used) == 1:
            found = np.zeros(features.shape[1])
            found[used] = weights
            return found
        used.pop(int(weights.argmin()))


def best_split(edge_s: Array, server_s: Array, boundary_bytes: Array, link: Link) -> Way:
    """The split with the least sum of segments, bytes by the rate and, where it asks, the trip."""
    last = len(edge_s)

    def whole_s(split: int) -> float:
        there = 0.0
        if split < last:
            there = link.rtt_s + link.up_s(boundary_bytes[split]) + float(server_s[split:].sum())
        return float(edge_s[:split].sum()) + there

    return Way(min(range(last + 1), key=whole_s), "float32", "float32", "float32")


def others(known: Sequence[Segments], here: Segments, edge: Array, link: Link) -> dict[str, Way]:
    """What the two baselines choose; ``edge``: the segments' times as the regression has them."""
    server = np.concatenate([each.server_s for each in known])
    features = np.concatenate([each.features for each in known])
    there = here.features @ regression(features, server)
    return {
        "neurosurgeon": best_split(edge, there, here.boundary_bytes, link),
        "scission": best_split(here.edge_s, here.server_s, here.boundary_bytes, link),
    }


def regressed(known: Sequence[tuple[Segments, float]], here: Segments, factor: float) -> Array:
    """The times of the segments ``here`` on the edge, by a regression over all ``known`` ones.

    Edges are slowed by factors that differ; the regression is of times at ``factor``.
    """
    seconds = np.concatenate([each.edge_s * (factor / own) for each, own in known])
    features = np.concatenate([each.features for each, _ in known])
    return here.features @ regression(features, seconds)


def row(case: Case, baselines: dict[str, Way]) -> dict[str, Any]:
    """The choice, the best measured way and the baselines of one case."""
    median_s = case.median_s
    best = min(median_s, key=lambda way: median_s[way])
    found: dict[str, Any] = {
        "net": case.about.name,
        "link": case.link.name,
        "chosen": str(case.chosen),
        "chosen_s": median_s[case.chosen],
        "expected_s": case.expected[case.chosen].p50_s,
        "best": str(best),
        "best_s": median_s[best],
        "best_expected_s": case.expected[best].p50_s,
        "noise": max(case.noise(case.chosen), case.noise(best)),
    }
    for name, way in baselines.items():
        found |= {name: str(way), f"{name}_s": median_s[way]}
    return found


def checks(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How near the choices are to the best, and whether they are ever worse than the baselines'."""
    over = np.array([row["chosen_s"] / row["best_s"] for row in found])
    told = [
        at_least("chosen within 5 % of the best measured", float((over <= NEAR).mean()), 0.9),
        plain("chosen over best, worst", float(over.max())),
        plain("cases", len(found)),
    ]
    for name in ("neurosurgeon", "scission"):
        ratio = np.array([row[f"{name}_s"] / row["chosen_s"] for row in found])
        noise = np.array([max(0.02, 2 * row["noise"]) for row in found])
        worse = int((ratio < 1 - noise).sum())
        told.append(at_most(f"cases in which {name} is faster, beyond noise", worse, 0))
        told.append(plain(f"{name} over chosen, median", float(np.median(ratio))))
        told.append(plain(f"{name} over chosen, least", float(ratio.min())))
    return told
