"""The state of an unfinished training.

It is saved after an epoch, and enough to go on as if nothing had happened.

One safetensors file: the net's values and patterns, their moving average, the best seen, the
optimiser's tensors and the random states; what is no tensor (schedule, numbers of the optimiser,
history) is JSON in its header. Nothing is pickled. It is written beside and renamed, so that a
crash while saving leaves the state of the epoch before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, PatternError
from presplit.train.fitting import checkpoint, fingerprint


@dataclass(frozen=True)
class Epoch:
    """One epoch: its number from 1, mean loss, validation accuracy of each exit, seconds.

    There are accuracies if a validation part was given.
    """

    number: int
    loss: float
    accuracy: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Moment:
    """What changes while nets are trained.

    It is the net itself and, by name, its moving average and the best so far.
    """

    nets: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    order: torch.Generator


def save(
    path: str | Path, moment: Moment, history: Sequence[Epoch], about: Mapping[str, Any], x: Tensor
) -> None:
    """Write ``moment``, after the epochs in ``history``, to ``path``.

    ``about`` says of what training it is.

    ``x``: two samples, by what it answers to which the net is recognised.
    """
    tensors: dict[str, Tensor] = {
        "random": torch.get_rng_state(),
        "order": moment.order.get_state(),
    }
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for kind, net in moment.nets.items():
        tensors |= {f"{kind}.{name}": value for name, value in net.state_dict().items()}
    packed = moment.optimiser.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for number, values in packed["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    schedule = {
        name: value
        for name, value in moment.schedule.state_dict().items()
        if not name.startswith("_anneal")
    }
    text: dict[str, Any] = {
        "about": about,
        "history": [asdict(epoch) for epoch in history],
        "groups": packed["param_groups"],
        "plain": plain,
        "schedule": schedule,
    }
    header = {key: json.dumps(value) for key, value in text.items()}
    checkpoint.write_tensors(
        Path(path), tensors | fingerprint.evidence(moment.nets["net"], x), header
    )


@dataclass(frozen=True)
class Saved:
    """A state as it was read, and how to put it back."""

    path: Path
    tensors: Mapping[str, Tensor]
    evidence: Mapping[str, Tensor]
    header: Mapping[str, Any]
    history: tuple[Epoch, ...]

    def into_nets(self, nets: Mapping[str, nn.Module], order: torch.Generator) -> None:
        """The values of ``nets`` and all random states, as they were.

        Raises `DataError` if the net is another one, or one that answers otherwise than it did.
        """
        for kind, net in nets.items():
            start = f"{kind}."
            state = {
                name.removeprefix(start): each
                for name, each in self.tensors.items()
                if name.startswith(start)
            }
            try:
                net.load_state_dict(state)
            except (RuntimeError, PatternError) as error:
                raise DataError(
                    f"{self.path}: it is of another net ({str(error).splitlines()[0]})"
                ) from error
        if fingerprint.is_another(nets["net"], self.evidence):
            raise DataError(
                f"{self.path}: its values give other answers than when they were saved: the net's "
                "code has changed "
                "since; bring it back, or delete the file to begin anew"
            )
        torch.set_rng_state(self.tensors["random"])
        order.set_state(self.tensors["order"])
        if "random.cuda" in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors["random.cuda"])

    def into_steps(
        self, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        """Moments, counts and rates as they were."""
        state: dict[int, dict[str, Any]] = {
            int(k): dict(value) for k, value in self.header["plain"].items()
        }
        for name, value in self.tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".", 2)
                state.setdefault(int(number), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": self.header["groups"]})
        _as_parameters_lie(optimiser)
        schedule.load_state_dict(self.header["schedule"])


def read(path: str | Path, about: Mapping[str, Any]) -> Saved:
    """What `save` wrote.

    Raises `DataError` if it is damaged, or of another training than ``about`` says.
    """
    path = Path(path)
    tensors, text = checkpoint.read_tensors(path)
    try:
        header = {key: json.loads(value) for key, value in text.items()}
        own, ours = header["about"], json.loads(json.dumps(about))
        history = tuple(
            Epoch(**{**each, "accuracy": tuple(each["accuracy"])}) for each in header["history"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the state of a training ({str(error).splitlines()[0]})"
        ) from error
    for key in sorted({*own, *ours}):
        if own.get(key) != ours.get(key):
            raise DataError(
                f"{path}: it is of another training: {key} was {own.get(key)!r}, now it is "
                f"{ours.get(key)!r}; "
                "train as before, or delete the file to begin anew"
            )
    return Saved(path, tensors, fingerprint.apart(tensors), header, history)


def _as_parameters_lie(optimiser: torch.optim.Optimizer) -> None:
    """Give each tensor the memory order of its parameter.

    The same sums are then taken in the same order.
    """
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
