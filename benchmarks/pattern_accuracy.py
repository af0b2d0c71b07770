"""Accuracy by pattern family at equal weights.

An MNIST perceptron is measured at three densities, a small CIFAR-10 net at one.

MNIST: 800-400-400-10 (padded to 800), the first two layers sparse. CIFAR-10: `small_cnn` with
32..128 channels, all layers sparse but the stem and the classifier. A tenth of the training images
is held out of every training, and the test set is only read at the end. All nets train alike, and
briefly: Adam, one-cycle rate, batch 256, 6 epochs (MNIST) or 3 (CIFAR-10, so its accuracies are
below what the net can reach). The rate is chosen once for a data set on the held-out part, with
biregular patterns and one seed, and then serves all families and the dense nets. A family gets the
nearest density that it has from below: the row's weights say what it got. About two hours on one
core; finished rows go to stderr as JSON lines.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from presplit.core.errors import SpecError, library
from presplit.core.types import Pattern
from presplit.patterns import CHOSEN, LEGAL, PATTERNS, data_aware, grouped, local
from presplit.patterns.butterfly import butterfly
from presplit.patterns.periodic_kernel import periodic_kernel
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
from presplit.train.data import Samples, hold_out, load
from presplit.train.zoo import mlp, small_cnn

LAYERS = (800, 400, 400, 10)
DENSITIES = {"mnist": (1 / 4, 1 / 10, 1 / 20), "cifar10": (1 / 4,)}
EPOCHS = {"mnist": 6, "cifar10": 3}
RATES = {"mnist": (3e-3, 6e-3, 1e-2, 1.5e-2, 2e-2), "cifar10": (1e-2, 2e-2, 4e-2, 8e-2)}
SAME_WEIGHTS = {1 / 4: 132, 1 / 10: 58, 1 / 20: 33}
"""Hidden width of the dense perceptron 800-h-h-10 that has about as many weights."""
BUTTERFLY = {1 / 4: (8, 448), 1 / 10: (20, 400), 1 / 20: (10, 100)}
"""Groups and hidden features of the butterflies whose net has at most as many weights."""
TILES = (16, 40)
PARENTS = {"mnist": (0.975, 0.99), "cifar10": (0.7, 0.85)}
"""Between which accuracies the mean of the dense parent is expected."""
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
QUICK = ("dense parent", "dense, as many weights", "grouped", "biregular")

Make = Callable[[float, int, Samples], nn.Module]
"""An untrained net of a density and a seed; what knows the data sees training samples."""


def run(
    quick: bool,
    *,
    data: tuple[str, ...] = ("mnist", "cifar10"),
    families: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    plot: str = "",
) -> dict[str, Any]:
    """All rows, or those of some ``families``; ``plot`` draws them there.

    ``quick`` trains four families of the first data set, one seed, one epoch.
    """
    for name in data:
        if name not in DENSITIES:
            raise SpecError(f"data: expected one of {', '.join(DENSITIES)}, got {name!r}")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in data[:1] if quick else data:
        rows += _table(
            name, families or (QUICK if quick else ()), seeds[:1] if quick else seeds, quick
        )
    if plot:
        draw(rows, Path(plot))
    return {"rows": rows, "checks": checks(rows)}


def checks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The dense parents are as good as such nets are, and weights are as equal as claimed.

    The first says that training works.
    """
    made: list[dict[str, Any]] = []
    for row in rows:
        if row["family"] == "dense parent" and row["seeds"] > 1:
            least, most = PARENTS[row["data"]]
            ok = least <= row["accuracy"] <= most
            name = f"{row['data']}: accuracy of the dense parent"
            made.append(
                {"name": name, "value": row["accuracy"], "target": f"{least} to {most}", "ok": ok}
            )
    for data, density in dict.fromkeys(
        (row["data"], row["density"]) for row in rows if row["family"] in PATTERNS
    ):
        same = [row for row in rows if (row["data"], row["density"]) == (data, density)]
        weights = [row["weights"] for row in same if row["family"] in PATTERNS]
        ratio = max(row["weights"] for row in same) / min(weights)
        name = (
            f"{data}, density {density:g}: most weights of any row over fewest of a family by name"
        )
        made.append({"name": name, "value": ratio, "target": "<= 1.01", "ok": ratio <= 1.01})
    return made


def _table(
    name: str, families: Sequence[str], seeds: Sequence[int], quick: bool
) -> list[dict[str, Any]]:
    """The rows of one data set."""
    dataset = load(name)
    dataset = dataset.padded(LAYERS[0]) if name == "mnist" else dataset
    epochs = 1 if quick else EPOCHS[name]
    makes = _perceptrons() if name == "mnist" else _convolutional()
    for family in families:
        if family not in makes:
            raise SpecError(f"{name} has no row {family!r}; there are: {', '.join(makes)}")
    train, held = hold_out(dataset.train, 0.1, seed=0)
    density = DENSITIES[name][len(DENSITIES[name]) // 2]
    tuned = {
        rate: _accuracy(makes["biregular"](density, 0, train), train, held, rate, epochs, 0)
        for rate in RATES[name]
    }
    rate = max(tuned, key=lambda tried: tuned[tried])
    _say(f"{name}: rate {rate} of {tuned} (held-out accuracy of biregular at {density})")
    rows: list[dict[str, Any]] = []
    for family in families or makes:
        for density in (1.0,) if family == "dense parent" else DENSITIES[name]:
            found: list[float] = []
            for seed in seeds:
                train, _ = hold_out(dataset.train, 0.1, seed=seed)
                torch.manual_seed(seed)
                model = makes[family](density, seed, train)
                found.append(_accuracy(model, train, dataset.test, rate, epochs, seed))
            rows.append(_row(name, len(train), family, density, count_weights(model), found))
            _say(json.dumps(rows[-1]))
    return rows


def _accuracy(
    model: nn.Module, train: Samples, judged: Samples, rate: float, epochs: int, seed: int
) -> float:
    """Train, and give the accuracy on ``judged``."""
    recipe = Recipe(epochs=epochs, batch=256, rate=rate)
    initialise(model, recipe, seed=seed)
    fit(model, train, recipe=recipe, seed=seed)
    return accuracies(evaluate(model, judged), judged.y)[-1]


def _perceptrons() -> dict[str, Make]:
    """Every family for 800-400-400-10."""

    def family(name: str) -> Make:
        return lambda density, seed, _: sparsify(
            mlp(LAYERS),
            layers={f"fc{k}": _at_most(name, *LAYERS[k - 1 : k + 1], density) for k in (1, 2)},
            family=name,
            seed=seed,
        )

    def knowing(first: Callable[[Samples], Any], second: str) -> Make:
        def make(density: float, seed: int, train: Samples) -> nn.Module:
            pattern = first(train)(LAYERS[0], LAYERS[1], density=density, seed=seed)
            later = PATTERNS[second](LAYERS[1], LAYERS[2], density=density, seed=seed)
            return sparsify(mlp(LAYERS), layers={"fc1": pattern, "fc2": later})

        return make

    def weights(train: Samples) -> Any:
        return data_aware.importance(train.x[:, :784])

    def tiles_of(tile: int) -> Make:
        return knowing(
            lambda train: local.over((28, 28), tile=tile, weights=weights(train)), "grouped"
        )

    return {
        "dense parent": lambda density, seed, _: mlp(LAYERS),
        "dense, as many weights": lambda density, seed, _: mlp(
            (LAYERS[0], SAME_WEIGHTS[density], SAME_WEIGHTS[density], LAYERS[-1])
        ),
        **{name: family(name) for name in PATTERNS},
        "grouped, all layers dealt": lambda density, seed, _: sparsify(
            mlp(LAYERS),
            layers={f"fc{k}": grouped(*LAYERS[k - 1 : k + 1], density=density) for k in (1, 2)},
        ),
        "butterfly": _butterflies,
        "data-aware + biregular": knowing(
            lambda train: data_aware.over(train.x[:, :784]), "biregular"
        ),
        "scored by gradient": _scored,
        "local + biregular": knowing(
            lambda train: local.over((28, 28), weights=weights(train)), "biregular"
        ),
        **{f"local tiles of {tile} + grouped": tiles_of(tile) for tile in TILES},
    }


def _convolutional() -> dict[str, Make]:
    """Every family for the small CNN.

    Between channels, what knows the layout of an input has nothing to say.
    """

    def net() -> nn.Module:
        return small_cnn(width=32, bottleneck=32, channels=3, size=32)

    def family(name: str) -> Make:
        return lambda density, seed, _: sparsify(net(), density=density, family=name, seed=seed)

    def periodic(name: str, support: int) -> Make:
        """The channels as dense as kernels of so many of 9 entries allow.

        Kernels of 1x1 stay whole.
        """

        def make(density: float, seed: int, _: Samples) -> nn.Module:
            between = _at_most(name, 32, 64, density * 9 / support)
            return sparsify(
                net(), layers={"block*": between, "bottleneck.conv": density},
                kernels={"block*": periodic_kernel(support=support)}, family=name, seed=seed,
            )  # fmt: skip

        return make

    return {
        "dense parent": lambda density, seed, _: net(),
        "dense, as many weights": lambda density, seed, _: small_cnn(
            width=16, bottleneck=16, channels=3, size=32
        ),
        **{name: family(name) for name in PATTERNS},
        "periodic kernels of 3 + biregular": periodic("biregular", 3),
        "periodic kernels of 4 + grouped": periodic("grouped", 4),
    }


def _at_most(family: str, n_in: int, n_out: int, density: float) -> float:
    """The legal density of ``family`` nearest to ``density`` from below."""
    return max(legal for legal in LEGAL[family](n_in, n_out) if legal <= density * (1 + 1e-9))


def _butterflies(density: float, seed: int, _: Samples) -> nn.Module:
    model = mlp(LAYERS)
    for name, n_in, n_out in zip(("fc1", "fc2"), LAYERS, LAYERS[1:], strict=False):
        groups, hidden = BUTTERFLY[density]
        pair = butterfly(n_in, n_out, groups=groups, hidden=hidden)
        setattr(
            model,
            name,
            nn.Sequential(SparseLinear(pair.first, bias=False), SparseLinear(pair.second)),
        )
    return model


def _scored(density: float, seed: int, train: Samples) -> nn.Module:
    """SNIP-like: each output keeps its inputs of largest weight times gradient.

    The gradient is seen once, on 1,024 training samples.
    """
    model = mlp(LAYERS)
    initialise(model, seed=seed)
    F.cross_entropy(
        model(torch.from_numpy(train.x[:1024].copy())), torch.from_numpy(train.y[:1024].copy())
    ).backward()
    patterns: dict[str, float | Pattern] = {}
    for name, n_in in zip(("fc1", "fc2"), LAYERS, strict=False):
        weight = model.get_submodule(name).weight
        scores = (weight * weight.grad).abs().detach().numpy()
        patterns[name] = CHOSEN["expander"](scores, density=round(density * n_in) / n_in)
    return sparsify(mlp(LAYERS), layers=patterns)


def _row(
    data: str, images: int, family: str, density: float, weights: int, found: list[float]
) -> dict[str, Any]:
    return {
        "data": data,
        "images": images,
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


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A panel for each data set and density.

    Bars go from the worst to the best seed, grey for the dense parent.
    """
    matplotlib = library("matplotlib", need="the plot", extra="bench")
    figures = library("matplotlib.figure", need="the plot", extra="bench")
    tables = [
        (data, density)
        for data, density in dict.fromkeys((r["data"], r["density"]) for r in rows)
        if density < 1
    ]
    if not tables:
        raise SpecError("nothing to draw: the dense parent alone has no densities to compare")
    families = [f for f in dict.fromkeys(row["family"] for row in rows) if f != "dense parent"]
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "presplit", "font.size": 9}
    ):
        figure = figures.Figure(
            figsize=(2.6 * len(tables) + 1.8, 0.24 * len(families) + 1.4), layout="constrained"
        )
        for axes, (data, density) in zip(
            figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True
        ):
            for parent in (
                row for row in rows if (row["data"], row["family"]) == (data, "dense parent")
            ):
                axes.axvspan(*_extremes(parent), color="0.85", lw=0)
            own = [row for row in rows if (row["data"], row["density"]) == (data, density)]
            places = [families.index(row["family"]) for row in own]
            colours = ["#d55e00" if row["family"].startswith("dense") else "#2383c4" for row in own]
            least, most = zip(*map(_extremes, own), strict=True)
            axes.hlines(places, least, most, colors=colours, lw=2, alpha=0.5)
            axes.scatter([100 * row["accuracy"] for row in own], places, s=16, c=colours, zorder=3)
            axes.set(
                title=f"{TITLES[data]}, 1/{1 / density:g}",
                xlabel="test accuracy, %",
                ylim=(len(families), -1),
            )
            axes.set_yticks(
                range(len(families)), families if axes.get_subplotspec().is_first_col() else []
            )
            axes.grid(alpha=0.3)
        figure.savefig(file, metadata={"Date": None})


def _extremes(row: Mapping[str, Any]) -> tuple[float, float]:
    """Accuracy of the worst and of the best seed, in percent."""
    each = [float(value) for value in row["each"].split()]
    return min(each), max(each)
