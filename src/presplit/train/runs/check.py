"""Whether a spec can be trained, found out without training it."""

from __future__ import annotations

from pathlib import Path

import torch

from presplit.core.errors import context
from presplit.core.sections import Spec
from presplit.train.data import Dataset
from presplit.train.fitting.checks import ExitWeights, refuse_what_does_not_fit
from presplit.train.runs.build import Own, Run, build
from presplit.train.runs.directory import refuse_unfinished
from presplit.train.runs.start import weights_of


def check(
    spec: Spec, own: Own | None = None, *, data: Dataset | None = None, fill: bool = True
) -> Run:
    """The untrained net of ``spec`` with its data, if `train` would take it.

    ``data``: that of the spec, where it is loaded already. ``fill``: the values that it starts
    with are put in too, which takes longer where they are fitted. Raises what `build` raises, and
    `SpecError` for a training that does not fit the net.
    """
    weights = weights_of(spec.start) if spec.start is not None and fill else None
    run = build(spec, own, weights=weights, data=data)
    example = torch.from_numpy(run.train.x[:2].copy())
    refuse_what_does_not_fit(run.model, spec.training, exit_weights(spec), example)
    if spec.training.teacher is not None:
        with context("training.teacher"):
            refuse_unfinished(Path(spec.training.teacher))
    return run


def exit_weights(spec: Spec) -> ExitWeights:
    """What the loss of each exit counts, if the spec says it."""
    if spec.exits is None or not spec.exits.weights:
        return None
    if spec.exits.weights == "auto":
        return "auto"
    return (*spec.exits.weights, 1.0)
