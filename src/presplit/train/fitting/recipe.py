"""What a recipe names: the shelves of optimisers and schedules; `augment` has the third."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from presplit.core.errors import context
from presplit.core.recipe import Recipe
from presplit.core.shelf import Shelf
from presplit.train.fitting.augment import augmentation

Optimise = Callable[[Iterable[dict[str, Any]], Recipe], torch.optim.Optimizer]
"""Takes parameters in groups, as `by_rate` gives them, each with its rate."""

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
            optimiser, [group["lr"] for group in optimiser.param_groups], total_steps=steps + 1
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
    augmentation(recipe.augment)


def facts(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of training itself, by field; the teacher's directory is not of it."""
    return {name: getattr(recipe, name) for name in Recipe.__struct_fields__}
