"""From a trained net to a bundle: export once with all exits, cut, calibrate, check, write."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from presplit.bundle import Bundle
from presplit.core.types import Floats, Plan
from presplit.packing import pack
from presplit.train.data.samples import Samples
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
    plan: Plan | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Bundle:
    """Export ``model`` with its exits, cut it at every boundary, and write the bundle at ``path``.

    A bundle that is there is replaced, its plan included.

    ``example``: labelled `Samples` held out of the training set, which give the range of every
    boundary for the int8 codec and the evidence from which plans are made; or just float32
    ``(batch, *shape)``, at least one sample, from which no plan with an accuracy can be made.
    Raises `GraphError` if the net cannot be exported or the graph does not compute what torch does.
    """
    held_out = example if isinstance(example, Samples) else None
    given = np.asarray(held_out.x if held_out else example, np.float32)
    one = torch.from_numpy(given[:1].copy())
    model = exportable(model, one)

    def torch_logits(x: Floats) -> list[Floats]:
        with torch.no_grad():
            return [each.numpy() for each in exit_logits(model, torch.from_numpy(x.copy()))]

    return pack(
        to_onnx(model, one),  # not kept here: it holds all weights once more
        path,
        samples=given,
        labels=held_out.y if held_out else None,
        exit_names=model.exit_names if isinstance(model, MultiExit) else None,
        policy=policy,
        name=name,
        classes=labels,
        plan=plan,
        spec=spec,
        versions={"torch": str(torch.__version__), "onnx": importlib.metadata.version("onnx")},
        reference=("torch", torch_logits),
    )
