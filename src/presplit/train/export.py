"""From a trained net to a bundle: export once with all exits, cut, calibrate, check, write."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from presplit.bundle import Bundle
from presplit.codecs import USUAL
from presplit.core.errors import InputError
from presplit.core.plans import Plan
from presplit.core.preparation import Preparation
from presplit.core.progress import doing
from presplit.core.types import Floats
from presplit.packing import pack
from presplit.train.data.samples import Samples, in_units
from presplit.train.nets.calling import exit_logits
from presplit.train.nets.copying import exportable
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.to_onnx import to_onnx


def export(
    model: nn.Module,
    example: Samples | Floats | torch.Tensor,
    path: str | Path,
    *,
    name: str = "model",
    labels: Sequence[str] = (),
    policy: str = "confidence",
    codecs: Sequence[str] = USUAL,
    forms: Sequence[str] = ("float32",),
    plan: Plan | None = None,
    spec: Mapping[str, Any] | None = None,
    prepare: Preparation | Sequence[str] | None = None,
) -> Bundle:
    """Export ``model`` with its exits, cut it at every boundary, and write the bundle at ``path``.

    A bundle that is there is replaced, its plan included.

    ``example``: labelled `Samples` held out of the training set, which give the range of every
    boundary for the codecs and the evidence from which plans are made; or just an array or a tensor
    ``(batch, *shape)``, at least one sample, from which no plan with an accuracy can be made.
    ``codecs`` are those that are tried at each boundary; ``forms``: "float32", and "int8" if the
    net is to be there in int8 too (`presplit.packing.pack`). It is taken as float32; uint8 is
    scaled to 0..1, as in `Samples`. ``prepare`` says what an image file goes through, as the data
    set's ``preparation`` does. Raises `GraphError` if the net cannot be exported or the graph
    does not compute what torch does, `InputError` if ``example`` is no array of numbers.
    """
    held_out = example if isinstance(example, Samples) else None
    given = _inputs(example)
    one = torch.from_numpy(given[:1].copy())
    model = exportable(model, one)

    def torch_logits(x: Floats) -> list[Floats]:
        with torch.no_grad():
            return [each.numpy() for each in exit_logits(model, torch.from_numpy(x.copy()))]

    with doing("exporting to ONNX"):
        made = [to_onnx(model, one)]
    return pack(
        made.pop(),  # not kept here: it holds all weights once more
        path,
        samples=given,
        labels=held_out.y if held_out else None,
        exit_names=model.exit_names if isinstance(model, MultiExit) else None,
        policy=policy,
        forms=forms,
        name=name,
        classes=labels,
        codecs=codecs,
        plan=plan,
        spec=spec,
        prepare=prepare,
        versions={"torch": str(torch.__version__), "onnx": importlib.metadata.version("onnx")},
        reference=("torch", torch_logits),
    )


def _inputs(example: Samples | npt.ArrayLike | torch.Tensor) -> Floats:
    """The inputs of ``example`` as the net takes them: float32 ``(n, *shape)``, n >= 1."""
    if isinstance(example, Samples):
        return example.x
    raw: object = example
    try:
        if isinstance(example, torch.Tensor):
            tensor = example.detach().cpu()
            # NumPy has no bfloat16, and float32 holds all of its numbers
            raw = tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
        given = np.asarray(raw)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{_WANTED}, got {type(example).__name__} ({reason})") from error
    if given.dtype.kind not in "fiub":
        raise InputError(f"{_WANTED}, got {type(example).__name__} of {given.dtype}")
    if given.ndim < 1:
        raise InputError(f"{_WANTED}, got a single number")
    return in_units(given)


_WANTED = "example: expected Samples, or an array or tensor (n, *shape) of numbers, at least one"
