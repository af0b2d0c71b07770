"""Whether an exit is as often right as it is sure (reliability diagrams, arXiv 1706.04599)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats

BINS = 10
"""Cells of equal width, between 0 and 1, of how sure an exit is."""


def reliability(
    logits: Floats, labels: npt.NDArray[np.int64], *, temperature: float = 1.0
) -> dict[str, Any]:
    """How sure one exit is, and how often right, when its logits are divided by ``temperature``.

    ``logits``: ``(n, classes)``, ``labels``: ``(n,)``. ``bins``: for each cell between 0 and 1
    that has samples, from ``low`` to ``high``, how many ``samples`` have their largest softmax
    probability in it, its mean as ``confidence``, and their ``accuracy``. ``error``: the mean
    distance of these two over the samples (the expected calibration error), 0..1.

    >>> found = reliability(np.array([[2.0, 0.0]] * 4, np.float32), np.array([0, 0, 0, 1]))
    >>> found["bins"][0]["samples"], found["bins"][0]["accuracy"], round(found["error"], 2)
    (4, 0.75, 0.13)
    """
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    sure = 1 / np.exp(scaled).sum(1)
    hits = logits.argmax(1) == labels
    cells = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    bins: list[dict[str, float]] = []
    error = 0.0
    for cell in np.unique(cells).tolist():
        inside = cells == cell
        count, confidence = int(inside.sum()), float(sure[inside].mean())
        accuracy = float(hits[inside].mean())
        error += abs(accuracy - confidence) * count / len(labels)
        bins.append(
            {
                "low": cell / BINS,
                "high": (cell + 1) / BINS,
                "samples": count,
                "confidence": confidence,
                "accuracy": accuracy,
            }
        )
    return {"error": error, "bins": bins}
