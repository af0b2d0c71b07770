"""Evaluation: all exits' logits once; then accuracies, and any threshold, are table look-ups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.core import routing
from presplit.core.errors import GraphError
from presplit.core.protocols import ExitPolicy
from presplit.core.types import Floats
from presplit.policies import EXITS
from presplit.train.data.samples import Samples
from presplit.train.nets.exits import MultiExit, logits_of


def exit_logits(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The logits of every exit, float ``(batch, classes)`` each; a plain classifier has one."""
    out = model(x)
    return out if isinstance(out, tuple) else (logits_of(out),)


def device_of(model: nn.Module) -> torch.device:
    """Where the net's values are."""
    return next((value.device for value in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode without gradients.

    Afterwards every part is in the mode that it was in.
    """
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
    device = device_of(model)
    with evaluating(model):
        parts = [
            torch.stack(
                exit_logits(model, torch.from_numpy(samples.x[at : at + batch].copy()).to(device))
            )
            for at in range(0, len(samples), batch)
        ]
    return torch.cat(parts, dim=1).float().cpu().numpy()


def check_classifier(model: nn.Module, x: Tensor, classes: int, *, data: str = "the data") -> None:
    """Raise `GraphError` unless ``model`` gives logits of at least ``classes`` for two samples.

    ``x``: float32 ``(batch, ...)``, of which the first two are taken; ``data``: what they are
    called in the error.
    """
    kind, two = type(model).__name__, x[:2]
    try:
        with evaluating(model):
            logits, *more = exit_logits(model, two.to(device_of(model)))
        shape = logits.shape
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AssertionError,
        AttributeError,
    ) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        sample = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape[1:])}"
        raise GraphError(f"{kind} does not take a sample of {data}, {sample}: {said}") from error
    if more and not isinstance(model, MultiExit):
        raise GraphError(f"a classifier returns logits, {kind} returns {1 + len(more)} things")
    if len(shape) != 2 or shape[0] != len(two) or shape[1] < classes:
        raise GraphError(
            f"{data} has {classes} classes, {kind} gives logits of shape {tuple(shape)}"
        )


def accuracies(logits: Floats, labels: npt.NDArray[np.int64]) -> list[float]:
    """Share of right answers of each exit, were it to answer everything.

    >>> accuracies(np.array([[[1, 0], [1, 0]]], np.float32), np.array([0, 1]))
    [0.5]
    """
    return [float(share) for share in (logits.argmax(-1) == labels).mean(1)]


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
