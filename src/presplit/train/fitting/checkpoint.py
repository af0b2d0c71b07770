"""Checkpoints: safetensors for the values and patterns.

They are written so that a crash leaves the old one whole.

A sparse layer is saved as its values, bias and index; no dense weight and no mask exists to be
saved.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import Tensor, nn

from presplit.core.errors import DataError, PatternError, context, library
from presplit.train.fitting import fingerprint

safetensors = library("safetensors", need="saving a checkpoint", extra="train")
library("safetensors.torch", need="saving a checkpoint", extra="train")


def save(
    path: str | Path,
    model: nn.Module,
    about: Mapping[str, str] | None = None,
    *,
    x: Tensor | None = None,
) -> None:
    """Write the state of ``model`` and the strings ``about`` it to ``path``.

    A temporary file is written, synced and renamed.

    ``x``: samples, in whose range noise is drawn; what the net answers to it is kept, and `restore`
    recognises the net by that. Of the samples nothing is kept but their range.
    """
    path = Path(path)
    state = model.state_dict()
    for name, tensor in state.items():
        if isinstance(tensor, nn.UninitializedParameter):
            raise DataError(
                f"{path}: {name} has no size yet: run an example through the net before saving it"
            )
    write_tensors(path, state | ({} if x is None else fingerprint.evidence(model, x)), about or {})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Put ``tensors`` and the strings ``header`` at ``path`` as one file.

    What is shared is stored twice.
    """
    apart = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    write(path, safetensors.torch.save(apart, metadata=dict(header)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file; raises `DataError` if it is damaged or none."""
    try:
        raw = path.read_bytes()  # the library itself opens only paths that are UTF-8
        tensors = safetensors.torch.load(raw)
        size = int.from_bytes(raw[:8], "little")
        header = msgspec.json.decode(raw[8 : 8 + size], type=_Header)
        return tensors, header.__metadata__
    except (safetensors.SafetensorError, msgspec.MsgspecError, OSError) as error:
        raise DataError(
            f"{path}: not a safetensors file, or a damaged one ({error}); delete it"
        ) from error


class _Header(msgspec.Struct):
    """What a safetensors file says of itself beside its tensors."""

    __metadata__: dict[str, str] = {}


def write(path: Path, raw: bytes) -> None:
    """Put ``raw`` at ``path``; a crash leaves the old file or the new one, whole.

    Raises `DataError` if it cannot be written, and leaves nothing behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a read-only place refuses even this
            temporary.unlink()
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Let a new name in ``folder`` outlive a power cut, where the file system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def restore(path: str | Path, model: nn.Module) -> dict[str, str]:
    """Fill ``model`` from the checkpoint at ``path``, patterns included.

    Give the strings saved with it.

    Raises `DataError` if the file is missing or damaged, or holds another net, or if the net's code
    has changed so that it answers otherwise.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such checkpoint")
    tensors, about = read_tensors(path)
    with context(str(path)):
        evidence = fingerprint.apart(tensors)
    try:
        model.load_state_dict(tensors)
    except (PatternError, RuntimeError) as error:
        reason = " ".join(str(error).split()).removeprefix(
            f"Error(s) in loading state_dict for {type(model).__name__}: "
        )
        raise DataError(
            f"{path}: it is of another net, or the net's code has changed since ({reason[:300]})"
        ) from error
    if fingerprint.is_another(model, evidence):
        raise DataError(
            f"{path}: its values give other answers than when they were saved: the net's code has "
            "changed since; bring "
            "it back, or train anew"
        )
    return about
