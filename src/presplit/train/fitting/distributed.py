"""Several processes, GPUs or machines: ``torchrun -m presplit train ...``.

`torch.distributed` connects them, and `fit` sees them as parts of each batch: each process computes
its part, and gradients are averaged. One process needs none of this.
"""

from __future__ import annotations

import gc
import os

import torch
from torch import Tensor, nn
from torch import distributed as group
from torch.nn.parallel import DistributedDataParallel

from presplit.core.errors import SpecError


def count() -> int:
    """How many processes train together."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process, from 0; the first one writes."""
    return _number("RANK", 0)


def device_of(model: nn.Module) -> torch.device:
    """Where this process trains: its own device among several, where ``model`` is otherwise."""
    if count() == 1:
        return next((value.device for value in model.parameters()), torch.device("cpu"))
    _connect()
    return _own_device()


def joined(model: nn.Module) -> nn.Module:
    """What to call instead of ``model`` in training.

    With it, all processes get the mean of their gradients.
    """
    if count() == 1:
        return model
    _connect()
    device = _own_device()
    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])


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
    if count() == 1:
        return value
    _connect()
    total = value.detach().clone()
    group.all_reduce(total)
    return total / count()


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        _connect()
        group.barrier()


def leave() -> None:
    """End the processes' connection, all at once, and after what holds it is gone.

    Otherwise one may crash as it exits.
    """
    if count() > 1:
        gc.collect()
        wait()
        group.destroy_process_group()


def _connect() -> None:
    """Find the other processes, once; raises `SpecError` if they cannot be found."""
    if group.is_initialized():
        return
    try:
        if _own_device().type == "cuda":
            torch.cuda.set_device(_own_device())
            group.init_process_group("nccl")
        else:
            group.init_process_group("gloo")
    except (ValueError, RuntimeError) as error:
        raise SpecError(
            f"WORLD_SIZE is {count()}, and the other processes cannot be found "
            f"({str(error).splitlines()[0]}); start them with torchrun -m presplit train ..."
        ) from error


def _own_device() -> torch.device:
    """The processor, or the GPU of this process on its machine."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())


def _number(name: str, default: int) -> int:
    """A whole number from the environment, where ``torchrun`` puts it."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise SpecError(f"{name}: expected a whole number as torchrun sets it, got {text!r}")
    return int(text)
