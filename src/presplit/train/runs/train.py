"""Training a spec into a directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from presplit.core.errors import DataError, SpecError, context
from presplit.core.spec import Spec
from presplit.train.fitting import checkpoint, distributed
from presplit.train.fitting.fit import fit, refuse_what_does_not_fit
from presplit.train.fitting.resume import Epoch
from presplit.train.runs.build import Own, Run, build, recipe_of
from presplit.train.runs.directory import (
    METRICS,
    MODEL,
    RESULT,
    STATE,
    TEACHER,
    begin,
    line,
    read_run,
    same_spec,
)
from presplit.train.runs.judge import judge


def train(
    spec: Spec,
    directory: str | Path,
    *,
    own: Own | None = None,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> dict[str, Any]:
    """Build, train and evaluate ``spec``.

    Leave the run in ``directory`` and give what ``result.json`` says.

    ``resume`` goes on with the run of the same spec that is there, from the last epoch that was
    saved. Raises `DataError` if it is of another spec. If the recipe distils without naming a
    teacher, the dense parent is trained first, by the same recipe, into ``directory/teacher``, anew
    unless ``resume``. Of several processes, one writes.
    """
    directory = Path(directory)
    spec = _resolved(spec)
    run = build(spec, own)
    weights = (*spec.exits.weights, 1.0) if spec.exits is not None and spec.exits.weights else None
    example = torch.from_numpy(run.train.x[:2].copy())
    refuse_what_does_not_fit(
        run.model, recipe_of(spec.training), weights, example
    )  # before an older run makes place
    named = _named_teacher(run, directory, own)
    if resume and (directory / "spec.json").is_file():
        same_spec(directory, spec)
        if (directory / RESULT).is_file() and (directory / MODEL).is_file():
            return judge(read_run(directory, own))
    elif distributed.rank() == 0:
        begin(spec, directory)
    distributed.wait()
    teacher = named
    if recipe_of(spec.training).distil and teacher is None:
        teacher = _parent(spec, directory / TEACHER, own, on_epoch)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with (directory / METRICS).open("ab" if distributed.rank() == 0 else "rb") as metrics:

        def note(epoch: Epoch) -> None:
            if distributed.rank() == 0:
                metrics.write(line(epoch))
                metrics.flush()
                if on_epoch:
                    on_epoch(epoch)

        history = fit(
            run.model.to(device),
            run.train,
            recipe=recipe_of(spec.training),
            validation=run.held_out,
            exit_weights=weights,
            teacher=teacher,
            seed=spec.seed,
            on_epoch=note,
            state=directory / STATE,
        )
    if distributed.rank() == 0:
        checkpoint.write(
            directory / METRICS, b"".join(map(line, history))
        )  # a kill may have lost or doubled a line
        checkpoint.save(directory / MODEL, run.model, {"name": spec.name}, x=example)
    result = judge(run)
    if distributed.rank() == 0:
        checkpoint.write(
            directory / RESULT, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
        )
        (directory / STATE).unlink()
    distributed.wait()
    return result


def _resolved(spec: Spec) -> Spec:
    """``spec`` with its recipe written out, so that it stays the same if the recipe changes."""
    said = asdict(recipe_of(spec.training))
    return msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, **said))


def _named_teacher(run: Run, directory: Path, own: Own | None) -> nn.Module | None:
    """The net of the run that the spec names to distil from.

    It is none that the run in ``directory`` replaces.
    """
    teacher = run.spec.training.teacher
    if teacher is None:
        return None
    with context("training.teacher"):
        if not recipe_of(run.spec.training).distil:
            raise SpecError(
                "nothing is learned from it: set training.distil, the share of the loss that it has"
            )
        if directory.resolve() in (Path(teacher).resolve(), *Path(teacher).resolve().parents):
            raise SpecError(
                f"{teacher}: it is in the run that this one replaces; name another directory for "
                "the run"
            )
        named = read_run(teacher, own)
        if len(named.data.labels) != len(run.data.labels):
            raise DataError(f"{teacher}: its net was trained on {named.data.name}")
    return named.model


def _parent(
    spec: Spec, directory: Path, own: Own | None, on_epoch: Callable[[Epoch], None] | None
) -> nn.Module:
    """The dense parent of the spec's net, trained now unless it is."""
    training = msgspec.structs.replace(
        spec.training, distil=0.0, self_distil=0.0, regime="joint", backbone_epochs=None
    )
    parent = msgspec.structs.replace(
        spec, name=f"{spec.name}-parent"[:63], sparsity=None, exits=None, training=training
    )
    train(parent, directory, own=own, resume=True, on_epoch=on_epoch)
    return read_run(directory, own).model
