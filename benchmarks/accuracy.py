"""How accurate small sparse nets are, trained with all that helps, against their dense parents.

MNIST, padded to 800 inputs. Receptive fields over the image (`local`, centres where pixels vary) in the first layer,
biregular or grouped ones after it, the last layer dense. The small nets distil from a dense 800-512-256-10, trained
once for each seed. The perceptron of nine times fewer weights and its dense parent are trained by the same recipe
without a teacher, and timed in ONNX Runtime at batch 64. A tenth of the training set is held out of every training;
the recipes are those of earlier measurements, nothing was tuned on the test set. About an hour on one core.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks._rows import sessions
from benchmarks._timing import medians
from presplit.core.errors import SpecError
from presplit.core.types import Pattern
from presplit.patterns import data_aware, local
from presplit.train import Recipe, accuracies, count_weights, evaluate, fit, initialise, sparsify
from presplit.train.data import Samples, hold_out, load
from presplit.train.zoo import mlp

LAYOUT, PADDED = (28, 28), 800
TEACHER = (PADDED, 512, 256, 10)
TAUGHT = Recipe(epochs=100, rate=6e-3, distil=0.7, temperature=3.0)
PLAIN = Recipe(epochs=20, rate=3e-3)
QUICK = "mnist 2,360"


@dataclass(frozen=True)
class Net:
    """One row: layer sizes, inputs of each first and second unit, outputs that share a field, and what it must reach.

    ``fields`` 0: dense. ``reaches``: an accuracy (0..1), or the name of the row that it must pass.
    """

    layers: tuple[int, ...]
    fields: int = 0
    second: int = 0
    tile: int = 1
    family: str = "biregular"
    recipe: Recipe = TAUGHT
    reaches: float | str | None = None


NETS = {
    "mnist 2,360": Net((PADDED, 40, 40, 10), 40, 9, reaches=0.97),
    "mnist 2,360's parent": Net((PADDED, 40, 40, 10), recipe=replace(TAUGHT, distil=0.0)),
    "mnist 5,000": Net((PADDED, 100, 50, 10), 30, 30, reaches=0.981),
    "mnist 12,000": Net((PADDED, 200, 100, 10), 35, 40, reaches=0.985),
    "mnist 9x fewer, its parent": Net((PADDED, 400, 400, 10), recipe=PLAIN),
    "mnist 9x fewer": Net(
        (PADDED, 400, 400, 10), 80, 40, tile=16, family="grouped", recipe=PLAIN, reaches="mnist 9x fewer, its parent"
    ),
}


def run(quick: bool, *, rows: tuple[str, ...] = (), seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """All rows, or the named ones; ``quick``: the smallest net once."""
    for name in rows:
        if name not in NETS:
            raise SpecError(f"rows: there are {', '.join(NETS)}, got {name!r}")
    torch.set_num_threads(1)
    data = load("mnist").padded(PADDED)
    chosen = rows or ((QUICK,) if quick else tuple(NETS))
    teachers: dict[int, nn.Module] = {}
    seeds = seeds[:1] if quick else seeds
    found = {name: _row(name, NETS[name], data.train, data.test, seeds, teachers) for name in chosen}
    return {"rows": [*found.values()], "checks": _checks(found)}


def _checks(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = []
    for name, row in found.items():
        goal = NETS[name].reaches
        if isinstance(goal, str) and goal in found:
            least = found[goal]["accuracy"]
            ok, target = row["accuracy"] > least, f"> {least:.4f}"
            checks.append({"name": f"{name}: above its parent", "value": row["accuracy"], "target": target, "ok": ok})
        elif isinstance(goal, float):
            ok, target = row["accuracy"] >= goal, f">= {goal}"
            checks.append({"name": name, "value": row["accuracy"], "target": target, "ok": ok})
    return checks


def _row(
    name: str, net: Net, train: Samples, test: Samples, seeds: Sequence[int], teachers: dict[int, nn.Module]
) -> dict[str, Any]:
    """Train for each seed, with its teacher if the recipe distils; the accuracy is that on the test set."""
    each: list[float] = []
    model: nn.Module = nn.Identity()
    for seed in seeds:
        part, _ = hold_out(train, 0.1, seed=seed)
        model = _build(net, part, seed)
        initialise(model, net.recipe, seed=seed)
        if net.recipe.distil and seed not in teachers:
            teachers[seed] = _teacher(part, seed)
        teacher = teachers[seed] if net.recipe.distil else None
        fit(model, part, recipe=net.recipe, teacher=teacher, seed=seed)
        each.append(accuracies(evaluate(model, test), test.y)[-1])
    weights = count_weights(model)
    row = {
        "row": name,
        "data": "mnist",
        "weights": weights,
        "macs": weights,
        "accuracy": statistics.mean(each),
        "spread": max(each) - min(each),
        "seeds": len(each),
        "each": " ".join(f"{100 * share:.2f}" for share in each),
        "speed": _speed(net, model) if net.family == "grouped" else 1.0,
    }
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def _build(net: Net, part: Samples, seed: int) -> nn.Module:
    """The untrained net; where its fields lie follows from the training samples, without their labels."""
    dense = mlp(net.layers)
    if not net.fields:
        return dense
    weights = data_aware.importance(part.x[:, :784])
    first = local.local(
        LAYOUT, net.layers[1], fan_in=net.fields, n_in=PADDED, tile=net.tile, weights=weights, seed=seed
    )
    layers: dict[str, float | Pattern | Callable[..., Pattern]] = {"fc1": first, "fc2": net.second / net.layers[1]}
    return sparsify(dense, layers=layers, family=net.family, seed=seed)


def _teacher(part: Samples, seed: int) -> nn.Module:
    """The dense net that small ones learn from, trained on the same samples."""
    model, recipe = mlp(TEACHER), Recipe(epochs=15, batch=256, rate=2e-3)
    initialise(model, recipe, seed=seed)
    fit(model, part, recipe=recipe, seed=seed)
    return model


def _speed(net: Net, model: nn.Module) -> float:
    """How many times faster than its dense parent it runs in ONNX Runtime, batch 64."""
    x = torch.rand(64, PADDED)
    works = {"dense": sessions(mlp(net.layers).eval(), x)[0], "sparse": sessions(model.eval(), x)[0]}
    times = medians(works, seconds=2.0)
    return times["dense"] / times["sparse"]
