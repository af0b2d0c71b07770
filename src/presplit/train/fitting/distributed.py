"""Several processes, GPUs or machines.

Hugging Face `accelerate` starts them, and `fit` sees them as parts of each batch.

``accelerate launch -m presplit train ...`` starts the processes; each computes its part of every
batch, and gradients are averaged. One process needs none of this, and imports none of it.
"""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
from torch import Tensor, nn

from presplit.core.errors import library


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0; the first one writes."""
    return int(os.environ.get("RANK", "0"))


def device_of(model: nn.Module) -> torch.device:
    """Where this process trains: its own device among several, where ``model`` is otherwise."""
    return next(model.parameters()).device if count() == 1 else _accelerator().device


def joined(model: nn.Module) -> nn.Module:
    """What to call instead of ``model`` in training.

    With it, all processes get the mean of their gradients.
    """
    return model if count() == 1 else _accelerator().prepare_model(model)


def part(batch: Tensor) -> Tensor:
    """This process's share of a batch.

    It is at least one sample, so that all processes take every step together.
    """
    if count() == 1:
        return batch
    return batch[rank() :: count()] if len(batch) > rank() else batch[:1]


def weight_of_part(size: int) -> float:
    """What the mean loss of this process's share counts.

    With it, the mean of all is that of the batch of ``size``.
    """
    return len(range(rank(), size, count())) * count() / size


def mean(value: Tensor) -> Tensor:
    """The mean over all processes."""
    return value if count() == 1 else _accelerator().reduce(value, "mean")


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        _accelerator().wait_for_everyone()


def leave() -> None:
    """End the processes' connection, all at once, and after what holds it is gone.

    Otherwise one may crash as it exits.
    """
    if count() > 1:
        gc.collect()
        wait()
        _accelerator().end_training()


def _accelerator() -> Any:
    accelerate = library("accelerate", need="training in several processes", extra="train")
    return accelerate.Accelerator(cpu=not torch.cuda.is_available())
