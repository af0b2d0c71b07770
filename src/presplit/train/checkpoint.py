"""Checkpoints: safetensors for the values and patterns, written so that a crash leaves the old one whole.

A sparse layer is saved as its values, bias and index; no dense weight and no mask exists to be saved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from presplit.core.errors import DataError, PatternError, library

safetensors = library("safetensors", need="saving a checkpoint", extra="train")
library("safetensors.torch", need="saving a checkpoint", extra="train")


def save(path: str | Path, model: nn.Module, about: Mapping[str, str] | None = None) -> None:
    """Write the state of ``model`` and the strings ``about`` it to ``path``: temporary file, sync, rename."""
    path = Path(path)
    state = model.state_dict()
    for name, tensor in state.items():
        if isinstance(tensor, nn.UninitializedParameter):
            raise DataError(f"{path}: {name} has no size yet: run an example through the net before saving it")
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}  # what is shared is stored twice
    raw = safetensors.torch.save(tensors, metadata=dict(about or {}))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: the checkpoint cannot be written ({error.strerror})") from error
    handle = os.open(path.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def restore(path: str | Path, model: nn.Module) -> dict[str, str]:
    """Fill ``model`` from the checkpoint at ``path``, patterns included; give the strings saved with it.

    Raises `DataError` if the file is missing or damaged, or holds another net.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model.load_state_dict(tensors)
    except (safetensors.SafetensorError, PatternError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a checkpoint of this net ({reason[:300]})") from error
    return dict(about)
