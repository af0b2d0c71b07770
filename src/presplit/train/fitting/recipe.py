"""Recipes: how a net is trained, as one frozen value.

Optimisers, schedules and augmentations are chosen by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from presplit.core.errors import SpecError
from presplit.core.shelf import Shelf


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Raises `SpecError` for a name that is not on its shelf and a number out of its range.

    ``optimiser``, ``schedule``, ``augment``: see `OPTIMISERS`, `SCHEDULES`, `AUGMENTATIONS`;
    ``weight_decay`` is the optimiser's, ``decay`` belongs to the schedule "inverse_time".
    ``fan_in``: scale initial values by the connections that exist ("sparse") or as if all did
    ("dense"). ``regime`` (arXiv 2103.04505): "joint" trains all exits together; "separate" the net
    with its own classifier for ``backbone_epochs`` (default: half of them) and then only the early
    exits' heads; "mixed" the net, then everything. ``label_smoothing``, 0..1; ``distil``, 0..1: how
    much of every exit's loss is taken against the teacher given to `fit`, ``self_distil`` how much
    of an early exit's against the last exit (arXiv 1905.08094), both softened by ``temperature``
    (arXiv 1503.02531: 2..10; 4 is usual). ``ema``, 0..1: decay a step of the moving average of all
    values, which then is the net (0: none; 0.99..0.9999). ``patience``: stop after so many epochs
    of the last regime without better exits on the validation part, weighed as their losses are, and
    keep the best (0: never stop, keep the last).
    """

    epochs: int = 50
    batch: int = 128
    rate: float = 5e-3
    schedule: str = "one_cycle"
    decay: float = 0.0
    fan_in: str = "sparse"
    bias: float = 0.0
    bf16: bool = False
    optimiser: str = "adam"
    weight_decay: float = 0.0
    augment: str = "none"
    regime: str = "joint"
    backbone_epochs: int | None = None
    label_smoothing: float = 0.0
    distil: float = 0.0
    self_distil: float = 0.0
    temperature: float = 4.0
    ema: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        (
            OPTIMISERS.find(self.optimiser),
            SCHEDULES.find(self.schedule),
            AUGMENTATIONS.find(self.augment),
        )
        for name, legal in (
            ("fan_in", ("sparse", "dense")),
            ("regime", ("joint", "separate", "mixed")),
        ):
            if getattr(self, name) not in legal:
                raise SpecError(
                    f"{name}: expected one of {', '.join(legal)}, got {getattr(self, name)!r}"
                )
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("label_smoothing", "distil", "self_distil", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if self.distil + self.self_distil > 1:
            raise SpecError(
                f"distil and self_distil are shares of one loss, got {self.distil} + "
                f"{self.self_distil}"
            )
        if not self.rate > 0 or not self.temperature > 0:
            raise SpecError(
                f"rate and temperature must be above 0, got {self.rate} and {self.temperature}"
            )
        if self.weight_decay < 0 or self.decay < 0 or self.patience < 0:
            raise SpecError("weight_decay, decay and patience must be at least 0")
        if self.backbone_epochs is not None and not 0 < self.backbone_epochs < self.epochs:
            raise SpecError(
                f"backbone_epochs must be in 1..{self.epochs - 1}, got {self.backbone_epochs}"
            )
        if self.regime != "joint" and self.epochs < 2:
            raise SpecError(f"regime {self.regime!r} needs 2 epochs at least, got {self.epochs}")

    @property
    def first_epochs(self) -> int:
        """Epochs in which only the net and its own classifier are trained."""
        if self.regime == "joint":
            return 0
        return self.epochs // 2 if self.backbone_epochs is None else self.backbone_epochs


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


RECIPES: Shelf[Recipe] = Shelf(
    "recipe",
    {
        "default": Recipe(),
        "paper": Recipe(50, 256, 1e-3, "inverse_time", decay=1e-5, fan_in="dense", bias=0.1),
    },
)
"""``paper`` is that of arXiv 2407.11763's code.

It has He initialisation by the dense fan-in, biases 0.1 and decaying Adam.
"""

OPTIONS = tuple(field.name for field in fields(Recipe))
