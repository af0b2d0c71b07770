"""Whether the best rate of a dense net serves its sparse one: rates by fan-in, or one for all.

A perceptron and a vision transformer on MNIST, ResNet-8 on CIFAR-10 by Adam and by SGD: each dense
and at a quarter of the connections, the perceptron at an eighth and a sixteenth too, trained
briefly at four rates by both rules. All are judged on held-out samples; no test set is read.
About an hour on one core; finished rows go to stderr as JSON lines.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

from presplit.core.errors import SpecError
from presplit.train import Recipe, accuracies, evaluate, fit, initialise, sparsify
from presplit.train.data import Samples, hold_out, load
from presplit.train.zoo import mlp, resnet8, vit

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Rates that are tried, as multiples of the recipe's."""
JUDGED = 6000


@dataclass(frozen=True)
class Case:
    """A net, the layers of it that become sparse, and how it is trained on ``images`` images."""

    data: str
    build: Callable[[], nn.Module]
    layers: tuple[str, ...]
    densities: tuple[float, ...]
    images: int
    recipe: Recipe


CASES = {
    "perceptron": Case(
        "mnist",
        lambda: mlp([784, 400, 400, 10]),
        ("fc1", "fc2"),
        (1 / 4, 1 / 8, 1 / 16),
        10000,
        Recipe(epochs=5, rate=3e-3),
    ),
    "transformer": Case(
        "mnist",
        lambda: vit(patch=7, channels=1, size=28),
        ("block*",),
        (1 / 4,),
        15000,
        Recipe(epochs=4, rate=3e-3, optimiser="adamw", weight_decay=0.05),
    ),
    "resnet8, Adam": Case(
        "cifar10",
        lambda: resnet8(width=16),
        ("block*.conv*",),
        (1 / 4,),
        8000,
        Recipe(epochs=4, batch=64, rate=5e-3),
    ),
    "resnet8, SGD": Case(
        "cifar10",
        lambda: resnet8(width=16),
        ("block*.conv*",),
        (1 / 4,),
        8000,
        Recipe(epochs=4, batch=64, rate=0.1, optimiser="sgd", weight_decay=5e-4),
    ),
}


def run(
    quick: bool, *, nets: tuple[str, ...] = (), seeds: tuple[int, ...] = (0, 1)
) -> dict[str, Any]:
    """The rows of all nets, or of some; ``quick``: one perceptron at one rate, one seed."""
    for name in nets:
        if name not in CASES:
            raise SpecError(f"nets: there are {', '.join(map(repr, CASES))}, got {name!r}")
    torch.set_num_threads(1)
    asked = nets or (("perceptron",) if quick else tuple(CASES))
    rows = [row for name in asked for row in _rows(name, quick, seeds[:1] if quick else seeds)]
    return {"rows": rows, "checks": [check for name in asked for check in _checks(name, rows)]}


def _rows(name: str, quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One net at all its densities, rates and rules."""
    case, rows = CASES[name], list[dict[str, Any]]()
    parts = [_parts(case, seed) for seed in seeds]
    for density in (1.0, *case.densities[: 1 if quick else None]):
        for rates in ("by_fan_in", "uniform") if density < 1 else ("uniform",):
            for factor in (1.0,) if quick else FACTORS:
                recipe = replace(case.recipe, rates=rates, rate=factor * case.recipe.rate)
                found = [
                    _accuracy(case, density, recipe, *each, seed=seed)
                    for seed, each in zip(seeds, parts, strict=True)
                ]
                row = {"net": name, "density": density, "rates": rates, "rate": recipe.rate}
                rows.append(row | {"held_out": statistics.mean(found), "seeds": len(seeds)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _parts(case: Case, seed: int) -> tuple[Samples, Samples]:
    """So many images to train on as the case says, and held-out ones, both in mixed order."""
    draw = np.random.default_rng(seed)
    parts = hold_out(load(case.data).train, 0.15, seed=seed)
    found = []
    for part, size in zip(parts, (case.images, JUDGED), strict=True):
        some = draw.permutation(len(part))[:size]
        found.append(Samples(part.x[some], part.y[some]))
    return found[0], found[1]


def _accuracy(
    case: Case, density: float, recipe: Recipe, train: Samples, held: Samples, *, seed: int
) -> float:
    torch.manual_seed(seed)
    model = case.build()
    if density < 1:
        model = sparsify(model, layers=dict.fromkeys(case.layers, density), seed=seed)
    initialise(model, recipe, seed=seed)
    fit(model, train, recipe=recipe, seed=seed)
    return accuracies(evaluate(model, held), held.y)[-1]


def _checks(name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At the rate that is the dense net's best, rates by fan-in do no worse than one for all."""
    own = [row for row in rows if row["net"] == name]
    dense = max((row for row in own if row["density"] == 1), key=lambda row: row["held_out"])
    made: list[dict[str, Any]] = []
    for density in CASES[name].densities:
        at = {
            row["rates"]: row["held_out"]
            for row in own
            if (row["density"], row["rate"]) == (density, dense["rate"])
        }
        if at:
            gain = at["by_fan_in"] - at["uniform"]
            what = f"{name}, density {density:g}: by fan-in over uniform at the dense net's best"
            made.append({"name": what, "value": gain, "target": ">= 0", "ok": gain >= 0})
    return made
