"""Training: one screen. A recipe says how, `fit` does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from presplit.core.bar import shown
from presplit.core.errors import context
from presplit.core.progress import advance, doing, subject
from presplit.core.recipe import RECIPES, Recipe
from presplit.train.data.samples import Samples
from presplit.train.fitting import distributed, resume
from presplit.train.fitting.batches import Batches
from presplit.train.fitting.checks import ExitWeights
from presplit.train.fitting.resume import Epoch
from presplit.train.fitting.trainer import Trainer
from presplit.train.layers.convolution import Convolution
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.copying import is_lazy


def fit(
    model: nn.Module,
    train: Samples | Batches,
    *,
    recipe: str | Recipe = "default",
    epochs: int | None = None,
    validation: Samples | None = None,
    exit_weights: ExitWeights = None,
    teacher: nn.Module | None = None,
    seed: int = 0,
    on_epoch: Callable[[Epoch], None] | None = None,
    state: str | Path | None = None,
    progress: bool | None = None,
) -> list[Epoch]:
    """Train ``model`` in place on the device it is on; the same ``seed`` gives the same weights.

    ``train``: `Samples`, or what gives batches ``(x, y)`` whenever it is looped over and has a
    length, as a `DataLoader` does (then it says the batch); labels are whole numbers of any type,
    and a last batch of one sample joins the one before. ``exit_weights`` weighs the exits' losses:
    all alike if it is not given, or numbers, the last exit's among them, or "auto", which weighs
    each by the share of the net's multiplications that its answers take (as arXiv 1810.07052 does
    in the end). Auxiliary logits that the net itself gives while it is trained (GoogLeNet's) are
    left out. ``teacher`` is the net to distil from; the last of its exits speaks. What `initialise`
    drew, or the user loaded, is where training starts. ``state``: a file that keeps the state after
    every epoch; if it exists, training goes on from there, on a CPU bit for bit as if it had never
    stopped. Under ``torchrun`` all processes share each batch. Returns one `Epoch` each;
    ``on_epoch`` sees them as they end. ``progress``: draw a bar on standard error (True; lines now
    and then where it is no terminal), or nothing (False); by default a bar on a terminal only.
    Raises `SpecError` for a recipe that does not fit the net or a net that is frozen, `GraphError`
    for one that is no classifier of these samples, `DataError` if training diverges, ``state`` is
    of another training or cannot be written.

    >>> import numpy as np
    >>> samples = Samples(np.eye(4, dtype=np.float32), np.arange(4))
    >>> def tell(epoch):
    ...     print(f"epoch {epoch.number}: {epoch.accuracy[-1]:.0%} right when held out")
    >>> net = nn.Linear(4, 4)
    >>> _ = nn.init.eye_(net.weight)
    >>> history = fit(net, samples, epochs=2, validation=samples, on_epoch=tell)
    epoch 1: 100% right when held out
    epoch 2: 100% right when held out
    """
    trainer = Trainer(
        model,
        train,
        recipe=recipe,
        epochs=epochs,
        validation=validation,
        exit_weights=exit_weights,
        teacher=teacher,
        seed=seed,
    )
    file = None if state is None else Path(state)
    is_begun = file is not None and file.exists()
    distributed.wait()  # all have looked before the first one writes
    if file is not None and is_begun:
        saved = resume.read(file)
        with context(str(file)):
            trainer.load(saved)
    elif file is not None and distributed.rank() == 0:
        resume.write(file, trainer.state())  # what cannot be written is refused before an epoch
    with shown(progress if distributed.rank() == 0 else False):
        _epochs(trainer, file, on_epoch)
    trainer.finish()
    return trainer.history


def _epochs(trainer: Trainer, file: Path | None, on_epoch: Callable[[Epoch], None] | None) -> None:
    """Train until the end, keeping the state in ``file``, and say how far it is."""
    epochs, each = trainer.recipe.epochs, trainer.samples
    done = len(trainer.history) * each
    with doing(subject("training"), epochs * each, "samples", done=done) as task:
        while not trainer.finished:
            epoch = trainer.epoch()
            if file is not None and distributed.rank() == 0:
                resume.write(file, trainer.state())
            task.done = epoch.number * each
            advance(0, note=_told(epoch, epochs))
            if on_epoch:
                on_epoch(epoch)


def _told(epoch: Epoch, epochs: int) -> str:
    """What there is to say of an epoch, in a few words."""
    words = f"epoch {epoch.number} of {epochs}, loss {epoch.loss:.3g}"
    right = " and ".join(f"{share:.1%}" for share in epoch.accuracy)
    return f"{words}, {right} right when held out" if right else words


def initialise(model: nn.Module, recipe: str | Recipe = "default", *, seed: int = 0) -> None:
    """Draw all linear layers and convolutions of ``model`` anew, by the recipe, from ``seed``."""
    recipe = RECIPES.find(recipe) if isinstance(recipe, str) else recipe
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, SparseLayer):
            layer.reset_parameters(fan_in=recipe.fan_in, bias=recipe.bias)
        elif isinstance(layer, nn.Linear | Convolution) and not is_lazy(layer):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, recipe.bias)
