"""From a spec to its untrained net and its data."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from presplit.core.errors import PresplitWarning, SpecError, context
from presplit.core.sections import (
    ByDensity,
    ByFanOut,
    Cnn,
    Data,
    Mlp,
    OwnModel,
    Sparsity,
    Spec,
    Start,
)
from presplit.core.types import Pattern
from presplit.patterns import biregular
from presplit.policies import EXITS
from presplit.train.data import Dataset, Samples, hold_out, load
from presplit.train.fitting.fit import initialise
from presplit.train.fitting.recipe import refuse_unknown_names
from presplit.train.judging.doubts import data_doubts
from presplit.train.layers.sparse import SparseLayer
from presplit.train.layers.standardise import standardised
from presplit.train.nets.add_exits import add_exits
from presplit.train.nets.allocate import allocate
from presplit.train.nets.checking import check_classifier, held_in_0_1, scales_inputs
from presplit.train.nets.copying import bare_copy, twin
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.sparsify import MOST, moved, sparsify
from presplit.train.runs.weights import Weights, fill
from presplit.train.zoo import log_mel_cnn, mlp, small_cnn


@dataclass(frozen=True)
class Run:
    """A spec with the net it describes and its data.

    ``train`` and ``held_out`` together are the training set.

    ``padding``: how many zeros were added to each sample. ``start``: the dense net that ``model``
    began with, if it was trained. ``notes``: sentences on what differs from what the spec asks.
    """

    spec: Spec
    model: nn.Module
    data: Dataset
    train: Samples
    held_out: Samples
    padding: int = 0
    start: nn.Module | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on what is allowed in data or net and probably not meant, looked for once."""
        found = data_doubts(
            self.train,
            self.held_out,
            self.data.test,
            names=self.data.labels,
            scaled=self.data.rate is not None or scales_inputs(self.model),
        )
        some = torch.from_numpy(self.train.x[:16].copy())
        return tuple(each for each in (*found, held_in_0_1(self.model, some)) if each)

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Names of the exits, the last one ``final``."""
        return self.model.exit_names if isinstance(self.model, MultiExit) else ("final",)


Own = Callable[[str], object]
"""Gives the dense net that a spec's ``model.factory`` names."""


def build(
    spec: Spec,
    own: Own | None = None,
    *,
    weights: Weights | None = None,
    data: Dataset | None = None,
) -> Run:
    """The untrained net of ``spec``, its values drawn from the spec's seed, and its data.

    ``weights``: those of the dense net that ``spec.start`` names, from which the values then are;
    without them all are drawn, as for a net that a checkpoint will fill. Raises `DataError` if they
    are of another net. ``data``: what `loaded` gave for the spec, where it is there already.

    A net of kind "own" comes from ``own``, keeps the values that it draws itself, and is given a
    sample to see that it fits the data: `GraphError` if it does not.
    """
    with context("training"):
        refuse_unknown_names(spec.training)
    data = data or loaded(spec.data)
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
    model, start = _dense(spec, data, own), None
    if weights is not None:
        with context(f"start.net: {spec.start.net}" if spec.start else "weights"):
            fill(model, weights, train.x.shape[1:])
        start = twin(model)
    notes: list[str] = []
    if spec.sparsity is not None:
        with context("sparsity"), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", PresplitWarning)
            model = _sparse(model, spec.sparsity, spec, train, begun=start is not None)
        notes = [str(each.message) for each in said] + _moved(model, spec.sparsity.family)
    if spec.exits is not None:
        with context("exits.policy"):
            EXITS.find(spec.exits.policy)
        with context("exits.after"):
            after = "auto" if spec.exits.after == ("auto",) else spec.exits.after
            example = torch.from_numpy(train.x[:1].copy())
            model = add_exits(model, after, example=example, hidden=spec.exits.hidden)
    if not isinstance(spec.model, OwnModel):
        initialise(_to_draw(model, spec.start if start else None), spec.training, seed=spec.seed)
    return Run(spec, model, data, train, held_out, padding, start, tuple(notes))


def loaded(data: Data) -> Dataset:
    """The data set that ``[data]`` names, read as it says."""
    return load(
        data.name,
        size=data.size,
        grey=data.grey,
        rate=data.rate,
        length_s=data.length_s,
        skip_bad=data.skip_bad,
    )


def _sparse(
    model: nn.Module, sparsity: Sparsity, spec: Spec, train: Samples, *, begun: bool
) -> nn.Module:
    """``model`` as ``sparsity`` says; ``begun``: it has the values of the spec's start."""
    by_density = isinstance(sparsity, ByDensity)
    return sparsify(
        model,
        density=sparsity.density if by_density else None,
        layers=_densities(sparsity, spec, model, train),
        family=sparsity.family,
        nearest=by_density and sparsity.nearest,
        seed=spec.seed,
        **_from_start(spec.start if begun else None, train, spec.seed),
    )


def _moved(model: nn.Module, family: str) -> list[str]:
    """A sentence for each density that layers have not, with what they have instead."""
    found: dict[float, dict[float, list[str]]] = {}
    for name, (asked, taken) in moved(model).items():
        found.setdefault(asked, {}).setdefault(taken, []).append(name)
    return [
        f"density {asked:g}: the nearest that {family} has is "
        + ", ".join(f"{taken:.4g} for {' '.join(names)}" for taken, names in instead.items())
        for asked, instead in found.items()
    ]


def _from_start(start: Start | None, train: Samples, seed: int) -> dict[str, Any]:
    """What `sparsify` is told of a trained net; nothing of one that is not."""
    if start is None:
        return {}
    # Files may be in the order of their classes.
    some = np.random.default_rng(seed).permutation(len(train))[:MOST]
    return {
        "values": start.values,
        "connections": start.connections,
        "samples": torch.from_numpy(train.x[some]),
    }


def _to_draw(model: nn.Module, start: Start | None) -> nn.Module:
    """The parts of ``model`` whose values the recipe draws: all, or what is not the start's."""
    if start is None:
        return model
    parts = [model.heads] if isinstance(model, MultiExit) else []
    if start.values == "fresh":
        parts += [layer for layer in model.modules() if isinstance(layer, SparseLayer)]
    return nn.ModuleList(parts)


def _dense(spec: Spec, data: Dataset, own: Own | None) -> nn.Module:
    """The dense net that the spec starts from."""
    if isinstance(spec.model, OwnModel):
        model = _own(spec.model.factory, data, own)
    elif isinstance(spec.model, Mlp):
        model = _mlp(spec.model.layers, data)
    else:
        return _cnn(spec.model, data)
    return standardised(model, data.train.x) if spec.data.standardise else model


def _own(factory: str, data: Dataset, own: Own | None) -> nn.Module:
    """The user's own net, which takes the samples and has their classes."""
    if own is None:
        raise SpecError(
            f"model.factory: {factory} is code: the command line imports it, or pass own="
        )
    with context(f"model.factory: {factory}"):
        model = bare_copy(own(factory))
        two = torch.from_numpy(data.train.x[:2].copy())
        check_classifier(model, two, len(data.labels), data=data.name)
    return model


def _mlp(layers: tuple[int, ...], data: Dataset) -> nn.Module:
    inputs, classes = math.prod(data.train.x.shape[1:]), len(data.labels)
    if layers[0] != inputs or layers[-1] < classes:
        raise SpecError(
            f"model.layers: {data.name} needs {inputs} inputs and at least {classes} outputs, got "
            f"{list(layers)}; data.pad_to adds zeros to the inputs"
        )
    return mlp(layers)


def _cnn(model: Cnn, data: Dataset) -> nn.Module:
    """The small net for images, or for sounds behind their log-mel spectrogram."""
    shape, classes = data.train.x.shape[1:], len(data.labels)
    if data.rate:
        return log_mel_cnn(
            rate=data.rate,
            width=model.width,
            bottleneck=model.bottleneck,
            tail=model.tail,
            classes=classes,
        )
    if len(shape) != 3 or shape[1] != shape[2]:
        raise SpecError(
            f"model.kind: a cnn needs square images or sounds, {data.name} has samples of shape "
            f"{shape}"
        )
    return small_cnn(
        width=model.width,
        bottleneck=model.bottleneck,
        tail=model.tail,
        channels=shape[0],
        size=shape[1],
        classes=classes,
    )


def _densities(
    sparsity: Sparsity, spec: Spec, model: nn.Module, train: Samples
) -> Mapping[str, float | Pattern]:
    """What the spec says of single layers: densities, or patterns."""
    if isinstance(sparsity, ByFanOut):
        assert isinstance(spec.model, Mlp)
        return _by_fan_out(sparsity.fan_out, spec.model.layers, spec.seed)
    if isinstance(sparsity, ByDensity):
        return sparsity.layers
    return allocate(
        model,
        torch.from_numpy(train.x[:1].copy()),
        budget=sparsity.budget,
        unit=sparsity.unit,
        profile=sparsity.profile,
        family=sparsity.family,
        tolerance=sparsity.tolerance,
    )


def _by_fan_out(
    fan_out: tuple[int, ...], layers: tuple[int, ...], seed: int
) -> dict[str, float | Pattern]:
    """The paper's vocabulary: one out-degree for each junction.

    That of a dense one is the next layer's size.
    """
    patterns: dict[str, float | Pattern] = {}
    junctions = zip(layers, layers[1:], fan_out, strict=False)
    for junction, (n_in, n_out, degree) in enumerate(junctions, start=1):
        if degree < n_out:
            with context(f"fan_out[{junction - 1}]"):
                patterns[f"fc{junction}"] = biregular(
                    n_in, n_out, fan_out=degree, seed=seed + junction
                )
    return patterns
