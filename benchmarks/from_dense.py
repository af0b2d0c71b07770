"""What a trained dense net is worth to its sparse one, by density and length of training.

Five ways to the same sparse net: from scratch, by its own values or distilling from the dense net
too; and from the dense net, distilling from it, with values taken where connections exist,
connections chosen besides (channels put in order), or values fitted to what the dense layers give.
A perceptron and a vision transformer on MNIST, a residual net on CIFAR-10, on a part of the images.

Every accuracy is measured on the test set once, at the end of a training of its length; the rates
of the perceptron and the transformer are those that were best on held-out samples (`rates`). The
last columns say after how many epochs each way has the dense net's accuracy less half a point, and
what that costs by the energy model, without the dense net's own training. ``--plot FILE`` draws
accuracy against epochs, ``--jobs`` trains beside each other.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from msgspec.structs import replace
from torch import nn

from benchmarks._energy import training_joules
from presplit.core.errors import SpecError, library
from presplit.train import (
    Recipe,
    accuracies,
    evaluate,
    fit,
    initialise,
    sparsify,
    summary,
)
from presplit.train.data import Samples, hold_out, load
from presplit.train.zoo import mlp, resnet8, vit

Way = Literal["scratch", "distilled", "taken", "chosen", "fitted"]
WAYS: tuple[Way, ...] = ("scratch", "distilled", "taken", "chosen", "fitted")
DENSITIES = (1 / 2, 1 / 4, 1 / 8)
BELOW = 0.005


@dataclass(frozen=True)
class Study:
    """One net: its data, how it is made and trained, and the layers that become sparse.

    ``epochs``: of the dense net; ``lengths``: of the sparse ones. ``later``: the rate for values
    that are trained already.
    """

    data: str
    images: int
    dense: Callable[[], nn.Module]
    layers: tuple[str, ...]
    recipe: Recipe
    later: float
    lengths: tuple[int, ...]


STUDIES = {
    "perceptron": Study(
        "mnist",
        20_000,
        lambda: mlp((784, 400, 400, 10)),
        ("fc1", "fc2"),
        Recipe(epochs=20, rate=6e-3, augment="none"),
        6e-3,
        (1, 2, 4, 8, 16),
    ),
    "residual net": Study(
        "cifar10",
        8_000,
        lambda: resnet8(width=24),
        ("block*.conv*",),
        Recipe(
            epochs=12,
            rate=0.2,
            rates="uniform",
            optimiser="sgd",
            weight_decay=5e-4,
            augment="shift_flip",
            bf16=True,
        ),
        0.1,
        (2, 4, 8),
    ),
    "transformer": Study(
        "mnist",
        20_000,
        lambda: vit(patch=7, channels=1, size=28),
        ("block*",),
        Recipe(epochs=12, rate=6e-3, optimiser="adamw", weight_decay=0.05, augment="nudge"),
        6e-3,
        (2, 4, 8),
    ),
}
LEARNS = {"distil": 0.7, "temperature": 4.0}


def run(
    quick: bool,
    *,
    nets: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0,),
    jobs: int = 1,
    plot: str = "",
) -> dict[str, Any]:
    """All nets, or the named ones; ``quick``: the perceptron at one density, for one epoch."""
    for name in nets:
        if name not in STUDIES:
            raise SpecError(f"nets: there are {', '.join(map(repr, STUDIES))}, got {name!r}")
    chosen = nets or (("perceptron",) if quick else tuple(STUDIES))
    densities = DENSITIES[1:2] if quick else DENSITIES
    tasks = [
        (name, seed, density, way, length)
        for name in chosen
        for length in (STUDIES[name].lengths[:1] if quick else reversed(STUDIES[name].lengths))
        for seed in (seeds[:1] if quick else seeds)
        for density in densities
        for way in WAYS
    ]
    parents = [(name, seed) for name in chosen for seed in (seeds[:1] if quick else seeds)]
    with ProcessPoolExecutor(max(jobs, 1), mp_context=multiprocessing.get_context("spawn")) as pool:
        dense = dict(zip(parents, pool.map(_dense, parents), strict=True))
        states = [dense[task[:2]] for task in tasks]
        found = dict(zip(tasks, pool.map(_accuracy, tasks, states), strict=True))
    rows = [
        _row(name, density, way, found, dense)
        for name in chosen
        for density in densities
        for way in WAYS
    ]
    if plot:
        draw(rows, Path(plot))
    return {"rows": rows, "checks": []}


@functools.cache
def _data(name: str, images: int) -> tuple[Samples, Samples]:
    """So many training images, of which a tenth was held out, and the test images."""
    data = load(name)
    part, _ = hold_out(data.train, 0.1, seed=0)
    places = np.random.default_rng(0).permutation(len(part))[:images]
    return part.take(places), data.test


def _dense(task: tuple[str, int]) -> tuple[dict[str, Any], float]:
    """The values and the accuracy of a trained dense net."""
    name, seed = task
    study = STUDIES[name]
    train, test = _data(study.data, study.images)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = study.dense()
    initialise(net, study.recipe, seed=seed)
    fit(net, train, recipe=study.recipe, seed=seed)
    accuracy = accuracies(evaluate(net, test), test.y)[-1]
    _say({"net": name, "seed": seed, "accuracy": accuracy})
    return {key: value.numpy() for key, value in net.state_dict().items()}, accuracy


def _accuracy(
    task: tuple[str, int, float, Way, int], parent: tuple[dict[str, Any], float]
) -> float:
    """The test accuracy of one sparse net after a training of its length."""
    name, seed, density, way, length = task
    study = STUDIES[name]
    train, test = _data(study.data, study.images)
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dense = study.dense()
    dense.load_state_dict({key: torch.from_numpy(value) for key, value in parent[0].items()})
    net = _sparse(study, dense, train, density, way, seed)
    recipe = replace(study.recipe, epochs=length)
    if way != "scratch":
        recipe = replace(recipe, **LEARNS)
    if way in ("scratch", "distilled"):
        initialise(net, recipe, seed=seed)
    else:
        recipe = replace(recipe, rate=study.later)
    fit(net, train, recipe=recipe, teacher=None if way == "scratch" else dense, seed=seed)
    accuracy = accuracies(evaluate(net, test), test.y)[-1]
    _say({"task": [*task], "accuracy": accuracy})
    return accuracy


def _sparse(
    study: Study, dense: nn.Module, train: Samples, density: float, way: Way, seed: int
) -> nn.Module:
    few = torch.from_numpy(train.x[:512].copy())
    return sparsify(
        dense,
        layers=dict.fromkeys(study.layers, density),
        values="fitted" if way == "fitted" else "taken",
        connections="chosen" if way in ("chosen", "fitted") else "drawn",
        samples=few,
        seed=seed,
    )


def _row(
    name: str,
    density: float,
    way: Way,
    found: Mapping[tuple[str, int, float, Way, int], float],
    dense: Mapping[tuple[str, int], tuple[dict[str, Any], float]],
) -> dict[str, Any]:
    """The accuracies of one way to one net, and when it comes near the dense one."""
    study = STUDIES[name]
    parent = statistics.mean(value[1] for key, value in dense.items() if key[0] == name)
    means = {
        length: statistics.mean(each)
        for length in study.lengths
        if (each := [v for k, v in found.items() if (k[0], *k[2:]) == (name, density, way, length)])
    }
    near = next((length for length, mean in means.items() if mean >= parent - BELOW), None)
    row: dict[str, Any] = {"net": name, "density": density, "way": way, "parent": parent}
    row |= {f"after {length}": mean for length, mean in means.items()}
    row["epochs to parent - 0.5"] = near
    row["joules"] = None if near is None else near * _joules_an_epoch(study, density, way)
    return row


def _joules_an_epoch(study: Study, density: float, way: Way) -> float:
    """By the energy model; every way but "scratch" has the dense net as a teacher."""
    torch.manual_seed(0)
    dense = study.dense()
    x = torch.zeros(1, *_data(study.data, study.images)[1].x.shape[1:])
    sparse = sparsify(dense, layers=dict.fromkeys(study.layers, density))
    macs, whole = (sum(layer.macs for layer in summary(net, x)) for net in (sparse, dense))
    return training_joules(macs, study.images, 1, teacher=0 if way == "scratch" else whole)


def _say(line: Mapping[str, object]) -> None:
    print(json.dumps(line), file=sys.stderr, flush=True)


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel for each net and density: accuracy against epochs, a line for each way."""
    matplotlib = library("matplotlib", need="the plot", extra="bench")
    figures = library("matplotlib.figure", need="the plot", extra="bench")
    nets = list(dict.fromkeys(row["net"] for row in rows))
    densities = list(dict.fromkeys(row["density"] for row in rows))
    colours = dict(zip(WAYS, ("#7f7f7f", "#e69f00", "#56b4e9", "#2383c4", "#d55e00"), strict=True))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "presplit", "font.size": 9}
    ):
        figure = figures.Figure(
            figsize=(2.9 * len(densities), 2.3 * len(nets) + 0.5), layout="constrained"
        )
        panels = figure.subplots(len(nets), len(densities), squeeze=False, sharey="row")
        for row in rows:
            axes = panels[nets.index(row["net"])][densities.index(row["density"])]
            lengths = [int(key.split()[1]) for key in row if key.startswith("after ")]
            values = [100 * row[f"after {length}"] for length in lengths]
            axes.plot(
                lengths, values, "o-", ms=3, lw=1.2, color=colours[row["way"]], label=row["way"]
            )
            axes.axhline(100 * row["parent"], color="0.6", lw=0.8, ls=":")
            axes.set(title=f"{row['net']}, 1/{1 / row['density']:g}", xscale="log", xlabel="epochs")
            axes.set_xticks(lengths, [str(length) for length in lengths])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        for line in panels:
            line[0].set_ylabel("test accuracy, %")
        panels[0][-1].legend(fontsize=7)
        figure.savefig(file, metadata={"Date": None})
