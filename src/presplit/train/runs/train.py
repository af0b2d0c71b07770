"""Training a spec into a directory: all is refused before, and nothing that was there is lost."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from presplit.core.errors import DataError, PresplitWarning, SpecError, context
from presplit.core.progress import about, subject, tell
from presplit.core.spec import Spec
from presplit.train.data import Dataset
from presplit.train.fitting import checkpoint, distributed
from presplit.train.fitting.checks import refuse_what_does_not_fit
from presplit.train.fitting.fit import fit
from presplit.train.fitting.resume import Epoch
from presplit.train.runs import directory as place
from presplit.train.runs.build import Own, Run, build
from presplit.train.runs.check import exit_weights
from presplit.train.runs.judge import judge
from presplit.train.runs.start import weights_of
from presplit.train.runs.weights import Weights, read_weights

OnEpoch = Callable[[Epoch], None]
OnData = Callable[[Run], None]


def train(
    spec: Spec,
    directory: str | Path,
    *,
    own: Own | None = None,
    resume: bool = False,
    replace: bool = False,
    on_epoch: OnEpoch | None = None,
    on_data: OnData | None = None,
    data: Dataset | None = None,
) -> dict[str, Any]:
    """Build, train and evaluate ``spec``.

    Leave the run in ``directory`` and give what ``result.json`` says. A finished run that is there
    is refused with `DataError`, unless ``replace``: then it stays until the new one is whole.

    ``resume`` goes on with the run of the same spec that is there, from the last epoch that was
    saved. Raises `DataError` if it is of another spec. If the recipe distils without naming a
    teacher, the net that the run starts from is the teacher; without such, the dense parent is
    trained first, by the same recipe, into ``teacher/``, anew unless ``resume``. Of several
    processes, one writes. ``on_data`` is told the run before it is trained.
    ``data``: the data set of ``spec``, where it is loaded already.
    """
    directory = Path(directory)
    unfinished = directory / place.UNFINISHED
    before = _begun(spec, directory, resume=resume, replace=replace)
    if before is not None and before.parent != unfinished:
        return judge(place.read_run(directory, own, data=data))
    weights = _start(spec, directory, is_begun=before is not None)
    run = build(spec, own, weights=weights, data=data)
    if on_data is not None and distributed.rank() == 0:
        on_data(run)
    example = torch.from_numpy(run.train.x[:2].copy())
    refuse_what_does_not_fit(run.model, spec.training, exit_weights(spec), example)
    teacher = _named_teacher(run, directory, own) or run.start
    distributed.wait()  # all have looked before the first one writes
    if before is None and distributed.rank() == 0:
        place.begin(spec, directory, run.start)
    distributed.wait()
    with place.tidied(directory):
        if spec.training.distil and teacher is None:
            teacher = _parent(spec, unfinished / place.TEACHER, own, on_epoch)
        result = _trained(run, unfinished, teacher if spec.training.distil else None, on_epoch)
    if distributed.rank() == 0:
        place.take_place(directory)
    distributed.wait()
    return result


def _begun(spec: Spec, directory: Path, *, resume: bool, replace: bool) -> Path | None:
    """The spec of the run that is there to go on with, or finished; None to begin anew.

    Raises `DataError` if it is another than ``spec``, or finished and neither of both is asked.
    """
    if distributed.rank() == 0:
        place.settle(directory)
    distributed.wait()
    if not resume and not replace and place.is_finished(directory):
        raise DataError(
            f"{directory}: a finished run is there; name another directory, or say replace=True "
            "to have it replaced once the new one is whole"
        )
    before = place.spec_file(directory) if resume else None
    if before is not None:
        place.same_spec(before, spec)
    return before


def _start(spec: Spec, directory: Path, *, is_begun: bool) -> Weights | None:
    """The dense net's weights that the run begins with, if any.

    A run that goes on has kept them.
    """
    if spec.start is None:
        return None
    kept = directory / place.UNFINISHED / place.START
    if is_begun and kept.is_file():
        return read_weights(kept)
    with context("start.net"):
        _refuse_replaced(spec.start.net, directory)
    return weights_of(spec.start)


def _refuse_replaced(net: str, directory: Path) -> None:
    """Raise `SpecError` if ``net`` is in the run of ``directory``, which a new one replaces."""
    path = Path(net).resolve()
    if directory.resolve() in (path, *path.parents):
        raise SpecError(
            f"{net}: it is in the run that this one replaces; name another directory for the run"
        )


def _trained(
    run: Run, folder: Path, teacher: nn.Module | None, on_epoch: OnEpoch | None
) -> dict[str, Any]:
    """Train ``run`` and leave its metrics, its net and its result in ``folder``."""
    metrics, is_first = folder / place.METRICS, distributed.rank() == 0

    def note(epoch: Epoch) -> None:
        if is_first:
            place.note(epoch, metrics)
            if on_epoch:
                on_epoch(epoch)

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with about(subject(f"training {run.spec.name}")), warnings.catch_warnings():
        warnings.simplefilter("ignore", PresplitWarning)  # the run's doubts have them
        history = fit(
            run.model.to(device),
            run.train,
            recipe=run.spec.training,
            validation=run.held_out,
            exit_weights=exit_weights(run.spec),
            teacher=teacher,
            seed=run.spec.seed,
            on_epoch=note,
            state=folder / place.STATE,
        )
    result = judge(run)
    if is_first:
        # A kill may have lost a line, or doubled one.
        checkpoint.write(metrics, b"".join(map(place.line, history)))
        named, x = {"name": run.spec.name}, torch.from_numpy(run.train.x.copy())
        checkpoint.save(folder / place.MODEL, run.model, named, x=x)
        checkpoint.write(folder / place.RESULT, place.result_json(result))
    return result


def _named_teacher(run: Run, directory: Path, own: Own | None) -> nn.Module | None:
    """The net of the run that the spec names to distil from.

    It is none that the run in ``directory`` replaces.
    """
    teacher = run.spec.training.teacher
    if teacher is None:
        return None
    with context("training.teacher"):
        if not run.spec.training.distil:
            raise SpecError(
                "nothing is learned from it: set training.distil, the share of the loss that it has"
            )
        _refuse_replaced(teacher, directory)
        named = place.read_run(teacher, own)
        if len(named.data.labels) != len(run.data.labels):
            raise DataError(f"{teacher}: its net was trained on {named.data.name}")
        if named.train.x.shape[1:] != run.train.x.shape[1:]:
            raise DataError(
                f"{teacher}: its net takes samples of shape {named.train.x.shape[1:]}, and those "
                f"here are of shape {run.train.x.shape[1:]}"
            )
    return named.model


def _parent(spec: Spec, directory: Path, own: Own | None, on_epoch: OnEpoch | None) -> nn.Module:
    """The dense parent of the spec's net, trained now unless it is."""
    training = msgspec.structs.replace(
        spec.training, distil=0.0, self_distil=0.0, regime="joint", backbone_epochs=None
    )
    parent = msgspec.structs.replace(
        spec, name=f"{spec.name}-parent"[:63], sparsity=None, exits=None, training=training
    )
    with about("dense parent (teacher)"):
        result = train(parent, directory, own=own, resume=True, on_epoch=on_epoch)
    right, weights = result["accuracy"]["final"], result["weights"]
    tell(f"dense parent (teacher): {right:.2%} right on the test set, {weights:,} weights")
    return place.read_run(directory, own).model
