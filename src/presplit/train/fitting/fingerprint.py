"""Whether a net is still the one that it was.

What it answers to two samples of noise is kept beside its values. The noise is drawn from a seed,
in the range of the training samples, so that of these nothing is kept but a lowest and a highest
number. The same values in changed code give other answers: a change is seen if it moves a logit of
the noise by more than `APART`; what moves them less, or not at all, is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError
from presplit.train.nets.calling import device_of, evaluating, exit_logits

APART = 5e-3
"""Relative to the largest logit of an exit.

A GPU that multiplies in 10 binary digits stays below 2e-3.
"""
BEGIN = "recognised."
"""How the names of the tensors begin, among those of a checkpoint."""
LARGEST = 2**26
"""Values of a sample: of larger ones nothing is kept, and no file makes us draw them."""
DEEPEST = 16
"""Axes of a sample, likewise."""


def evidence(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The range of ``x``, and all exits' logits for two samples of noise in it.

    The result is empty if the net does not answer the same twice.

    ``x``: ``(batch, ...)``, on any device, at least one sample. Nothing is raised, and no random
    state changes.
    """
    return answered(model, seen(x))


def seen(x: Tensor) -> list[dict[str, Tensor]]:
    """What is kept of the samples ``x`` for `answered`: each range to try, the first that serves.

    All of ``x`` is read, so whoever asks often keeps the result.
    """
    if not _can_be_drawn(x.shape[1:]):
        return []
    whole = bool((x == x.round()).all())
    return [
        {
            f"{BEGIN}limits": torch.tensor(limits, dtype=torch.float64),
            f"{BEGIN}shape": torch.tensor(x.shape[1:], dtype=torch.int64),
            f"{BEGIN}whole": torch.tensor(whole),
            f"{BEGIN}float": torch.tensor(x.is_floating_point()),
        }
        for limits in _ranges(x)
    ]


def answered(model: nn.Module, ranges: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """As `evidence`, from what is `seen` of the samples."""
    for kept in ranges:
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
    """Take what `evidence` gave out of the ``tensors`` of a file.

    Raises `DataError` if it is not what `evidence` gives.
    """
    kept = {name: tensors.pop(name) for name in list(tensors) if name.startswith(BEGIN)}
    wrong = _wrong(kept) if kept else None
    if wrong:
        raise DataError(
            f"what its net is recognised by is damaged or of another version ({BEGIN}{wrong}); "
            "train anew, or bring back the file as it was saved"
        )
    return kept


def _wrong(kept: Mapping[str, Tensor]) -> str | None:
    """The first name whose tensor is not such as `evidence` gives; None if all are."""
    forms: dict[str, tuple[torch.dtype, list[int] | None]] = {
        "limits": (torch.float64, [2]),
        "shape": (torch.int64, None),
        "whole": (torch.bool, []),
        "float": (torch.bool, []),
    }
    for name, (dtype, shape) in forms.items():
        found = kept.get(f"{BEGIN}{name}")
        if found is None or found.dtype != dtype:
            return name
        if shape is not None and list(found.shape) != shape:
            return name
    sizes = kept[f"{BEGIN}shape"]
    if sizes.ndim != 1 or not _can_be_drawn(sizes.tolist()):
        return "shape"
    exits = len(kept) - len(forms)
    for name in map(str, range(max(exits, 1))):
        found = kept.get(f"{BEGIN}{name}")
        if found is None or found.dtype != torch.float32:
            return name
    return None


def _can_be_drawn(shape: Sequence[int]) -> bool:
    """Whether samples of ``shape`` are such that noise is drawn for them."""
    return len(shape) <= DEEPEST and min(shape, default=1) > 0 and math.prod(shape) <= LARGEST


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
