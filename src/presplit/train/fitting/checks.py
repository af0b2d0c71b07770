"""What is refused before training: nets, teachers and samples that do not fit each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, GraphError, SpecError
from presplit.core.recipe import Recipe
from presplit.train.data.samples import Samples
from presplit.train.fitting.augment import refuse_what_cannot_be_augmented
from presplit.train.fitting.balance import balanced_weights
from presplit.train.fitting.recipe import refuse_unknown_names
from presplit.train.fitting.steps import phases, trainable
from presplit.train.nets.add_exits import check_places, exit_macs
from presplit.train.nets.calling import evaluating, exit_logits
from presplit.train.nets.exits import MultiExit

ExitWeights = Sequence[float] | Literal["auto"] | None
"""What the loss of each exit counts: numbers, by what its answers cost ("auto"), or all alike."""

_PARTS = {
    "all": "net",
    "backbone": "net without its early exits",
    "heads": "early exits",
}


def refuse_what_is_missing(
    recipe: Recipe, teacher: nn.Module | None, validation: Samples | None
) -> None:
    """Raise `SpecError` if the recipe asks for what is on no shelf, or what was not given."""
    refuse_unknown_names(recipe)
    if recipe.distil and teacher is None:
        raise SpecError(f"distil is {recipe.distil}: give fit the teacher to learn from")
    if teacher is not None and not recipe.distil:
        raise SpecError(
            "teacher: nothing is learned from it, because distil, the share of the loss that it "
            "has, is 0: set it in the recipe"
        )
    if recipe.patience and validation is None:
        raise SpecError(
            f"patience is {recipe.patience}: give fit the validation part that it watches"
        )


def refuse_other_samples(recipe: Recipe, x: Tensor) -> None:
    """Raise `DataError` if samples such as ``x``, ``(batch, ...)``, cannot be changed as asked."""
    refuse_what_cannot_be_augmented(recipe.augment, x)
    mixes = "mixup" if recipe.mixup else "cutmix"
    if (recipe.mixup or recipe.cutmix) and not x.is_floating_point():
        raise DataError(f"{mixes}: only numbers with a fraction can be mixed, got {x.dtype}")
    if recipe.cutmix and x.ndim != 4:
        raise DataError(
            "cutmix: expected images (channels, height, width), got samples of shape "
            f"{tuple(x.shape[1:])}; mixup mixes any"
        )


def refuse_without_all_labels(recipe: Recipe) -> None:
    """Raise `SpecError` if the recipe asks for what only the labels of all samples can tell."""
    for key in ("class_weights", "sampling"):
        asked = getattr(recipe, key)
        if asked in ("balanced", "root"):
            own = "weights as numbers" if key == "class_weights" else "a loader that samples so"
            raise SpecError(
                f"{key}: {asked!r} needs the labels of all samples, and a loader shows them batch "
                f"by batch; give fit Samples, or {own}"
            )


def class_weights(
    recipe: Recipe, classes: int, train: Samples | Any, device: torch.device
) -> Tensor | None:
    """What each class counts, float32 ``(classes,)`` on ``device``; none if they count alike.

    Raises `SpecError` if the recipe has not one number for each.
    """
    asked = recipe.class_weights
    if asked == "none":
        return None
    if asked in ("balanced", "root"):
        labels = torch.from_numpy(train.y.copy())
        power = 1.0 if asked == "balanced" else 0.5
        return balanced_weights(labels, classes, power=power).to(device)
    if len(asked) != classes:
        raise SpecError(
            f"class_weights: expected one for each of {classes} classes, got {len(asked)}"
        )
    return torch.tensor(asked, device=device)


def refuse_what_does_not_fit(
    model: nn.Module, recipe: Recipe, exit_weights: ExitWeights, x: Tensor
) -> list[float]:
    """What the loss of each exit counts; ``x``: float32 ``(batch, ...)``, on the net's device.

    Raises `SpecError` if the recipe asks for what ``model`` has not, or trains a part of which all
    is frozen; `GraphError` if no gradient flows back from its logits for the samples ``x``.
    """
    kind, weights = type(model).__name__, _weights(model, exit_weights, x)
    if len(weights) == 1 and recipe.regime != "joint":
        raise SpecError(f"regime {recipe.regime!r} trains early exits, and the net has none")
    if len(weights) == 1 and recipe.self_distil:
        raise SpecError("self_distil teaches early exits, and the net has none")
    for phase in phases(recipe, weights):
        if not trainable(model, phase.part):
            raise SpecError(
                f"regime {recipe.regime!r} trains the {_PARTS[phase.part]}, and nothing of it in "
                f"{kind} has requires_grad"
            )
    if isinstance(model, MultiExit):
        check_places(model, x)
    with evaluating(model), torch.enable_grad():
        last = exit_logits(model, x)[-1]
    if not last.requires_grad and trainable(model, "backbone"):
        own = type(model.model).__name__ if isinstance(model, MultiExit) else kind
        raise GraphError(f"no gradient flows back from the logits of {own}: it detaches them")
    return weights


def refuse_other_classes(
    model: nn.Module,
    x: Tensor,
    classes: int,
    *,
    teacher: nn.Module | None,
    validation: Samples | None,
) -> int:
    """The classes that every exit tells apart; raise unless all speak of the same.

    Every exit of ``model`` needs ``classes`` logits at least; ``teacher`` gives as many logits as
    the net; ``validation`` has samples like ``x``, and no class without a logit.
    """
    with evaluating(model):
        found = [logits.shape[-1] for logits in exit_logits(model, x)]
    if min(found) < classes:
        raise GraphError(
            f"the data has {classes} classes, the exits of {type(model).__name__} give {found} "
            "logits"
        )
    if teacher is not None:
        with evaluating(teacher):
            taught = exit_logits(teacher, x)[-1].shape[-1]
        if {taught} != set(found):
            raise GraphError(f"teacher: expected {found[-1]} logits as the net's, got {taught}")
    if validation is None:
        return min(found)
    if not isinstance(validation, Samples):
        kind = type(validation).__name__
        raise DataError(f"validation: Samples(x, y) are expected, got {kind}")
    if validation.x.shape[1:] != tuple(x.shape[1:]):
        raise DataError(
            f"validation: expected samples of shape {tuple(x.shape[1:])} as in training, got "
            f"{validation.x.shape[1:]}"
        )
    if int(validation.y.max()) >= min(found):
        raise DataError(
            f"validation: labels must be in 0..{min(found) - 1}, got {int(validation.y.max())}"
        )
    return min(found)


def _weights(model: nn.Module, given: ExitWeights, x: Tensor) -> list[float]:
    """What the loss of each exit counts."""
    exits = len(model.exit_names) if isinstance(model, MultiExit) else 1
    if given == "auto":
        spent = exit_macs(model, x[:1])
        return [macs / spent[-1] for macs in spent]
    if isinstance(given, str):
        raise SpecError(
            f"exit_weights: expected a number for each of {exits} exits or 'auto', got {given!r}"
        )
    weights = list(given or [1.0] * exits)
    if len(weights) != exits:
        raise SpecError(f"exit_weights: expected one for each of {exits} exits, got {weights}")
    numbers = [each for each in weights if isinstance(each, int | float) and 0 <= each < math.inf]
    if len(numbers) < exits or not sum(numbers) > 0:
        raise SpecError(
            f"exit_weights: expected finite numbers of 0 or more, and one above 0, got {weights}"
        )
    return weights
