"""Evaluation: all exits' logits once; then accuracies, and any threshold, are table look-ups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.train.data.samples import Samples
from presplit.train.exits import MultiExit, logits_of

APART = 1e-2
"""How far fingerprints may be apart, relative to the largest logit: a GPU may multiply in 10 binary digits."""


def exit_logits(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The logits of every exit, float ``(batch, classes)`` each; a plain classifier has one."""
    out = model(x)
    return out if isinstance(out, tuple) else (logits_of(out),)


def _device(model: nn.Module) -> torch.device:
    """Where the net's values are."""
    return next((value.device for value in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode without gradients; afterwards every part is in the mode that it was in."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def evaluate(model: nn.Module, samples: Samples, *, batch: int = 512) -> Floats:
    """Logits float32 ``(exits, n, classes)`` of every exit for every sample, in evaluation mode."""
    device = _device(model)
    with evaluating(model):
        parts = [
            torch.stack(exit_logits(model, torch.from_numpy(samples.x[at : at + batch].copy()).to(device)))
            for at in range(0, len(samples), batch)
        ]
    return torch.cat(parts, dim=1).float().cpu().numpy()


def check_classifier(model: nn.Module, x: Floats, classes: int, *, data: str = "the data") -> None:
    """Raise `GraphError` unless ``model`` takes two samples ``x`` and gives logits for so many classes, at least."""
    kind = type(model).__name__
    try:
        with evaluating(model):
            logits, *more = exit_logits(model, torch.from_numpy(x[:2].copy()).to(_device(model)))
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise GraphError(f"{kind} does not take a sample of {data}, float32 {x.shape[1:]}: {said}") from error
    if more and not isinstance(model, MultiExit):
        raise GraphError(f"a classifier returns logits, {kind} returns {1 + len(more)} things")
    if logits.shape[:1] != x[:2].shape[:1] or logits.ndim != 2 or logits.shape[1] < classes:
        raise GraphError(f"{data} has {classes} classes, {kind} gives logits of shape {tuple(logits.shape)}")


def fingerprint(model: nn.Module, shape: Sequence[int]) -> list[float]:
    """All exits' logits for one sample of random numbers in 0..1, always the same; empty if the net is never the same.

    Code that computes something else with the same values gives another one; see `differs`.
    """
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(_device(model))
    with evaluating(model):
        first, again = (torch.cat(exit_logits(model, x), dim=1)[0].float().cpu() for _ in range(2))
    return first.tolist() if torch.equal(first, again) else []


def differs(found: Sequence[float], expected: Sequence[float]) -> bool:
    """True if two fingerprints are those of different nets: further apart than machines and precisions bring them.

    >>> differs([1.0, 2.0], [1.0, 2.001]), differs([1.0, 2.0], [1.0, 2.5])
    (False, True)
    """
    if not found or not expected:
        return False
    ours, theirs = np.asarray(found), np.asarray(expected)
    return ours.shape != theirs.shape or not np.abs(ours - theirs).max() <= APART * max(1.0, np.abs(theirs).max())


def accuracies(logits: Floats, labels: npt.NDArray[np.int64]) -> list[float]:
    """Share of right answers of each exit, were it to answer everything.

    >>> accuracies(np.array([[[1, 0], [1, 0]]], np.float32), np.array([0, 1]))
    [0.5]
    """
    return [float(share) for share in (logits.argmax(-1) == labels).mean(1)]


@dataclass(frozen=True)
class Routed:
    """What happens if exits answer as soon as they are sure: accuracy, and the share that leaves at each exit."""

    accuracy: float
    shares: tuple[float, ...]


def route(
    logits: Floats,
    labels: npt.NDArray[np.int64],
    thresholds: Sequence[float],
    *,
    policy: str | ExitPolicy = "confidence",
) -> Routed:
    """Every sample leaves at the first exit whose score reaches its threshold, at the last one otherwise.

    ``thresholds`` has one entry for each exit but the last.

    >>> logits = np.array([[[9, 0], [1, 0]], [[9, 0], [0, 9]]], np.float32)
    >>> route(logits, np.array([0, 1]), [0.9])
    Routed(accuracy=1.0, shares=(0.5, 0.5))
    """
    score = EXITS.find(policy) if isinstance(policy, str) else policy
    leaves = np.full(len(labels), len(logits) - 1)
    for number in reversed(range(len(thresholds))):
        leaves[score(logits[number]) >= thresholds[number]] = number
    hits = logits.argmax(-1)[leaves, np.arange(len(labels))] == labels
    return Routed(float(hits.mean()), tuple(float((leaves == e).mean()) for e in range(len(logits))))
