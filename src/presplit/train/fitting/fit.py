"""Training: one screen. A recipe says how, `fit` does it."""

from __future__ import annotations

import contextlib
import copy
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, GraphError, SpecError
from presplit.core.types import Floats
from presplit.train.data.samples import Samples
from presplit.train.fitting import distributed, resume
from presplit.train.fitting.losses import joint_loss
from presplit.train.fitting.recipe import AUGMENTATIONS, OPTIMISERS, RECIPES, SCHEDULES, Recipe
from presplit.train.fitting.resume import Epoch, Moment
from presplit.train.judging.evaluate import (
    accuracies,
    check_classifier,
    evaluate,
    evaluating,
    exit_logits,
)
from presplit.train.layers.linear import SparseLayer
from presplit.train.nets.exits import MultiExit


class Batches(Protocol):
    """Batches of inputs and int64 labels, anew whenever it is looped over.

    Its length is their number.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


def fit(
    model: nn.Module,
    train: Samples | Batches,
    *,
    recipe: str | Recipe = "default",
    epochs: int | None = None,
    validation: Samples | None = None,
    exit_weights: Sequence[float] | None = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
    state: str | Path | None = None,
) -> list[Epoch]:
    """Train ``model`` in place on the device it is on; the same ``seed`` gives the same weights.

    ``train``: `Samples`, or what gives batches ``(x, y)`` whenever it is looped over and has a
    length, as a `DataLoader` does (then it says the batch). ``exit_weights`` weighs the exits'
    losses (default: all alike). ``teacher`` is the net to distil from; the last of its exits
    speaks. What `initialise` drew, or the user loaded, is where training starts. ``state``: a file
    that keeps the state after every epoch; if it exists, training goes on from there, on a CPU bit
    for bit as if it had never stopped. Under ``accelerate launch`` all processes share each batch.
    Returns one `Epoch` each; ``on_epoch`` sees them as they end. Raises `SpecError` for a recipe
    that does not fit the net or a net that is frozen, `GraphError` for one that is no classifier of
    these samples, `DataError` if training diverges or ``state`` is of another training.
    """
    recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
    recipe = recipe if epochs is None else replace(recipe, epochs=epochs)
    device, order = distributed.device_of(model), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # what dropout draws, and the heads that get their sizes only now
    _refuse_what_is_missing(recipe, teacher, validation)
    teacher = (
        copy.deepcopy(teacher).to(device).eval() if teacher is not None and recipe.distil else None
    )
    batches: Batches | _Shuffled
    if isinstance(train, Samples):
        same = (
            teacher is not None and recipe.augment == "none"
        )  # its answers then never change: it is asked once
        taught = evaluate(teacher, train)[-1] if teacher is not None and same else None
        batches = _Shuffled(train, recipe.batch, order, device, taught=taught)
    else:
        batches = train
    x, y = (batches.x, batches.y) if isinstance(batches, _Shuffled) else _first(batches)
    x = x[:2].to(device)
    _prepare(model.to(device), x)
    with _precision(recipe, device):
        check_classifier(model, x, int(y.max()) + 1)
        weights = refuse_what_does_not_fit(model, recipe, exit_weights, x)
    beside = [
        name for name, wanted in (("average", recipe.ema), ("best", recipe.patience)) if wanted
    ]
    nets = {"net": model} | {name: copy.deepcopy(model) for name in beside}
    judged = nets.get("average", model)
    about = {
        **asdict(recipe),
        "seed": seed,
        "exit_weights": weights,
        "processes": distributed.count(),
    }
    if state is not None and isinstance(train, Samples):
        about["samples"] = zlib.crc32(train.y, zlib.crc32(train.x))
    saved = resume.read(state, about) if state is not None and Path(state).exists() else None
    history = list(saved.history) if saved else []
    if saved:
        saved.into_nets(nets, order)
    for phase in _phases(recipe, weights):
        with _training_only(model, phase.part) as values:
            optimiser = OPTIMISERS.find(recipe.optimiser)(values, recipe)
            steps = (phase.last - phase.first) * len(batches)
            schedule = SCHEDULES.find(recipe.schedule)(optimiser, recipe, steps)
            if saved and phase.first < len(history) < phase.last:
                saved.into_steps(optimiser, schedule)
            run = _Steps(model, optimiser, schedule, recipe, phase, teacher, nets.get("average"))
            while len(history) < phase.last and not _exhausted(history, phase, recipe):
                began = time.perf_counter()
                loss = run.epoch(batches, device)
                if not math.isfinite(loss):
                    raise DataError(
                        f"training diverged: the loss of epoch {len(history) + 1} is {loss:.3g}; "
                        "lower the rate"
                    )
                seen = (
                    tuple(accuracies(evaluate(judged, validation), validation.y))
                    if validation
                    else ()
                )
                history.append(Epoch(len(history) + 1, loss, seen, time.perf_counter() - began))
                if (
                    "best" in nets
                    and phase.last == recipe.epochs
                    and _best(history, phase) == len(history) - 1
                ):
                    nets["best"].load_state_dict(judged.state_dict())
                if state is not None and distributed.rank() == 0:
                    resume.save(state, Moment(nets, optimiser, schedule, order), history, about, x)
                if on_epoch:
                    on_epoch(history[-1])
    model.load_state_dict(nets.get("best", judged).state_dict())
    model.to(memory_format=torch.contiguous_format)
    model.eval()
    return history


def initialise(model: nn.Module, recipe: str | Recipe = "default", *, seed: int = 0) -> None:
    """Draw all linear layers and convolutions of ``model`` anew, by the recipe, from ``seed``."""
    recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, SparseLayer):
            layer.reset_parameters(
                fan_in="dense" if recipe.fan_in == "dense" else "sparse", bias=recipe.bias
            )
        elif isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(layer, nn.LazyLinear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, recipe.bias)


@dataclass(frozen=True)
class _Phase:
    """Epochs ``first`` up to ``last`` train one part, with these weights of the exits' losses."""

    first: int
    last: int
    part: Literal["all", "backbone", "heads"]
    weights: Sequence[float]


def _phases(recipe: Recipe, weights: Sequence[float]) -> list[_Phase]:
    """What the recipe's regime does one after the other."""
    first, early = recipe.first_epochs, [*weights[:-1], 0.0]
    alone = _Phase(0, first, "backbone", [0.0] * (len(weights) - 1) + [1.0])
    if recipe.regime == "separate":
        return [alone, _Phase(first, recipe.epochs, "heads", early)]
    together = _Phase(first, recipe.epochs, "all", weights)
    return [alone, together] if recipe.regime == "mixed" else [together]


class _Steps:
    """The steps of one phase: forward, loss, backward, optimiser, schedule, moving average."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        recipe: Recipe,
        phase: _Phase,
        teacher: nn.Module | None,
        average: nn.Module | None,
    ) -> None:
        self.model, self.optimiser, self.schedule = model, optimiser, schedule
        self.recipe, self.phase, self.teacher, self.average = recipe, phase, teacher, average
        self.net, self.augment = distributed.joined(model), AUGMENTATIONS.find(recipe.augment)

    def epoch(self, batches: Batches | _Shuffled, device: torch.device) -> float:
        """The mean loss of one pass over ``batches``."""
        self.model.train()
        if self.phase.part == "heads":
            assert isinstance(self.model, MultiExit)
            self.model.model.eval()
        losses, count = torch.zeros((), device=device), 0
        for batch in batches:
            losses += self._step(*(each.to(device) for each in batch))
            count += 1
        return float(distributed.mean(losses)) / count

    def _step(self, x: Tensor, y: Tensor, taught: Tensor | None = None) -> Tensor:
        """One step; gives the loss of this process's part.

        ``taught``: the teacher's logits, if they are known.
        """
        size, recipe = len(x), self.recipe
        x, y = distributed.part(self.augment(x)), distributed.part(y)
        with _precision(recipe, x.device):
            if taught is not None:
                taught = distributed.part(taught)
            elif self.teacher is not None:
                with torch.no_grad():
                    taught = exit_logits(self.teacher, x)[-1]
            loss = distributed.weight_of_part(size) * joint_loss(
                exit_logits(self.net, x),
                y,
                self.phase.weights,
                label_smoothing=recipe.label_smoothing,
                teacher=taught,
                distil=recipe.distil,
                self_distil=recipe.self_distil,
                temperature=recipe.temperature,
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        if self.average is not None:
            _move_towards(self.average, self.model, 1 - recipe.ema)
        return loss.detach()


@torch.no_grad()
def _move_towards(average: nn.Module, model: nn.Module, share: float) -> None:
    """``average`` moved by ``share`` of the way to ``model``.

    What is no float, such as an index, is copied.
    """
    for ours, theirs in zip(
        average.state_dict().values(), model.state_dict().values(), strict=True
    ):
        if ours.is_floating_point():
            ours.lerp_(theirs, share)
        else:
            ours.copy_(theirs)


class _Shuffled:
    """`Samples` on a device in batches, in another order each time.

    A single sample left over joins the last batch.

    One sample alone has no variance for a batch normalisation. ``taught``: a teacher's logits,
    which come along.
    """

    def __init__(
        self,
        samples: Samples,
        batch: int,
        order: torch.Generator,
        device: torch.device,
        *,
        taught: Floats | None = None,
    ) -> None:
        arrays = (samples.x, samples.y) if taught is None else (samples.x, samples.y, taught)
        self.x, self.y, *self.taught = (torch.from_numpy(part.copy()).to(device) for part in arrays)
        self.batch, self.order = batch, order

    def __len__(self) -> int:
        full, rest = divmod(len(self.y), self.batch)
        joins = rest == 0 or (rest == 1 < self.batch and full > 0)
        return full + (not joins)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        places = torch.randperm(len(self.y), generator=self.order).to(self.y.device)
        starts = [k * self.batch for k in range(len(self))]
        for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
            yield tuple(each[places[start:end]] for each in (self.x, self.y, *self.taught))


def _prepare(model: nn.Module, x: Tensor) -> None:
    """Give lazy heads their sizes.

    Let images lie as convolutions, grouped ones above all, are fast: channels last.
    """
    if isinstance(model, MultiExit):
        model.materialise(x)
    if x.ndim == 4:
        model.to(memory_format=torch.channels_last)


def _precision(recipe: Recipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """In which products are computed."""
    return torch.autocast(device.type, torch.bfloat16) if recipe.bf16 else contextlib.nullcontext()


def _first(batches: object) -> tuple[Tensor, Tensor]:
    """The first batch; raises `DataError` if these are no batches with a length."""
    if isinstance(batches, Iterable) and isinstance(batches, Sized) and len(batches):
        pair: Any = next(iter(batches))  # type: ignore[unknown]
        if (
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(each, Tensor) for each in pair)
        ):
            return pair[0], pair[1]
    kind = type(batches).__name__
    raise DataError(
        "fit trains on Samples(x, y), or on batches (x, y) with a length as a DataLoader has, got "
        f"{kind}"
    )


def _weights(model: nn.Module, given: Sequence[float] | None) -> list[float]:
    """What the loss of each exit counts."""
    exits = len(model.exit_names) if isinstance(model, MultiExit) else 1
    weights = list(given or [1.0] * exits)
    if len(weights) != exits:
        raise SpecError(f"exit_weights: expected one for each of {exits} exits, got {weights}")
    return weights


def refuse_what_does_not_fit(
    model: nn.Module, recipe: Recipe, exit_weights: Sequence[float] | None, x: Tensor
) -> list[float]:
    """What the loss of each exit counts; ``x``: float32 ``(batch, ...)``, on the net's device.

    Raises `SpecError` if the recipe asks for what ``model`` has not, or trains a part of which all
    is frozen; `GraphError` if no gradient flows back from its logits for the samples ``x``.
    """
    kind, weights = type(model).__name__, _weights(model, exit_weights)
    if len(weights) == 1 and recipe.regime != "joint":
        raise SpecError(f"regime {recipe.regime!r} trains early exits, and the net has none")
    if len(weights) == 1 and recipe.self_distil:
        raise SpecError("self_distil teaches early exits, and the net has none")
    for phase in _phases(recipe, weights):
        if not _values(model, phase.part):
            what = {
                "all": "net",
                "backbone": "net without its early exits",
                "heads": "early exits",
            }[phase.part]
            raise SpecError(
                f"regime {recipe.regime!r} trains the {what}, and nothing of it in {kind} has "
                "requires_grad"
            )
    with evaluating(model), torch.enable_grad():
        last = exit_logits(model, x)[-1]
    if not last.requires_grad and _values(model, "backbone"):
        own = type(model.model).__name__ if isinstance(model, MultiExit) else kind
        raise GraphError(f"no gradient flows back from the logits of {own}: it detaches them")
    return weights


def _refuse_what_is_missing(
    recipe: Recipe, teacher: nn.Module | None, validation: Samples | None
) -> None:
    """Raise `SpecError` if the recipe asks for what `fit` was not given."""
    if recipe.distil and teacher is None:
        raise SpecError(f"distil is {recipe.distil}: give fit the teacher to learn from")
    if recipe.patience and validation is None:
        raise SpecError(
            f"patience is {recipe.patience}: give fit the validation part that it watches"
        )


def _values(model: nn.Module, part: str) -> list[nn.Parameter]:
    """What is trained of one part: all of it that the user has not frozen."""
    heads = (
        {id(value) for value in model.heads.parameters()}
        if isinstance(model, MultiExit)
        else set[int]()
    )
    trainable = (value for value in model.parameters() if value.requires_grad)
    return [
        value for value in trainable if part == "all" or (id(value) in heads) == (part == "heads")
    ]


@contextlib.contextmanager
def _training_only(model: nn.Module, part: str) -> Iterator[list[nn.Parameter]]:
    """The parameters of one part.

    The others need no gradient meanwhile, and what the user froze stays frozen.
    """
    trainable, taken = _values(model, "all"), _values(model, part)
    for value in trainable:
        value.requires_grad_(any(value is each for each in taken))
    try:
        yield taken
    finally:
        for value in trainable:
            value.requires_grad_(True)


def _best(history: Sequence[Epoch], phase: _Phase) -> int:
    """The place of the first epoch of ``phase`` whose exits, weighed, were right most often."""
    own = range(phase.first, len(history))
    return max(
        own,
        key=lambda k: sum(w * a for w, a in zip(phase.weights, history[k].accuracy, strict=True)),
    )


def _exhausted(history: Sequence[Epoch], phase: _Phase, recipe: Recipe) -> bool:
    """Whether the last phase has gone on for long enough without getting better."""
    waited = phase.last == recipe.epochs and recipe.patience and len(history) > phase.first
    return bool(waited) and len(history) - 1 - _best(history, phase) >= recipe.patience
