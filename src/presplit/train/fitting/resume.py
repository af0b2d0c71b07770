"""The state of an unfinished training.

It is saved after an epoch, and enough to go on as if nothing had happened.

One safetensors file: the net's values and patterns, their moving average, the best seen, the
optimiser's tensors and the random states; what is no tensor (schedule, numbers of the optimiser,
history) is JSON in its header. Nothing is pickled. It is written beside and renamed, so that a
crash while saving leaves the state of the epoch before.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from presplit.core.errors import DataError, PatternError, context
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
class State:
    """A training between two epochs: named tensors, and what is no tensor as plain values."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Raise `DataError` for what lacks a part, or has one of another form."""
        try:
            msgspec.convert(self.header, type=_Header)
        except msgspec.ValidationError as error:
            raise DataError(f"not the state of a training ({error}); {_CURE}") from error
        for name in ("random", "order"):
            if name not in self.tensors:
                raise DataError(f"not the state of a training (no {name!r}); {_CURE}")

    @property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs that are done."""
        return tuple(msgspec.convert(self.header["history"], type=list[Epoch]))

    def refuse_another(self, about: Mapping[str, Any]) -> None:
        """Raise `DataError` if it is of another training than ``about`` says."""
        own, ours = self.header["about"], json.loads(json.dumps(about))
        for key in sorted({*own, *ours}):
            if own.get(key) != ours.get(key):
                raise DataError(
                    f"it is of another training: {key} was {own.get(key)!r}, now it is "
                    f"{ours.get(key)!r}; train as before, or delete the file to begin anew"
                )

    def into_nets(self, nets: Mapping[str, nn.Module], order: torch.Generator) -> None:
        """The values of ``nets`` and all random states, as they were.

        Raises `DataError` if the net is another one, or one that answers otherwise than it did.
        """
        for kind, net in nets.items():
            try:
                net.load_state_dict(self._named(f"{kind}."))
            except (RuntimeError, PatternError) as error:
                reason = str(error).splitlines()[0]
                raise DataError(f"it is of another net ({reason})") from error
        if fingerprint.is_another(nets["net"], fingerprint.apart(dict(self.tensors))):
            raise DataError(
                "its values give other answers than when they were saved: the net's code has "
                "changed since; bring it back, or delete the file to begin anew"
            )
        try:
            torch.set_rng_state(self.tensors["random"])
            order.set_state(self.tensors["order"])
            if "random.cuda" in self.tensors and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.tensors["random.cuda"])
        except (RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"its random states are damaged ({reason}); {_CURE}") from error

    def into_steps(
        self, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        """Moments, counts and rates as they were.

        Raises `DataError` if they are of another optimiser.
        """
        try:
            self._put(optimiser, schedule)
        except _DAMAGED as error:
            reason = " ".join(repr(error).split())[:200]
            raise DataError(f"its optimiser's state is damaged ({reason}); {_CURE}") from error

    def _put(
        self, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
    ) -> None:
        plain: Mapping[str, Mapping[str, Any]] = self.header["plain"]
        state = {int(number): dict(values) for number, values in plain.items()}
        for name, value in self._named("optimiser.").items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        groups = copy.deepcopy(self.header["groups"])
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        _as_parameters_lie(optimiser)
        schedule.load_state_dict(dict(self.header["schedule"]))

    def _named(self, start: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that beginning."""
        return {
            name.removeprefix(start): each
            for name, each in self.tensors.items()
            if name.startswith(start)
        }


def pack(
    nets: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    order: torch.Generator,
    *,
    history: Sequence[Epoch],
    about: Mapping[str, Any],
    evidence: Mapping[str, Tensor],
) -> State:
    """A copy of all that changes while ``nets`` are trained.

    ``nets``: the net itself as "net" and, by name, its moving average and the best so far;
    ``about`` says of what training it is, ``evidence`` by what its net is recognised.
    """
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state(), "order": order.get_state()}
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    for kind, net in nets.items():
        tensors |= {f"{kind}.{name}": value for name, value in net.state_dict().items()}
    packed = optimiser.state_dict()
    plain: dict[str, dict[str, Any]] = {}
    for number, values in packed["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{name}"] = value
            else:
                plain.setdefault(str(number), {})[name] = value
    rates = schedule.state_dict().items()
    header: dict[str, Any] = {
        "about": about,
        "history": [asdict(epoch) for epoch in history],
        "groups": packed["param_groups"],
        "plain": plain,
        "schedule": {name: value for name, value in rates if not name.startswith("_anneal")},
    }
    copies = {name: tensor.detach().clone() for name, tensor in (tensors | dict(evidence)).items()}
    return State(copies, json.loads(json.dumps(header)))


def write(path: str | Path, state: State) -> None:
    """Put ``state`` at ``path``, whole or not at all."""
    header = {key: json.dumps(value) for key, value in state.header.items()}
    checkpoint.write_tensors(Path(path), state.tensors, header)


def read(path: str | Path) -> State:
    """What `write` wrote; raises `DataError` if it is damaged."""
    tensors, text = checkpoint.read_tensors(Path(path))
    try:
        header = {key: json.loads(value) for key, value in text.items()}
    except ValueError as error:
        raise DataError(f"{path}: not the state of a training ({error}); {_CURE}") from error
    with context(str(path)):
        return State(tensors, header)


class _Header(msgspec.Struct):
    """The form of what is no tensor."""

    about: dict[str, Any]
    history: list[Epoch]
    groups: list[dict[str, Any]]
    plain: dict[str, dict[str, Any]]
    schedule: dict[str, Any]


# what torch's optimisers and schedules raise for states that are not theirs
_DAMAGED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_CURE = "delete the file to train anew"


def _as_parameters_lie(optimiser: torch.optim.Optimizer) -> None:
    """Give each tensor the memory order of its parameter.

    The same sums are then taken in the same order.
    """
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
