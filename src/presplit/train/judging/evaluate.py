"""Evaluation: all exits' logits once; then accuracies, and any threshold, are table look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from presplit.core import routing
from presplit.core.progress import track
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.train.data.samples import Samples
from presplit.train.nets.calling import device_of, evaluating, exit_logits


def evaluate(model: nn.Module, samples: Samples, *, batch: int = 512) -> Floats:
    """Logits float32 ``(exits, n, classes)`` of every exit for every sample, in evaluation mode."""
    device = device_of(model)
    with evaluating(model):
        parts = [
            torch.stack(
                exit_logits(model, torch.from_numpy(samples.x[at : at + batch].copy()).to(device))
            )
            for at in track(range(0, len(samples), batch), "evaluating")
        ]
    return torch.cat(parts, dim=1).float().cpu().numpy()


def accuracies(logits: Floats, labels: npt.NDArray[np.int64]) -> list[float]:
    """Share of right answers of each exit, were it to answer everything.

    >>> accuracies(np.array([[[1, 0], [1, 0]]], np.float32), np.array([0, 1]))
    [0.5]
    """
    return [float(share) for share in (logits.argmax(-1) == labels).mean(1)]


def balanced_accuracy(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """The mean over the classes in ``labels`` of the share of each that is answered right.

    Both are ``(n,)``. A net that always answers the commonest of k classes has 1 / k.

    >>> balanced_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    0.5
    """
    hits = answers == labels
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


@dataclass(frozen=True)
class Routed:
    """What happens if exits answer as soon as they are sure.

    It holds the accuracy, and the share that leaves at each exit.
    """

    accuracy: float
    shares: tuple[float, ...]


def route(
    logits: Floats,
    labels: npt.NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    policy: str | ExitPolicy = "confidence",
) -> Routed:
    """Every sample leaves at the first exit whose score reaches its threshold, else at the last.

    ``thresholds`` has one entry for each exit but the last.

    >>> logits = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32)
    >>> route(logits, np.array([0, 1]), [0.9])
    Routed(accuracy=1.0, shares=(0.5, 0.5))
    """
    score = EXITS.find(policy) if isinstance(policy, str) else policy
    scores = np.stack([score(each) for each in logits[: len(thresholds)]]) if thresholds else []
    leaves = routing.route(scores, thresholds) if thresholds else np.zeros(len(labels), np.int64)
    hits = logits.argmax(-1)[leaves, np.arange(len(labels))] == labels
    shares = np.bincount(leaves, minlength=len(logits)) / len(labels)
    return Routed(float(hits.mean()), tuple(shares.tolist()))
