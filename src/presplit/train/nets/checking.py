"""Whether a net is a classifier of some data: asked before it is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.train.layers.standardise import Standardise
from presplit.train.nets.calling import (
    check_logits,
    device_of,
    exit_logits,
    in_mode,
    kind_of,
    other_dtypes,
)
from presplit.train.nets.copying import changeable, twin

SCALING = (Standardise, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.InstanceNorm2d)
LOUDER = 30.0
"""Samples so many times as large move logits out of 0..1, unless something holds them there."""
ROUNDING = 1e-4
"""What a sum of float32 probabilities may be off."""


def held_in_0_1(model: nn.Module, x: Tensor) -> str:
    """A sentence if ``model`` gives only numbers between 0 and 1, as after a sigmoid.

    ``x``: float32 ``(batch, ...)``. Its softmax then is sure of nothing.
    """
    if not x.is_floating_point():
        return ""
    few = x[:16].to(device_of(model))
    for each in (few, LOUDER * few):
        try:
            logits = check_logits(model, each)[-1]
        except GraphError:  # it takes no such samples: what it would give is not known
            return ""
        if not bool(((logits >= 0) & (logits <= 1)).all()) or bool((logits == 0).all()):
            return ""
    most = math.e / (math.e + logits.shape[1] - 1)
    return (
        f"{kind_of(model)} gives only numbers between 0 and 1, as after a sigmoid: the softmax of "
        f"such is never surer than {most:.2f} of {logits.shape[1]} classes; leave the sigmoid out, "
        "the loss takes logits"
    )


def scales_inputs(model: nn.Module) -> bool:
    """Whether the first thing in ``model`` that computes brings its inputs to one scale."""
    leaves = (part for part in model.modules() if not [*part.children()])
    return isinstance(next(leaves, None), SCALING)


def check_classifier(model: nn.Module, x: Tensor, classes: int, *, data: str = "the data") -> None:
    """Raise `GraphError` unless ``model`` gives logits of at least ``classes`` for two samples.

    It must do so in evaluation and in training mode, hold its values in float32, as they are
    trained and exported, and be one that can be copied, as exporting it will need. ``x``: float32
    ``(batch, ...)``, of which the first two are taken; ``data``: what they are called in the error.
    The net and all random states stay as they are.
    """
    model = changeable(model)
    kind, two = kind_of(model), x[:2].to(device_of(model))
    logits = check_logits(model, two, data=data)[-1]
    shape = tuple(logits.shape)
    if shape[1] < classes:
        raise GraphError(f"{data} has {classes} classes, {kind} gives logits of shape {shape}")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < ROUNDING).all()):
        raise GraphError(
            f"{kind} gives probabilities, which are not negative and sum to 1, in place of logits: "
            "leave its softmax out, the loss takes logits"
        )
    if others := other_dtypes(model):
        raise GraphError(
            f"{kind} computes in {' and '.join(others)} inside, and what is trained and exported "
            "is in float32: call .float() on it and take the casts out of its forward"
        )
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    rehearsing = twin(model)  # training mode changes statistics
    with torch.random.fork_rng(gpus), in_mode(rehearsing, training=True), torch.no_grad():
        trained = tuple(exit_logits(rehearsing, two, data=data)[-1].shape)
    if trained != shape:
        raise GraphError(
            f"{kind} gives logits of shape {trained} in training and {shape} in evaluation: return "
            "its own logits first, or as .logits"
        )
