"""The steps of one part of a training: forward, loss, backward, optimiser, schedule, average."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, GraphError
from presplit.core.progress import advance
from presplit.core.recipe import Recipe
from presplit.train.fitting import distributed
from presplit.train.fitting.losses import joint_loss
from presplit.train.fitting.rates import by_rate
from presplit.train.fitting.recipe import OPTIMISERS, SCHEDULES
from presplit.train.fitting.recorded import Recorded
from presplit.train.nets.calling import exit_logits
from presplit.train.nets.exits import MultiExit

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Samples and labels, changed at random before a step."""

Part = Literal["all", "backbone", "heads"]


class Source(Iterable[tuple[Tensor, ...]], Sized, Protocol):
    """Batches ``(x, y)`` or ``(x, y, taught)``, as many as its length says or fewer."""


@dataclass(frozen=True)
class Phase:
    """Epochs ``first`` up to ``last`` train one part, with these weights of the exits' losses."""

    first: int
    last: int
    part: Part
    weights: Sequence[float]


def phases(recipe: Recipe, weights: Sequence[float]) -> list[Phase]:
    """What the recipe's regime does one after the other."""
    first, early = recipe.first_epochs, [*weights[:-1], 0.0]
    alone = Phase(0, first, "backbone", [0.0] * (len(weights) - 1) + [1.0])
    if recipe.regime == "separate":
        return [alone, Phase(first, recipe.epochs, "heads", early)]
    together = Phase(first, recipe.epochs, "all", weights)
    return [alone, together] if recipe.regime == "mixed" else [together]


class Steps:
    """What one phase holds: its optimiser, its schedule, and the net as all processes share it."""

    def __init__(
        self,
        model: nn.Module,
        phase: Phase,
        recipe: Recipe,
        steps: int,
        *,
        teacher: nn.Module | None,
        average: nn.Module | None,
        change: Change,
        class_weights: Tensor | None,
    ) -> None:
        self.model, self.phase, self.recipe = model, phase, recipe
        self.teacher, self.average = teacher, average
        self.change, self.class_weights = change, class_weights
        values = trainable(model, phase.part)
        self.optimiser = OPTIMISERS.find(recipe.optimiser)(by_rate(model, values, recipe), recipe)
        total = (phase.last - phase.first) * steps
        self.schedule = SCHEDULES.find(recipe.schedule)(self.optimiser, recipe, total)
        self.net = distributed.joined(model)
        self._gradients = Recorded(self._add_gradients, values)

    def epoch(self, batches: Source, device: torch.device) -> float:
        """The mean loss of one pass over ``batches``."""
        self.model.train()
        if self.phase.part == "heads":
            assert isinstance(self.model, MultiExit)
            self.model.model.eval()
        losses, count = torch.zeros((), device=device), 0
        for batch in batches:
            losses += self._step(*batch)
            count += 1
            advance(len(batch[0]))
        if not count:
            raise DataError("the loader gave no batch in this epoch")
        for _ in range(len(batches) - count):
            self.schedule.step()  # for a batch that joined another; the schedule ends where it must
        return float(distributed.mean(losses)) / count

    def _step(self, x: Tensor, y: Tensor, taught: Tensor | None = None) -> Tensor:
        """One step; gives the loss of this process's part.

        ``taught``: the teacher's logits, if they are known.
        """
        changed = self.change(x, y)
        batch = changed if taught is None else (*changed, taught)
        loss = self._gradients(
            *(distributed.part(each) for each in batch), weight=distributed.weight_of_part(len(x))
        )
        self.optimiser.step()
        self.schedule.step()
        if self.average is not None:
            _move_towards(self.average, self.model, 1 - self.recipe.ema)
        return loss

    def _add_gradients(
        self, x: Tensor, y: Tensor, taught: Tensor | None = None, *, weight: float
    ) -> Tensor:
        """The loss of one process's part of a batch, times ``weight``; its gradients are added."""
        recipe = self.recipe
        with precision(recipe, x.device):
            if taught is None and self.teacher is not None:
                with torch.no_grad():
                    taught = exit_logits(self.teacher, x)[-1]
            loss = weight * joint_loss(
                exit_logits(self.net, x),
                y,
                self.phase.weights,
                class_weights=self.class_weights,
                label_smoothing=recipe.label_smoothing,
                teacher=taught,
                distil=recipe.distil,
                self_distil=recipe.self_distil,
                temperature=recipe.temperature,
            )
        _backward(loss, type(self.model).__name__)
        return loss.detach()


def _backward(loss: Tensor, kind: str) -> None:
    """Take gradients; raises `GraphError` with torch's reason where a net has none."""
    try:
        loss.backward()
    except RuntimeError as error:
        said = " ".join(str(error).split())[:300]
        raise GraphError(f"the gradients of {kind} cannot be taken: {said}") from error


def precision(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """In which products are computed."""
    return torch.autocast(device.type, torch.bfloat16) if recipe.bf16 else contextlib.nullcontext()


@torch.no_grad()
def _move_towards(average: nn.Module, model: nn.Module, share: float) -> None:
    """``average`` moved by ``share`` of the way to ``model``.

    What is no float, such as an index, is copied.
    """
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    for ours, theirs in pairs:
        if ours.is_floating_point():
            ours.lerp_(theirs, share)
        else:
            ours.copy_(theirs)


def trainable(model: nn.Module, part: Part) -> list[nn.Parameter]:
    """What is trained of one part: all of it that the user has not frozen."""
    heads: set[int] = set()
    if isinstance(model, MultiExit):
        heads = {id(value) for value in model.heads.parameters()}
    free = [value for value in model.parameters() if value.requires_grad]
    return [value for value in free if part == "all" or (id(value) in heads) == (part == "heads")]


@contextlib.contextmanager
def training_only(model: nn.Module, part: Part) -> Iterator[None]:
    """The others of the parameters need no gradient meanwhile.

    What the user froze stays frozen.
    """
    taken = {id(value) for value in trainable(model, part)}
    others = [value for value in trainable(model, "all") if id(value) not in taken]
    for value in others:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in others:
            value.requires_grad_(True)
