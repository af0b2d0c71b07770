"""Training: one screen. A recipe says how, `fit` does it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from presplit.core.errors import DataError, SpecError
from presplit.core.shelf import Shelf
from presplit.train.data.samples import Samples
from presplit.train.evaluate import accuracies, evaluate, exit_logits
from presplit.train.exits import MultiExit
from presplit.train.layers import SparseLayer
from presplit.train.losses import joint_loss


@dataclass(frozen=True)
class Recipe:
    """How to train: Adam with a rate over time, and how values begin.

    ``schedule``: "one_cycle" (arXiv 1708.07120), "cosine" or "inverse_time" (``rate / (1 + decay * step)``).
    ``fan_in``: scale initial values by the connections that exist ("sparse") or as if all did ("dense").
    """

    epochs: int = 50
    batch: int = 128
    rate: float = 5e-3
    schedule: str = "one_cycle"
    decay: float = 0.0
    fan_in: str = "sparse"
    bias: float = 0.0
    bf16: bool = False


RECIPES: Shelf[Recipe] = Shelf(
    "recipe",
    {
        "default": Recipe(),
        "paper": Recipe(50, 256, 1e-3, "inverse_time", decay=1e-5, fan_in="dense", bias=0.1),
    },
)
"""``paper`` is that of arXiv 2407.11763's code: He initialisation by the dense fan-in, biases 0.1, decaying Adam."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: its number from 1, mean loss, accuracy of each exit on the validation part (if given), seconds."""

    number: int
    loss: float
    accuracy: tuple[float, ...]
    seconds: float


def fit(
    model: nn.Module,
    train: Samples,
    *,
    recipe: str | Recipe = "default",
    epochs: int | None = None,
    validation: Samples | None = None,
    exit_weights: Sequence[float] | None = None,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``model`` in place on the device it is on, all exits together; the same ``seed`` gives the same weights.

    ``exit_weights`` weighs the exits' losses (default: all alike). What ``initialise`` drew, or the user loaded, is
    where it starts. Returns one `Epoch` each; ``on_epoch`` sees them as they end.
    """
    recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
    recipe = replace(recipe, epochs=recipe.epochs if epochs is None else epochs)
    if recipe.epochs < 1:
        raise SpecError(f"epochs must be at least 1, got {recipe.epochs}")
    if not isinstance(train, Samples):
        raise DataError(f"fit trains on Samples(x, y) of presplit.train.data, got {type(train).__name__}")
    device = next(model.parameters()).device
    torch.manual_seed(seed)  # what dropout draws, and the heads that get their sizes only now
    x, y = torch.from_numpy(train.x.copy()).to(device), torch.from_numpy(train.y.copy()).to(device)
    if isinstance(model, MultiExit):
        model.materialise(x[:2])
    if x.ndim == 4:  # images: convolutions, grouped ones above all, run faster with channels last
        model.to(memory_format=torch.channels_last)
    exits = len(model.exit_names) if isinstance(model, MultiExit) else 1
    weights = list(exit_weights or [1.0] * exits)
    if len(weights) != exits:
        raise SpecError(f"exit_weights: expected one for each of {exits} exits, got {weights}")
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    steps = len(_batches(torch.arange(len(train)), recipe.batch))
    schedule = _schedule(optimiser, recipe, steps)
    history: list[Epoch] = []
    for number in range(1, recipe.epochs + 1):
        began, losses = time.perf_counter(), torch.zeros((), device=device)
        model.train()
        for places in _batches(torch.randperm(len(train), generator=order).to(device), recipe.batch):
            with torch.autocast(device.type, torch.bfloat16) if recipe.bf16 else contextlib.nullcontext():
                loss = joint_loss(exit_logits(model, x[places]), y[places], weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses += loss.detach()
        seen = tuple(accuracies(evaluate(model, validation), validation.y)) if validation is not None else ()
        if not torch.isfinite(losses):
            raise DataError(f"training diverged: the loss of epoch {number} is {float(losses):.3g}; lower the rate")
        history.append(Epoch(number, float(losses) / steps, seen, time.perf_counter() - began))
        if on_epoch:
            on_epoch(history[-1])
    model.to(memory_format=torch.contiguous_format)
    model.eval()
    return history


def initialise(model: nn.Module, recipe: str | Recipe = "default", *, seed: int = 0) -> None:
    """Draw all values of ``model``'s linear layers and convolutions anew, as the recipe says, from ``seed``."""
    recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, SparseLayer):
            layer.reset_parameters(fan_in="dense" if recipe.fan_in == "dense" else "sparse", bias=recipe.bias)
        elif isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(layer, nn.LazyLinear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, recipe.bias)


def _batches(places: torch.Tensor, size: int) -> list[torch.Tensor]:
    """``places`` in batches of ``size``; a single one left over, which has no variance, joins the batch before it."""
    batches = list(places.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _schedule(optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The rate over ``steps`` an epoch."""
    total = recipe.epochs * steps
    if recipe.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=total + 1)
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=total)
    if recipe.schedule == "inverse_time":
        return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (1 + recipe.decay * step))
    raise SpecError(f"schedule must be one_cycle, cosine or inverse_time, got {recipe.schedule!r}")
