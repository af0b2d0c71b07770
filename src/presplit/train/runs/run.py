"""A run: from a spec to a directory with all that is needed to repeat, evaluate and export it.

``spec.json`` (the resolved spec), ``versions.json``, ``metrics.jsonl`` (one line an epoch),
``model.safetensors`` and ``result.json``; ``state.safetensors`` while it is not finished;
``teacher/`` if the dense parent was trained first. A run is read back by building the net from its
spec and filling it from the checkpoint, patterns included.
"""

from __future__ import annotations

import copy
import math
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

import presplit
from presplit.core.errors import DataError, GraphError, SpecError, context
from presplit.core.spec import Sparsity, Spec, Training, read_spec, spec_json
from presplit.core.types import Pattern
from presplit.patterns import biregular
from presplit.policies import EXITS
from presplit.train.data import Dataset, Samples, hold_out, load
from presplit.train.fitting import checkpoint, distributed
from presplit.train.fitting.fit import fit, initialise, refuse_what_does_not_fit
from presplit.train.fitting.recipe import OPTIONS, RECIPES, Recipe
from presplit.train.fitting.resume import Epoch
from presplit.train.judging.evaluate import accuracies, check_classifier, evaluate, route
from presplit.train.judging.thresholds import Goal, choose_thresholds, temperature
from presplit.train.layers.standardise import standardised
from presplit.train.nets.add_exits import add_exits, exit_macs
from presplit.train.nets.allocate import allocate
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.sparsify import sparsify
from presplit.train.nets.summary import count_weights
from presplit.train.zoo import mlp, small_cnn

MODEL, METRICS, RESULT = "model.safetensors", "metrics.jsonl", "result.json"
STATE, TEACHER = "state.safetensors", "teacher"
DROPS = (0.0, 0.001, 0.002, 0.005, 0.01)
"""Losses of accuracy for which thresholds are told."""


@dataclass(frozen=True)
class Run:
    """A spec with the net it describes and its data.

    ``train`` and ``held_out`` together are the training set.

    ``padding``: how many zeros were added to each sample.
    """

    spec: Spec
    model: nn.Module
    data: Dataset
    train: Samples
    held_out: Samples
    padding: int = 0

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits, the last one ``final``."""
        return self.model.exit_names if isinstance(self.model, MultiExit) else ("final",)


Own = Callable[[str], object]
"""Gives the dense net that a spec's ``model.factory`` names."""


def build(spec: Spec, own: Own | None = None) -> Run:
    """The untrained net of ``spec``, its values drawn from the spec's seed, and its data.

    A net of kind "own" comes from ``own``, keeps the values that it draws itself, and is given a
    sample to see that it fits the data: `GraphError` if it does not.
    """
    data = load(spec.data.name, size=spec.data.size, grey=spec.data.grey)
    if spec.data.standardise and data.train.x.ndim != 2:
        shape = data.train.x.shape[1:]
        raise SpecError(
            f"data.standardise: only rows of numbers have it, {data.name} has samples of shape "
            f"{shape}"
        )
    padding = 0
    if spec.data.pad_to:
        padding = spec.data.pad_to - math.prod(data.train.x.shape[1:])
        data = data.padded(spec.data.pad_to)
    train, held_out = hold_out(data.train, spec.data.validation, seed=spec.seed)
    torch.manual_seed(spec.seed)
    model = _dense(spec, data, own)
    if spec.sparsity is not None:
        with context("sparsity"):
            layers: dict[str, float | Pattern] = {**spec.sparsity.layers, **_fan_out(spec)}
            if spec.sparsity.budget is not None:
                layers |= _budget(spec.sparsity, spec.sparsity.budget, model, train)
            model = sparsify(
                model,
                density=spec.sparsity.density,
                layers=layers,
                family=spec.sparsity.family or "grouped",
                seed=spec.seed,
            )
    if spec.exits is not None:
        with context("exits.policy"):
            EXITS.find(spec.exits.policy)
        with context("exits.after"):
            after = "auto" if spec.exits.after == ("auto",) else spec.exits.after
            model = add_exits(model, after, example=torch.from_numpy(train.x[:1].copy()))
    if spec.model.kind != "own":
        initialise(model, recipe_of(spec.training), seed=spec.seed)
    return Run(spec, model, data, train, held_out, padding)


def recipe_of(training: Training) -> Recipe:
    """The recipe that ``[training]`` names, with what it gives itself."""
    given = {key: value for key in OPTIONS if (value := getattr(training, key)) is not None}
    with context("training"):
        return replace(RECIPES.find(training.recipe), **given)


def _resolved(spec: Spec) -> Spec:
    """``spec`` with its recipe written out, so that it stays the same if the recipe changes."""
    said = asdict(recipe_of(spec.training))
    return msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, **said))


def _dense(spec: Spec, data: Dataset, own: Own | None) -> nn.Module:
    """The dense net that the spec starts from."""
    shape, classes = data.train.x.shape[1:], len(data.labels)
    if spec.model.kind == "own":
        factory = spec.model.factory or ""
        if own is None:
            raise SpecError(
                f"model.factory: {factory} is code: the command line imports it, or pass own="
            )
        with context(f"model.factory: {factory}"):
            model = copy.deepcopy(own(factory))
            if not isinstance(model, nn.Module):
                raise GraphError(f"a torch.nn.Module is expected, got {type(model).__name__}")
            check_classifier(
                model, torch.from_numpy(data.train.x[:2].copy()), len(data.labels), data=data.name
            )
        return standardised(model, data.train.x) if spec.data.standardise else model
    if spec.model.kind == "mlp":
        layers = spec.model.layers
        if layers[0] != int(np.prod(shape)) or layers[-1] < classes:
            raise SpecError(
                f"model.layers: {data.name} needs {int(np.prod(shape))} inputs and at least "
                f"{classes} outputs, "
                f"got {list(layers)}; data.pad_to adds zeros to the inputs"
            )
        return standardised(mlp(layers), data.train.x) if spec.data.standardise else mlp(layers)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise SpecError(
            f"model.kind: a cnn needs square images, {data.name} has samples of shape {shape}"
        )
    model = spec.model
    return small_cnn(
        width=model.width,
        bottleneck=model.bottleneck,
        channels=shape[0],
        size=shape[1],
        classes=classes,
    )


def _budget(
    sparsity: Sparsity, budget: float, model: nn.Module, train: Samples
) -> dict[str, float]:
    """The densities into which a budget is divided."""
    return allocate(
        model,
        torch.from_numpy(train.x[:1].copy()),
        budget=budget,
        unit=sparsity.unit,
        profile=sparsity.profile,
        family=sparsity.family or "grouped",
        tolerance=sparsity.tolerance,
    )


def _fan_out(spec: Spec) -> dict[str, Pattern]:
    """The paper's vocabulary: one out-degree for each junction.

    That of a dense one is the next layer's size.
    """
    assert spec.sparsity is not None
    patterns: dict[str, Pattern] = {}
    sizes = spec.model.layers
    for junction, (n_in, n_out, degree) in enumerate(
        zip(sizes, sizes[1:], spec.sparsity.fan_out, strict=False), start=1
    ):
        if degree < n_out:
            with context(f"fan_out[{junction - 1}]"):
                patterns[f"fc{junction}"] = biregular(
                    n_in, n_out, fan_out=degree, seed=spec.seed + junction
                )
    return patterns


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
        _same_spec(directory, spec)
        if (directory / RESULT).is_file() and (directory / MODEL).is_file():
            return judge(read_run(directory, own))
    elif distributed.rank() == 0:
        _begin(spec, directory)
    distributed.wait()
    teacher = named
    if recipe_of(spec.training).distil and teacher is None:
        teacher = _parent(spec, directory / TEACHER, own, on_epoch)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with (directory / METRICS).open("ab" if distributed.rank() == 0 else "rb") as metrics:

        def note(epoch: Epoch) -> None:
            if distributed.rank() == 0:
                metrics.write(_line(epoch))
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
            directory / METRICS, b"".join(map(_line, history))
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


def _begin(spec: Spec, directory: Path) -> None:
    """An empty run; what an older one left that belongs to its training is gone."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, RESULT, STATE):
            (directory / name).unlink(missing_ok=True)
        shutil.rmtree(directory / TEACHER, ignore_errors=True)
        (directory / METRICS).write_bytes(b"")
        (directory / "versions.json").write_bytes(msgspec.json.encode(versions()))
        (directory / "spec.json").write_bytes(spec_json(spec))
    except OSError as error:
        raise DataError(f"{directory}: the run cannot be written ({error.strerror})") from error


def _same_spec(directory: Path, spec: Spec) -> None:
    """Raise `DataError` if the run in ``directory`` is of another spec."""
    own, asked = (msgspec.to_builtins(each) for each in (read_spec(directory / "spec.json"), spec))
    for key, before, now in _differences(own, asked):
        raise DataError(
            f"{directory}: the run there is of another spec: {key} was {before!r}, now it is "
            f"{now!r}; resume it as it "
            "was begun, or leave --resume out to begin anew"
        )


def _differences(
    before: dict[str, Any], now: dict[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Each key that differs, as ``section.key``, with both values.

    >>> list(_differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}))
    [('a.c', 2, 3)]
    """
    for key, value in now.items():
        other = before.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(other, value, f"{place}{key}.")
        elif value != other:
            yield f"{place}{key}", other, value


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


def _line(epoch: Epoch) -> bytes:
    """One line of ``metrics.jsonl``."""
    return msgspec.json.encode(asdict(epoch)) + b"\n"


def read_run(directory: str | Path, own: Own | None = None) -> Run:
    """The trained net of the run in ``directory``, with ``own`` as for `build`.

    Raises `DataError` if it is not a finished run, or its net's code has changed so that it answers
    otherwise.
    """
    directory = Path(directory)
    if not (directory / "spec.json").is_file() or not (directory / MODEL).is_file():
        cure = (
            "--resume finishes it" if (directory / STATE).is_file() else "presplit train makes one"
        )
        raise DataError(
            f"{directory}: not a finished run (spec.json and {MODEL} are expected); {cure}"
        )
    run = build(read_spec(directory / "spec.json"), own)
    checkpoint.restore(directory / MODEL, run.model)
    run.model.eval()
    return run


def judge(
    run: Run, *, policy: str | None = None, goal: tuple[Goal, float] | None = None
) -> dict[str, Any]:
    """Accuracies of every exit on the test set, weights, and thresholds from the held-out part.

    ``goal``: one of those of `choose_thresholds`; without it, several losses of accuracy.
    ``thresholds`` lists for each goal every early exit's threshold, the accuracy with them on the
    held-out part and on the test set, and the share of test samples that leave at each exit; with a
    goal or several early exits also the mean ``macs`` of their answers. ``temperatures``: what each
    exit's logits are to be divided by to be as sure as they are right. ``policy`` is the spec's if
    not given. Raises `SpecError` if no thresholds reach the goal.
    """
    names, early = run.exit_names, run.exit_names[:-1]
    held, test = (evaluate(run.model, part) for part in (run.held_out, run.data.test))
    score = policy or (run.spec.exits.policy if run.spec.exits else "confidence")
    goals: list[tuple[Goal, float]] = [goal] if goal else [("max_drop", drop) for drop in DROPS]
    costed = len(early) > 1 or goal is not None  # one exit is chosen alike whatever it costs
    macs = (
        exit_macs(run.model, torch.from_numpy(run.train.x[:1].copy())) if early and costed else None
    )
    rows: list[dict[str, Any]] = []
    for name, value in goals if early else ():
        asked = {name: value}
        chosen = choose_thresholds(held, run.held_out.y, exit_macs=macs, policy=score, **asked)
        routed = route(test, run.data.test.y, chosen.thresholds, policy=score)
        thresholds = dict(zip(early, chosen.thresholds, strict=True))
        shares = dict(zip(names, routed.shares, strict=True))
        row = {
            "goal": asked,
            "thresholds": thresholds,
            "accuracy": routed.accuracy,
            "shares": shares,
        }
        row["validation_accuracy"] = chosen.accuracy
        if macs:
            row["macs"] = sum(share * cost for share, cost in zip(routed.shares, macs, strict=True))
        rows.append(row)
    return {
        "name": run.spec.name,
        "data": run.data.name,
        "padding": run.padding,
        "classes": len(run.data.labels),
        "outputs": test.shape[-1],
        "weights": count_weights(run.model),
        "accuracy": dict(zip(names, accuracies(test, run.data.test.y), strict=True)),
        "validation_accuracy": dict(zip(names, accuracies(held, run.held_out.y), strict=True)),
        "temperatures": {
            name: temperature(own, run.held_out.y) for name, own in zip(names, held, strict=True)
        },
        "policy": score,
        "thresholds": rows,
    }


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {
        "presplit": presplit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
