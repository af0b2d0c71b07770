"""Recipes: how a net is trained, as one frozen value, and those that have a name.

Optimisers, schedules and augmentations stay names here; training looks them up on its shelves
before it begins.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from presplit.core.errors import SpecError
from presplit.core.shelf import Shelf
from presplit.core.value import NonNegative, PartialShare, Positive, Share, Value

Text = Annotated[str, Meta(min_length=1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Recipe(Value, frozen=True):
    """How to train.

    ``optimiser``, ``schedule``, ``augment``: names on the shelves of
    `presplit.train.fitting.recipe` and `presplit.train.fitting.augment`; of ``augment`` several
    joined by ``+`` ("crop+flip"), done in that order. ``weight_decay`` is the optimiser's,
    ``decay`` belongs to the schedule "inverse_time". ``fan_in``: scale initial values by the
    connections that exist ("sparse") or as if all did ("dense"). ``rates``: a sparse layer's
    connections learn at the rate divided by the root of their density ("by_fan_in"), so that a rate
    that suits a dense net suits the sparse one, or all at one ("uniform"). ``regime`` (arXiv
    2103.04505): "joint" trains all exits together; "separate" the net with its own classifier for
    ``backbone_epochs`` (default: half of them) and then only the early exits; "mixed" the net, then
    everything. ``label_smoothing``, 0..1; ``distil``, 0..1: how much of every exit's loss is taken
    against the teacher, ``self_distil`` how much of an early exit's against the last exit (arXiv
    1905.08094), both softened by ``temperature`` (arXiv 1503.02531: 2..10; 4 is usual). ``ema``,
    0..1: decay a step of the moving average of all values, which then is the net (0: none;
    0.99..0.9999). ``patience``: stop after so many epochs of the last regime without better exits
    on the validation part, weighed as their losses are, and keep the best (0: never stop, keep the
    last). ``class_weights``: what a sample of each class counts in the cross-entropy, as numbers,
    "balanced": all classes alike, or "root": halfway there, by the root of that. ``sampling``:
    "balanced" trains on samples of all classes equally often, in epochs as long as before.
    ``mixup`` (arXiv 1710.09412) and ``cutmix`` (arXiv 1905.04899): parameters of the beta
    distribution by which samples are mixed (0: never; 0.2 and 1 are usual); of both, each batch
    takes one at random.

    Raises `SpecError` for a number out of its range, and for numbers that contradict each other.

    >>> Recipe(epochs=0)
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: Recipe.epochs: expected `int` >= 1, got 0
    """

    epochs: Size = 50
    batch: Size = 128
    rate: Positive = 5e-3
    schedule: Text = "one_cycle"
    decay: NonNegative = 0.0
    fan_in: Literal["sparse", "dense"] = "sparse"
    bias: float = 0.0
    rates: Literal["by_fan_in", "uniform"] = "by_fan_in"
    bf16: bool = False
    optimiser: Text = "adam"
    weight_decay: NonNegative = 0.0
    augment: Text = "none"
    regime: Literal["joint", "separate", "mixed"] = "joint"
    backbone_epochs: Size | None = None
    label_smoothing: PartialShare = 0.0
    distil: Share = 0.0
    self_distil: Share = 0.0
    temperature: Positive = 4.0
    ema: PartialShare = 0.0
    patience: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    class_weights: Literal["none", "balanced", "root"] | tuple[Positive, ...] = "none"
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        if self.distil + self.self_distil > 1:
            raise SpecError(
                f"{kind}.self_distil: it and distil are shares of one loss, expected at most 1 "
                f"together, got {self.self_distil} + {self.distil}"
            )
        if self.backbone_epochs is not None and self.backbone_epochs >= self.epochs:
            raise SpecError(
                f"{kind}.backbone_epochs: expected fewer than epochs = {self.epochs}, got "
                f"{self.backbone_epochs}"
            )
        if self.class_weights in ("balanced", "root") and self.sampling == "balanced":
            raise SpecError(
                f"{kind}.class_weights: expected no {self.class_weights!r} beside sampling "
                "'balanced', which makes rare classes count as much already"
            )
        if self.regime != "joint" and self.epochs < 2:
            raise SpecError(
                f"{kind}.epochs: regime {self.regime!r} needs 2 at least, got {self.epochs}"
            )

    @property
    def first_epochs(self) -> int:
        """Epochs in which only the net and its own classifier are trained."""
        if self.regime == "joint":
            return 0
        return self.epochs // 2 if self.backbone_epochs is None else self.backbone_epochs


class Training(Recipe, frozen=True):
    """``[training]``: a recipe, and a net to learn from.

    In a file ``recipe = "paper"`` begins with the recipe of that name, and the other keys say what
    differs from it. ``teacher``: the directory of a finished run to distil from; without one,
    ``distil`` trains the dense parent first.
    """

    teacher: Text | None = None


RECIPES: Shelf[Recipe] = Shelf(
    "recipe",
    {
        "default": Recipe(),
        "paper": Recipe(
            50, 256, 1e-3, "inverse_time", decay=1e-5, fan_in="dense", bias=0.1, rates="uniform"
        ),
    },
)
"""``paper`` is that of arXiv 2407.11763's code.

It has He initialisation by the dense fan-in, biases 0.1, and decaying Adam of one rate for all.
"""
