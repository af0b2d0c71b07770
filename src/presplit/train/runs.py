"""A run: from a spec to a directory that holds all that is needed to repeat, evaluate and export it.

``spec.json`` (the resolved spec), ``versions.json``, ``metrics.jsonl`` (one line an epoch), ``model.safetensors`` and
``result.json``. A run is read back by building the net from its spec and filling it from the checkpoint, patterns
included.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

import presplit
from presplit.core.errors import DataError, SpecError, context
from presplit.core.spec import Sparsity, Spec, Training, read_spec, spec_json
from presplit.core.types import Floats, Pattern
from presplit.patterns import biregular
from presplit.train import checkpoint
from presplit.train.allocate import allocate
from presplit.train.data import Dataset, Samples, hold_out, load
from presplit.train.evaluate import accuracies, choose_threshold, evaluate, route
from presplit.train.exits import MultiExit, add_exits
from presplit.train.fit import RECIPES, Epoch, Recipe, fit, initialise
from presplit.train.sparsify import sparsify
from presplit.train.summary import count_weights
from presplit.train.zoo import mlp, small_cnn

MODEL, METRICS, RESULT = "model.safetensors", "metrics.jsonl", "result.json"


@dataclass(frozen=True)
class Run:
    """A spec with the net it describes and its data: ``train`` and ``held_out`` together are the training set."""

    spec: Spec
    model: nn.Module
    data: Dataset
    train: Samples
    held_out: Samples

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits, the last one ``final``."""
        return self.model.exit_names if isinstance(self.model, MultiExit) else ("final",)


def build(spec: Spec) -> Run:
    """The untrained net of ``spec``, its values drawn from the spec's seed, and its data."""
    data = load(spec.data.name)
    if spec.data.pad_to:
        data = data.padded(spec.data.pad_to)
    train, held_out = hold_out(data.train, spec.data.validation, seed=spec.seed)
    torch.manual_seed(spec.seed)
    model = _dense(spec, data)
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
        with context("exits.after"):
            model = add_exits(model, spec.exits.after, example=torch.from_numpy(train.x[:1].copy()))
    initialise(model, recipe_of(spec.training), seed=spec.seed)
    return Run(spec, model, data, train, held_out)


def recipe_of(training: Training) -> Recipe:
    """The recipe that ``[training]`` names, with what it gives itself."""
    given = {key: value for key in ("epochs", "batch", "rate", "bf16") if (value := getattr(training, key)) is not None}
    return replace(RECIPES.find(training.recipe), **given)


def _resolved(spec: Spec) -> Spec:
    """``spec`` with what its recipe says written out, so that it stays the same if the recipe changes."""
    recipe = recipe_of(spec.training)
    training = Training(spec.training.recipe, recipe.epochs, recipe.batch, recipe.rate, recipe.bf16)
    return msgspec.structs.replace(spec, training=training)


def _dense(spec: Spec, data: Dataset) -> nn.Module:
    """The dense net that the spec starts from."""
    shape, classes = data.train.x.shape[1:], len(data.labels)
    if spec.model.kind == "mlp":
        layers = spec.model.layers
        if layers[0] != int(np.prod(shape)) or layers[-1] < classes:
            raise SpecError(
                f"model.layers: {data.name} needs {int(np.prod(shape))} inputs and at least {classes} outputs, "
                f"got {list(layers)}; data.pad_to adds zeros to the inputs"
            )
        return mlp(layers)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise SpecError(f"model.kind: a cnn needs square images, {data.name} has samples of shape {shape}")
    model = spec.model
    return small_cnn(width=model.width, bottleneck=model.bottleneck, channels=shape[0], size=shape[1], classes=classes)


def _budget(sparsity: Sparsity, budget: float, model: nn.Module, train: Samples) -> dict[str, float]:
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
    """The paper's vocabulary: one out-degree for each junction; that of a dense one is the next layer's size."""
    assert spec.sparsity is not None
    patterns: dict[str, Pattern] = {}
    sizes = spec.model.layers
    for junction, (n_in, n_out, degree) in enumerate(
        zip(sizes, sizes[1:], spec.sparsity.fan_out, strict=False), start=1
    ):
        if degree < n_out:
            with context(f"fan_out[{junction - 1}]"):
                patterns[f"fc{junction}"] = biregular(n_in, n_out, fan_out=degree, seed=spec.seed + junction)
    return patterns


def train(spec: Spec, directory: str | Path, *, on_epoch: Callable[[Epoch], None] | None = None) -> dict[str, Any]:
    """Build, train and evaluate ``spec``; leave the run in ``directory`` and give what ``result.json`` says."""
    directory = Path(directory)
    spec = _resolved(spec)
    run = build(spec)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MODEL).unlink(missing_ok=True)  # of an older run: an interrupted one has none
        (directory / "spec.json").write_bytes(spec_json(spec))
        (directory / "versions.json").write_bytes(msgspec.json.encode(versions()))
        metrics = (directory / METRICS).open("wb")
    except OSError as error:
        raise DataError(f"{directory}: the run cannot be written ({error.strerror})") from error

    def note(epoch: Epoch) -> None:
        metrics.write(msgspec.json.encode(asdict(epoch)) + b"\n")
        metrics.flush()
        if on_epoch:
            on_epoch(epoch)

    weights = None
    if spec.exits is not None and spec.exits.weights:
        weights = (*spec.exits.weights, 1.0)
    with metrics:
        fit(
            run.model,
            run.train,
            recipe=recipe_of(spec.training),
            validation=run.held_out,
            exit_weights=weights,
            seed=spec.seed,
            on_epoch=note,
        )
    checkpoint.save(directory / MODEL, run.model, {"name": spec.name})
    result = judge(run)
    (directory / RESULT).write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return result


def read_run(directory: str | Path) -> Run:
    """The trained net of the run in ``directory``; raises `DataError` if it is not a finished run."""
    directory = Path(directory)
    if not (directory / "spec.json").is_file() or not (directory / MODEL).is_file():
        raise DataError(
            f"{directory}: not a finished run (spec.json and {MODEL} are expected); presplit train makes one"
        )
    run = build(read_spec(directory / "spec.json"))
    checkpoint.restore(directory / MODEL, run.model)
    run.model.eval()
    return run


def judge(run: Run) -> dict[str, Any]:
    """Accuracies of every exit on the test set, weights, and thresholds chosen on the held-out part.

    ``thresholds`` lists, for some losses of accuracy allowed on the held-out part, the first exit's threshold, the test
    accuracy with it, and the share of test samples that leave there.
    """
    held, test = (evaluate(run.model, part) for part in (run.held_out, run.data.test))
    return {
        "name": run.spec.name,
        "data": run.data.name,
        "weights": count_weights(run.model),
        "accuracy": dict(zip(run.exit_names, accuracies(test, run.data.test.y), strict=True)),
        "validation_accuracy": dict(zip(run.exit_names, accuracies(held, run.held_out.y), strict=True)),
        "thresholds": _thresholds(held, run.held_out, test, run.data.test) if len(run.exit_names) > 1 else [],
    }


def _thresholds(held: Floats, held_out: Samples, test: Floats, test_set: Samples) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for drop in (0.0, 0.001, 0.002, 0.005, 0.01):
        threshold = choose_threshold(held, held_out.y, max_drop=drop)
        routed = route(test[[0, -1]], test_set.y, [threshold])
        rows.append({"max_drop": drop, "threshold": threshold, "accuracy": routed.accuracy, "share": routed.shares[0]})
    return rows


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {
        "presplit": presplit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
