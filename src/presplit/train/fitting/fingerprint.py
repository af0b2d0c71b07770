"""Whether a net is still the one that it was.

What it answered to two samples is kept beside its values.

The same values in changed code give other answers. A change is seen if it moves a logit of these
samples by more than `APART`; what moves them less, or not at all, is not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from presplit.train.judging.evaluate import device_of, evaluating, exit_logits

APART = 5e-3
"""Relative to the largest logit of an exit.

A GPU that multiplies in 10 binary digits stays below 2e-3.
"""
BEGIN = "recognised."
"""How the names of the tensors begin, among those of a checkpoint."""


def evidence(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Two samples of ``x`` and all exits' logits for them.

    The result is empty if the net does not answer the same twice.

    ``x``: float32 ``(batch, ...)``, on any device. Nothing is raised, and no random state changes.
    """
    two = x[:2].detach().cpu()
    answers = _answers(model, two)
    return (
        {f"{BEGIN}x": two, **{f"{BEGIN}{number}": each for number, each in enumerate(answers)}}
        if answers
        else {}
    )


def is_another(model: nn.Module, kept: Mapping[str, Tensor]) -> bool:
    """True if ``model`` answers the samples that `evidence` ``kept`` otherwise than it did.

    >>> net = nn.Linear(3, 2)
    >>> kept = evidence(net, torch.ones(2, 3))
    >>> is_another(net, kept), is_another(nn.Sequential(net, nn.Tanh()), kept)
    (False, True)
    """
    if not kept:
        return False
    expected = [kept[f"{BEGIN}{number}"] for number in range(len(kept) - 1)]
    return not _alike(_answers(model, kept[f"{BEGIN}x"]), expected)


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take what `evidence` gave out of the ``tensors`` of a file."""
    return {name: tensors.pop(name) for name in list(tensors) if name.startswith(BEGIN)}


def _answers(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The logits of every exit.

    There are none if the net raises something, or does not answer the same twice.
    """
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(gpus), evaluating(model):
            given = x.to(device_of(model))
            first, again = (
                [logits.float().cpu() for logits in exit_logits(model, given)] for _ in range(2)
            )
    except Exception:  # the user's code may raise anything, and a training must not end here
        return []
    return first if _alike(again, first) else []


def _alike(found: list[Tensor], expected: list[Tensor]) -> bool:
    """True if all logits are the same but for `APART`.

    Infinite ones and those that are no numbers are compared too.
    """
    if [each.shape for each in found] != [each.shape for each in expected]:
        return False
    for ours, theirs in zip(found, expected, strict=True):
        finite = theirs[torch.isfinite(theirs)].abs()
        most = float(finite.max()) if finite.numel() else 0.0
        if not torch.allclose(ours, theirs, rtol=0.0, atol=APART * most, equal_nan=True):
            return False
    return True
