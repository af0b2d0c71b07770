"""Accuracy by pattern family at equal weights: an MNIST perceptron at three densities, a small CIFAR-10 net at one.

MNIST: 800-400-400-10 (padded to 800), the first two layers sparse. CIFAR-10: `small_cnn` with 32..128 channels, the
first 10,000 training images, all layers sparse whose outputs then still read 8 channels. All nets train alike: Adam,
one-cycle rate, batch 256, 6 epochs, so that the whole table takes about an hour on one core; longer training raises
all accuracies. The rate is chosen once, for biregular patterns, on a tenth of the training set that is held out of
every training; the test set is only read at the end. Where a family has no pattern of a density, it gets the nearest
below: the row's weights say so.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from presplit.core.types import Pattern
from presplit.patterns import LEGAL, PATTERNS, data_aware, local
from presplit.patterns.butterfly import butterfly
from presplit.train import (
    Recipe,
    SparseLinear,
    accuracies,
    count_weights,
    evaluate,
    fit,
    initialise,
    sparsify,
)
from presplit.train.data import Dataset, Samples, hold_out, load
from presplit.train.zoo import mlp, small_cnn

LAYERS = (800, 400, 400, 10)
DENSITIES = {"mnist": (1 / 4, 1 / 10, 1 / 20), "cifar10": (1 / 4,)}
EPOCHS = {"mnist": 6, "cifar10": 6}
TRAINED_ON = 10_000
"""CIFAR-10 images, of 50,000."""
RATES = (1e-3, 3e-3, 6e-3)
SAME_WEIGHTS = {1 / 4: 132, 1 / 10: 58, 1 / 20: 33}
"""Hidden width of the dense perceptron 800-h-h-10 that has about as many weights."""
BUTTERFLY = {1 / 10: 20}
"""Groups of the butterfly that has about as many weights; at other densities its hidden layer would be wider."""
TILE = 40

Make = Callable[[float, int, Samples], nn.Module]
"""An untrained net of a density and a seed; what knows the data sees training samples."""


def run(
    quick: bool, *, data: tuple[str, ...] = ("mnist", "cifar10"), seeds: tuple[int, ...] = (0, 1, 2), plot: str = ""
) -> dict[str, Any]:
    """All rows; ``quick`` trains some families of MNIST, one seed, one epoch; ``plot`` draws MNIST's rows there."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in data[:1] if quick else data:
        rows += _table(name, seeds[:1] if quick else seeds, quick)
    if plot:
        _draw([row for row in rows if row["data"] == "mnist"], Path(plot))
    by_name = {(row["data"], row["family"], row["density"]): row["accuracy"] for row in rows}
    checks: list[dict[str, Any]] = []
    if "mnist" in data:
        value = by_name["mnist", "dense parent", 1.0]
        checks.append({"name": "MNIST dense parent", "value": value, "target": ">= 0.95", "ok": value >= 0.95})
    if "mnist" in data and not quick:
        gain = by_name["mnist", "grouped", 1 / 10] - by_name["mnist", "dense, as many weights", 1 / 10]
        checks.append(
            {"name": "grouped at 1/10 less dense of its size", "value": gain, "target": "> 0", "ok": gain > 0}
        )
    return {"rows": rows, "checks": checks}


def _table(name: str, seeds: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    """The rows of one data set."""
    dataset = load(name)
    dataset = dataset.padded(LAYERS[0]) if name == "mnist" else _part(dataset)
    epochs = 1 if quick else EPOCHS[name]
    makes = _perceptrons() if name == "mnist" else _convolutional()
    if quick:
        makes = {family: makes[family] for family in ("dense parent", "dense, as many weights", "grouped", "biregular")}
    train, held = hold_out(dataset.train, 0.1, seed=0)
    density = DENSITIES[name][len(DENSITIES[name]) // 2]
    tuned = {rate: _accuracy(makes["biregular"](density, 0, train), train, held, rate, epochs, 0) for rate in RATES}
    rate = max(tuned, key=lambda tried: tuned[tried])
    _say(f"{name}: rate {rate} of {tuned} (held-out accuracy of biregular at {density})")
    rows: list[dict[str, Any]] = []
    for family, make in makes.items():
        for density in (1.0,) if family == "dense parent" else DENSITIES[name]:
            if family == "butterfly" and density not in BUTTERFLY:
                continue
            found: list[float] = []
            for seed in seeds:
                train, _ = hold_out(dataset.train, 0.1, seed=seed)
                torch.manual_seed(seed)
                model = make(density, seed, train)
                found.append(_accuracy(model, train, dataset.test, rate, epochs, seed))
            rows.append(_row(name, family, density, count_weights(model), found))
            _say(str(rows[-1]))
    return rows


def _accuracy(model: nn.Module, train: Samples, judged: Samples, rate: float, epochs: int, seed: int) -> float:
    """Train, and give the accuracy on ``judged``."""
    recipe = Recipe(epochs=epochs, batch=256, rate=rate)
    initialise(model, recipe, seed=seed)
    fit(model, train, recipe=recipe, seed=seed)
    return accuracies(evaluate(model, judged), judged.y)[-1]


def _perceptrons() -> dict[str, Make]:
    """Every family for 800-400-400-10."""

    def family(name: str) -> Make:
        return lambda density, seed, _: sparsify(
            mlp(LAYERS), layers={f"fc{k}": _at_most(name, *LAYERS[k - 1 : k + 1], density) for k in (1, 2)},
            family=name, seed=seed,
        )  # fmt: skip

    def knowing(first: Callable[[Samples], Any], second: str) -> Make:
        def make(density: float, seed: int, train: Samples) -> nn.Module:
            pattern = first(train)(LAYERS[0], LAYERS[1], density=density, seed=seed)
            later = PATTERNS[second](LAYERS[1], LAYERS[2], density=density, seed=seed)
            return sparsify(mlp(LAYERS), layers={"fc1": pattern, "fc2": later})

        return make

    def weights(train: Samples) -> Any:
        return data_aware.importance(train.x[:, :784])

    return {
        "dense parent": lambda density, seed, _: mlp(LAYERS),
        "dense, as many weights": lambda density, seed, _: mlp(
            (LAYERS[0], SAME_WEIGHTS[density], SAME_WEIGHTS[density], LAYERS[-1])
        ),
        **{name: family(name) for name in PATTERNS},
        "butterfly": _butterflies,
        "data-aware + biregular": knowing(lambda train: data_aware.over(train.x[:, :784]), "biregular"),
        "scored by gradient": _scored,
        "local + biregular": knowing(lambda train: local.over((28, 28), weights=weights(train)), "biregular"),
        f"local tiles of {TILE} + grouped": knowing(
            lambda train: local.over((28, 28), tile=TILE, weights=weights(train)), "grouped"
        ),
    }


def _convolutional() -> dict[str, Make]:
    """Every family for the small CNN: between channels, what knows the layout of an input has nothing to say."""

    def net() -> nn.Module:
        return small_cnn(width=32, bottleneck=32, channels=3, size=32)

    def family(name: str) -> Make:
        return lambda density, seed, _: sparsify(net(), density=density, family=name, seed=seed)

    return {
        "dense parent": lambda density, seed, _: net(),
        "dense, as many weights": lambda density, seed, _: small_cnn(width=16, bottleneck=16, channels=3, size=32),
        **{name: family(name) for name in PATTERNS},
    }


def _at_most(family: str, n_in: int, n_out: int, density: float) -> float:
    """The legal density of ``family`` nearest to ``density`` from below."""
    return max(legal for legal in LEGAL[family](n_in, n_out) if legal <= density * (1 + 1e-9))


def _butterflies(density: float, seed: int, _: Samples) -> nn.Module:
    model = mlp(LAYERS)
    for name, n_in, n_out in zip(("fc1", "fc2"), LAYERS, LAYERS[1:], strict=False):
        pair = butterfly(n_in, n_out, groups=BUTTERFLY[density])
        setattr(model, name, nn.Sequential(SparseLinear(pair.first, bias=False), SparseLinear(pair.second)))
    return model


def _scored(density: float, seed: int, train: Samples) -> nn.Module:
    """SNIP-like: each output keeps its inputs of largest weight times gradient, seen once on 1,024 training samples."""
    model = mlp(LAYERS)
    initialise(model, seed=seed)
    F.cross_entropy(model(torch.from_numpy(train.x[:1024].copy())), torch.from_numpy(train.y[:1024].copy())).backward()
    patterns: Mapping[str, float | Pattern] = {
        name: data_aware.scored((layer.weight * layer.weight.grad).abs().detach().numpy(), fan_in=round(density * n_in))
        for name, layer, n_in in (
            (name, model.get_submodule(name), n_in) for name, n_in in (("fc1", LAYERS[0]), ("fc2", LAYERS[1]))
        )
    }
    return sparsify(mlp(LAYERS), layers=patterns)


def _part(dataset: Dataset) -> Dataset:
    """The same data with fewer training images: the first of each class alike, for files are sorted by class."""
    order = np.random.default_rng(0).permutation(len(dataset.train))[:TRAINED_ON]
    return Dataset(dataset.name, Samples(dataset.train.x[order], dataset.train.y[order]), dataset.test, dataset.labels)


def _row(data: str, family: str, density: float, weights: int, found: list[float]) -> dict[str, Any]:
    return {
        "data": data,
        "family": family,
        "density": density,
        "weights": weights,
        "accuracy": statistics.mean(found),
        "spread": max(found) - min(found),
        "seeds": len(found),
        "each": " ".join(f"{100 * share:.2f}" for share in found),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Accuracy against weights, one line a family, bars from the worst to the best seed."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
        own = sorted((row for row in rows if row["family"] == family), key=lambda row: row["weights"])
        each = [[float(value) for value in row["each"].split()] for row in own]
        means = [100 * row["accuracy"] for row in own]
        bars = [
            [m - min(e) for m, e in zip(means, each, strict=True)],
            [max(e) - m for m, e in zip(means, each, strict=True)],
        ]
        style = {"fmt": "-o" if number < 10 else "--s", "markersize": 4, "capsize": 2, "label": family}
        axes.errorbar([row["weights"] for row in own], means, yerr=bars, **style)
    axes.set(xscale="log", xlabel="weights", ylabel="test accuracy, %", title="MNIST, 800-400-400-10")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(file)
    pyplot.close(figure)
