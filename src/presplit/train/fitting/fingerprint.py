"""Whether a net is still the one that it was.

What it answers to two samples of noise is kept beside its values. The noise is drawn from a seed,
in the range of the training samples, so that of these nothing is kept but a lowest and a highest
number. The same values in changed code give other answers: a change is seen if it moves a logit of
the noise by more than `APART`; what moves them less, or not at all, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from presplit.train.nets.calling import device_of, evaluating, exit_logits

APART = 5e-3
"""Relative to the largest logit of an exit.

A GPU that multiplies in 10 binary digits stays below 2e-3.
"""
BEGIN = "recognised."
"""How the names of the tensors begin, among those of a checkpoint."""


def evidence(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The range of ``x``, and all exits' logits for two samples of noise in it.

    The result is empty if the net does not answer the same twice.

    ``x``: ``(batch, ...)``, on any device, at least one sample. Nothing is raised, and no random
    state changes.
    """
    for limits in _ranges(x):
        kept = {
            f"{BEGIN}limits": torch.tensor(limits, dtype=torch.float64),
            f"{BEGIN}shape": torch.tensor(x.shape[1:], dtype=torch.int64),
            f"{BEGIN}whole": torch.tensor(bool((x == x.round()).all())),
            f"{BEGIN}float": torch.tensor(x.is_floating_point()),
        }
        answers = _answers(model, noise(kept))
        if answers:
            return kept | {f"{BEGIN}{number}": each for number, each in enumerate(answers)}
    return {}


def is_another(model: nn.Module, kept: Mapping[str, Tensor]) -> bool:
    """True if ``model`` answers the noise that `evidence` ``kept`` otherwise than it did.

    >>> net = nn.Linear(3, 2)
    >>> kept = evidence(net, torch.rand(2, 3))
    >>> is_another(net, kept), is_another(nn.Sequential(net, nn.Tanh()), kept)
    (False, True)
    """
    if not kept:
        return False
    answers = [name for name in kept if name.removeprefix(BEGIN).isdecimal()]
    expected = [kept[f"{BEGIN}{number}"] for number in range(len(answers))]
    return not _alike(_answers(model, noise(kept)), expected)


def noise(kept: Mapping[str, Tensor]) -> Tensor:
    """Two samples, uniform in the range that is kept; whole numbers where the samples were.

    Whole numbers may be ids, and every id of the range is one that an embedding has.
    """
    low, high = kept[f"{BEGIN}limits"].tolist()
    shape = (2, *kept[f"{BEGIN}shape"].tolist())
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = low + (high - low) * drawn
    if kept[f"{BEGIN}whole"]:
        drawn = drawn.round()
    return drawn.float() if kept[f"{BEGIN}float"] else drawn.long()


def apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take what `evidence` gave out of the ``tensors`` of a file."""
    return {name: tensors.pop(name) for name in list(tensors) if name.startswith(BEGIN)}


def _ranges(x: Tensor) -> Iterator[tuple[float, float]]:
    """The range of all numbers, and then one that every place of a sample has.

    The second is for nets that take another range of ids at each place.
    """
    yield float(x.min()), float(x.max())
    low, high = float(x.amin(0).max()), float(x.amax(0).min())
    if low <= high:
        yield low, high


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
