"""The one door by which a net that a user brings is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
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
