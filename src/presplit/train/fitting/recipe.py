"""What a recipe names: the shelves of optimisers, schedules and augmentations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from presplit.core.errors import context
from presplit.core.recipe import Recipe
from presplit.core.shelf import Shelf

Optimise = Callable[[Iterable[nn.Parameter], Recipe], torch.optim.Optimizer]

OPTIMISERS: Shelf[Optimise] = Shelf(
    "optimiser",
    {
        "adam": lambda values, recipe: torch.optim.Adam(
            values, recipe.rate, weight_decay=recipe.weight_decay
        ),
        "adamw": lambda values, recipe: torch.optim.AdamW(
            values, recipe.rate, weight_decay=recipe.weight_decay
        ),
        "sgd": lambda values, recipe: torch.optim.SGD(
            values, recipe.rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        ),
    },
)
"""``sgd`` has Nesterov momentum 0.9."""

SCHEDULES: Shelf[Callable[[torch.optim.Optimizer, Recipe, int], LRScheduler]] = Shelf(
    "schedule",
    {
        "one_cycle": lambda optimiser, recipe, steps: OneCycleLR(
            optimiser, recipe.rate, total_steps=steps + 1
        ),
        "cosine": lambda optimiser, recipe, steps: CosineAnnealingLR(optimiser, T_max=steps),
        "inverse_time": lambda optimiser, recipe, steps: LambdaLR(
            optimiser, lambda k: 1 / (1 + recipe.decay * k)
        ),
        "constant": lambda optimiser, recipe, steps: LambdaLR(optimiser, lambda k: 1.0),
    },
)
"""The rate over all ``steps``.

``one_cycle``: arXiv 1708.07120; ``inverse_time``: ``rate / (1 + decay * step)``.
"""


def _shifted(x: Tensor, *, share: int = 8) -> Tensor:
    """Every image moved by up to a ``share``-th of its sides, one pixel at least.

    Zeros stand where nothing came in.
    """
    count, _, height, width = x.shape
    most = (max(1, height // share), max(1, width // share))
    padded = F.pad(x, (most[1], most[1], most[0], most[0]))
    down, right = (
        torch.randint(0, 2 * side + 1, (count, 1)).to(x.device, non_blocking=x.is_cuda)
        for side in most
    )
    rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[
        torch.arange(count, device=x.device)[:, None, None, None], channels, rows, columns
    ]


def _mirrored(x: Tensor) -> Tensor:
    """Half of the images, at random, with left and right exchanged."""
    return torch.where(
        (torch.rand(len(x), 1, 1, 1) < 0.5).to(x.device, non_blocking=x.is_cuda), x.flip(3), x
    )


AUGMENTATIONS: Shelf[Callable[[Tensor], Tensor]] = Shelf(
    "augmentation",
    {
        "none": lambda x: x,
        "nudge": lambda x: _shifted(x, share=28),
        "shift": _shifted,
        "shift_flip": lambda x: _mirrored(_shifted(x)),
    },
)
"""What changes a batch of images ``(batch, channels, height, width)`` before the net sees it.

``nudge`` moves them by at most a pixel of 28, ``shift`` by up to an eighth of their sides;
``shift_flip`` mirrors half of them too."""


def refuse_unknown_names(recipe: Recipe) -> None:
    """Raise `SpecError` if the recipe names what is on no shelf here.

    >>> refuse_unknown_names(Recipe(schedule="step"))
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: schedule: no schedule named 'step'; there are: one_cycle, \
cosine, inverse_time, constant
    """
    with context("optimiser"):
        OPTIMISERS.find(recipe.optimiser)
    with context("schedule"):
        SCHEDULES.find(recipe.schedule)
    with context("augment"):
        AUGMENTATIONS.find(recipe.augment)


def facts(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of training itself, by field; the teacher's directory is not of it."""
    return {name: getattr(recipe, name) for name in Recipe.__struct_fields__}
