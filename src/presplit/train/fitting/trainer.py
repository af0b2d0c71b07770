"""A training that goes on epoch by epoch, and whose whole state can be taken and put back.

`presplit.train.fit` loops over it; whoever shares a training among clients steps it himself.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
import zlib
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, PresplitWarning
from presplit.core.recipe import RECIPES, Recipe
from presplit.train.data.samples import Samples
from presplit.train.fitting import distributed, fingerprint, resume
from presplit.train.fitting.augment import augmentation
from presplit.train.fitting.batches import Batches, Loaded, Shuffled
from presplit.train.fitting.checks import (
    ExitWeights,
    class_weights,
    refuse_other_classes,
    refuse_other_samples,
    refuse_what_does_not_fit,
    refuse_what_is_missing,
    refuse_without_all_labels,
)
from presplit.train.fitting.mixup import mixed
from presplit.train.fitting.recipe import facts
from presplit.train.fitting.resume import Epoch, State
from presplit.train.fitting.steps import Phase, Steps, phases, precision, training_only
from presplit.train.judging.doubts import LOOKED_AT, scale_doubt
from presplit.train.judging.evaluate import accuracies, evaluate
from presplit.train.nets.calling import evaluating, exit_logits
from presplit.train.nets.checking import check_classifier, held_in_0_1, scales_inputs
from presplit.train.nets.copying import changeable, twin
from presplit.train.nets.exits import MultiExit


class Trainer:
    """A training of ``model`` in place, on the device it is on; arguments as those of `fit`.

    All that can be refused is refused when it is made. ``history`` has one `Epoch` for each that
    is done; when it is ``finished``, `finish` gives the net its last form.

    >>> import numpy as np
    >>> samples = Samples(np.eye(4, dtype=np.float32), np.arange(4))
    >>> first = Trainer(nn.Linear(4, 4), samples, epochs=2)
    >>> other, _ = Trainer(nn.Linear(4, 4), samples, epochs=2), first.epoch()
    >>> other.load(first.state())
    >>> first.epoch().loss == other.epoch().loss, other.finished
    (True, True)
    """

    def __init__(
        self,
        model: nn.Module,
        train: Samples | Batches,
        *,
        recipe: str | Recipe = "default",
        epochs: int | None = None,
        validation: Samples | None = None,
        exit_weights: ExitWeights = None,
        teacher: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
        if epochs is not None:
            recipe = msgspec.structs.replace(recipe, epochs=epochs)
        refuse_what_is_missing(recipe, teacher, validation)
        model = changeable(model)  # what wraps it shares its values
        self.model, self.recipe, self.seed = model, recipe, seed
        self.history: list[Epoch] = []
        self._train, self._validation = train, validation
        self._device = distributed.device_of(model)
        self._order = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # what dropout draws, and the exits that get their sizes only now
        self._teacher = None
        if teacher is not None and recipe.distil:
            self._teacher = twin(teacher).to(self._device).eval()
        model.to(self._device)
        self._augment = augmentation(recipe.augment)
        self._batches = self._source()
        self._weights = self._checked(exit_weights)
        beside = {"average": recipe.ema, "best": recipe.patience}
        copies = {name: twin(model) for name, wanted in beside.items() if wanted}
        self._nets = {"net": model, **copies}
        self._phases = phases(recipe, self._weights)
        self._steps: Steps | None = None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last of them brought nothing for long enough."""
        return len(self.history) >= self.recipe.epochs or self._exhausted()

    @property
    def samples(self) -> int:
        """How many samples an epoch has; of a loader, as many as full batches have."""
        if isinstance(self._train, Samples):
            return len(self._train)
        return len(self._batches) * len(self._batches.first[1])

    def epoch(self) -> Epoch:
        """Train for one epoch.

        Raises `DataError` if training diverges, `GraphError` if the net cannot be trained after
        all.
        """
        began, phase = time.perf_counter(), self._phase()
        with training_only(self.model, phase.part):
            loss = self._entered(phase).epoch(self._batches, self._device)
        number = len(self.history) + 1
        if not math.isfinite(loss) or not self._answers():
            raise DataError(
                f"training diverged: the loss of epoch {number} is {loss:.3g}; lower the rate"
            )
        seen: tuple[float, ...] = ()
        if self._validation is not None:
            logits = evaluate(self._judged, self._validation)
            seen = tuple(accuracies(logits, self._validation.y))
        self.history.append(Epoch(number, loss, seen, time.perf_counter() - began))
        if "best" in self._nets and phase is self._phases[-1] and self._best() == number - 1:
            self._nets["best"].load_state_dict(self._judged.state_dict())
        return self.history[-1]

    def state(self) -> State:
        """All that is needed to go on from here as if nothing had happened."""
        phase = self._phase()
        with training_only(self.model, phase.part):
            steps = self._entered(phase)
        return resume.pack(
            self._nets,
            steps.optimiser,
            steps.schedule,
            self._order,
            history=self.history,
            about=self._about,
            evidence=fingerprint.answered(self.model, self._seen),
        )

    def load(self, state: State) -> None:
        """Go on from ``state``.

        Raises `DataError` if it is of another training, of another net, or of one whose code has
        changed.
        """
        state.refuse_another(self._about)
        state.into_nets(self._nets, self._order)
        self.history, self._steps = list(state.history), None
        phase = self._phase()
        if phase.first < len(self.history):
            with training_only(self.model, phase.part):
                steps = self._entered(phase)
            state.into_steps(steps.optimiser, steps.schedule)

    def finish(self) -> None:
        """The net is the best that was seen, or the average, or the last, in evaluation mode."""
        self.model.load_state_dict(self._nets.get("best", self._judged).state_dict())
        self.model.to(memory_format=torch.contiguous_format)
        self.model.eval()

    def _answers(self) -> bool:
        """Whether the net still gives numbers; an epoch's last step shows in no loss."""
        with evaluating(self.model):
            logits = exit_logits(self.model, self._batches.first[0][:2])
        return all(bool(torch.isfinite(each).all()) for each in logits)

    def _source(self) -> Shuffled | Loaded:
        """The batches in one form."""
        if not isinstance(self._train, Samples):
            refuse_without_all_labels(self.recipe)
            own = next((value.dtype for value in self.model.parameters()), torch.float32)
            return Loaded(self._train, self._device, own if own.is_floating_point else torch.float)
        taught, recipe = None, self.recipe
        changes = recipe.augment != "none" or recipe.mixup or recipe.cutmix
        if self._teacher is not None and not changes:
            # Where samples stay as they are, the teacher's answers never change: it is asked once.
            two = torch.from_numpy(self._train.x[:2].copy())
            check_classifier(self._teacher, two, 1, data="the data")
            taught = evaluate(self._teacher, self._train)[-1]
        return Shuffled(
            self._train,
            recipe.batch,
            self._order,
            self._device,
            sampling=recipe.sampling,
            taught=taught,
        )

    def _checked(self, exit_weights: ExitWeights) -> list[float]:
        """What each exit's loss counts; the net has been seen to fit the samples."""
        x, y = self._batches.first
        two, classes = x[:2], int(y.max()) + 1
        with precision(self.recipe, self._device):
            check_classifier(self.model, two, classes)
            self._warn(x)
            refuse_other_samples(self.recipe, x)
            _prepare(self.model, two)
            weights = refuse_what_does_not_fit(self.model, self.recipe, exit_weights, two)
            known = refuse_other_classes(
                self.model, two, classes, teacher=self._teacher, validation=self._validation
            )
        self._classes = known
        self._class_weights = class_weights(self.recipe, known, self._train, self._device)
        if isinstance(self._batches, Loaded):
            self._batches.classes = known
        return weights

    def _warn(self, x: Tensor) -> None:
        """Warn of what is allowed and probably not meant."""
        some = x[:LOOKED_AT].float().cpu().numpy()
        scale = "" if scales_inputs(self.model) else scale_doubt(some)
        for doubt in (scale, held_in_0_1(self.model, x)):
            if doubt:
                warnings.warn(doubt, PresplitWarning, stacklevel=5)  # where fit was called

    def _changed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as the recipe augments and mixes it."""
        recipe = self.recipe
        x = self._augment(x)
        if not (recipe.mixup or recipe.cutmix):
            return x, y
        return mixed(x, y, self._classes, mixup=recipe.mixup, cutmix=recipe.cutmix)

    @functools.cached_property
    def _seen(self) -> list[dict[str, Tensor]]:
        """What the net is asked to be recognised, found once: all samples are read for it."""
        return fingerprint.seen(self._batches.first[0])

    @functools.cached_property
    def _about(self) -> dict[str, Any]:
        """Of what training a state is."""
        about: dict[str, Any] = {
            **facts(self.recipe),
            "seed": self.seed,
            "exit_weights": self._weights,
            "processes": distributed.count(),
        }
        if isinstance(self._train, Samples):
            about["samples"] = zlib.crc32(self._train.y, zlib.crc32(self._train.x))
        return about

    @property
    def _judged(self) -> nn.Module:
        """The net that validation looks at."""
        return self._nets.get("average", self.model)

    def _phase(self) -> Phase:
        """The phase that the next epoch belongs to."""
        return next((p for p in self._phases if len(self.history) < p.last), self._phases[-1])

    def _entered(self, phase: Phase) -> Steps:
        """The steps of ``phase``, begun anew if another one came before."""
        if self._steps is None or self._steps.phase is not phase:
            self._steps = Steps(
                self.model,
                phase,
                self.recipe,
                len(self._batches),
                teacher=self._teacher,
                average=self._nets.get("average"),
                change=self._changed,
                class_weights=self._class_weights,
            )
        return self._steps

    def _best(self) -> int:
        """The place of the first epoch of the last phase whose exits were right most often.

        They are weighed as their losses are.
        """
        phase = self._phases[-1]

        def worth(place: int) -> float:
            seen = self.history[place].accuracy
            return sum(w * a for w, a in zip(phase.weights, seen, strict=True))

        return max(range(phase.first, len(self.history)), key=worth)

    def _exhausted(self) -> bool:
        """Whether the last phase has gone on for long enough without getting better."""
        if not self.recipe.patience or len(self.history) <= self._phases[-1].first:
            return False
        return len(self.history) - 1 - self._best() >= self.recipe.patience


def _prepare(model: nn.Module, x: Tensor) -> None:
    """Give lazy exits their sizes.

    Let images lie as convolutions, grouped ones above all, are fast: channels last.
    """
    if isinstance(model, MultiExit):
        model.materialise(x)
    if x.ndim == 4:
        model.to(memory_format=torch.channels_last)
