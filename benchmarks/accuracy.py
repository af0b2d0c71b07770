"""How accurate sparse nets are against their dense parents.

The nets are perceptrons, CNNs, nets with exits and a transformer.

MNIST's sparse perceptrons have receptive fields (`local`) in the first layer; small ones distil
from a larger dense net and see their images moved by a pixel. The CIFAR-10 and transformer rows
train by one recipe each, the sparse ones of the parent's size distilling from their parent of the
same seed. Nets train on a GPU where there is one; heavy ones elsewhere for an eighth of the
epochs, which the rows say. A tenth of the training set is held out of every training,
and is what exits' thresholds are chosen on; the test set is read once, at the end. ``--jobs``
trains seeds beside each other; ``--no-train`` only counts weights and multiplications and measures
speed; ``--keep FOLDER`` keeps trained nets, so that a run that was cut off goes on from there.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins
from msgspec.structs import replace
from torch import nn

from benchmarks._accuracy import NETS, Net
from benchmarks._energy import training_joules
from benchmarks._nets import PADDED
from benchmarks._rows import sessions
from benchmarks._timing import medians
from presplit.core.errors import SpecError
from presplit.core.plans import Plan
from presplit.core.types import Floats
from presplit.runtime import Local
from presplit.train import (
    Recipe,
    accuracies,
    choose_thresholds,
    evaluate,
    exit_macs,
    export,
    fit,
    initialise,
    route,
    summary,
)
from presplit.train.data import Dataset, Samples, hold_out, load
from presplit.train.fitting.checkpoint import restore, save
from presplit.train.judging.evaluate import balanced_accuracy
from presplit.train.nets.exits import MultiExit

REDUCED = 8
"""Without a GPU, what needs one trains for so many times fewer epochs."""
TIMED = 1024
"""Test images, about, that nets with exits are timed on."""
QUICK = "mnist 2360"
KEPT = "PRESPLIT_BENCHMARK_NETS"
"""The variable of the environment that names the folder of `--keep` to every process."""


@dataclass(frozen=True)
class Found:
    """What one seed's net reached on the test set, and its last exit on the ``held_out`` samples.

    ``balanced``: the accuracy of its last exit with all classes counted alike. If it has exits: the
    share ``early`` of answers before the last one, the accuracy of the ``last`` one, and how many
    times ``faster`` images are answered in batches, and ``one_by_one``, if exits answer.
    """

    accuracy: float
    held_out: float
    balanced: float
    early: float = 0.0
    last: float = 0.0
    faster: float = 1.0
    one_by_one: float = 1.0


def run(
    quick: bool,
    *,
    rows: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    jobs: int = 1,
    train: bool = True,
    keep: str = "",
) -> dict[str, Any]:
    """All rows, or the named ones and their parents; ``quick``: the smallest net once.

    Without ``train`` the nets stay untrained; trained ones are kept in the folder ``keep``, and
    found there again.
    """
    if keep:
        Path(keep).mkdir(parents=True, exist_ok=True)
        os.environ[KEPT] = keep
    for name in rows:
        if name not in NETS:
            raise SpecError(
                f"rows: there are {', '.join(map(repr, NETS))}, each in quotes, got {name!r}"
            )
    if jobs < 1 or min(seeds, default=0) < 0:
        raise SpecError(f"jobs are 1 or more and seeds 0 or more, got {jobs} and {seeds}")
    asked = rows or ((QUICK,) if quick else tuple(NETS))
    chosen = tuple(dict.fromkeys(name for row in asked for name in (NETS[row].parent, row) if name))
    if quick:
        seeds = seeds[:1]
    if not train:
        seeds = ()
    found = _all(chosen, seeds, jobs)
    made = {name: _row(name, [found[seed][name] for seed in seeds]) for name in chosen}
    return {
        "rows": [*made.values()],
        "checks": [each for name in chosen for each in _checks(name, made)],
    }


def _all(rows: Sequence[str], seeds: Sequence[int], jobs: int) -> dict[int, dict[str, Found]]:
    """Every row for every seed.

    A seed's nets are trained in one process, where they share their teachers.
    """
    if jobs <= 1:
        return {seed: _of_seed(seed, rows) for seed in seeds}
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        working = pool.map(_of_seed, seeds, [rows] * len(seeds))
        for name in rows:
            _data(NETS[name].data)  # for the table, while nets are trained
        return dict(zip(seeds, working, strict=True))


def _of_seed(seed: int, rows: Sequence[str]) -> dict[str, Found]:
    torch.set_num_threads(1)
    found: dict[str, Found] = {}
    for name in rows:
        found[name] = _judged(name, seed)
        print(
            json.dumps({"row": name, "seed": seed, **vars(found[name])}),
            file=sys.stderr,
            flush=True,
        )
    return found


@functools.cache
def _data(name: str) -> Dataset:
    what, _, size = name.partition(" ")
    if name == "mnist":
        return load("mnist").padded(PADDED)
    return load(what, size=int(size) if size.isdecimal() else None)


@functools.cache
def _trained(name: str, seed: int) -> nn.Module:
    """The net of a row, trained without its held-out samples; its teacher is trained first."""
    net = NETS[name]
    part, _ = hold_out(_data(net.data).train, 0.1, seed=seed)
    recipe, dense = _recipe(name, seed), _trained(net.start, seed) if net.start else None
    model = _untrained(net, part, seed, dense=dense)
    if dense is None:
        initialise(model, recipe, seed=seed)
    kept = _kept(name, seed, recipe)
    if kept is not None and kept.exists():
        restore(kept, model)
        return model.eval()
    fit(
        model.to("cuda" if torch.cuda.is_available() else "cpu"),
        part,
        recipe=recipe,
        teacher=_trained(net.teacher, seed) if net.teacher else None,
        seed=seed,
    )
    if kept is not None:
        save(kept, model, {"name": name}, x=torch.from_numpy(part.x[:64].copy()))
    return model


def _untrained(net: Net, part: Samples, seed: int, *, dense: nn.Module | None = None) -> nn.Module:
    """The net of a row before it is trained; ``dense``: the trained net that it starts from."""
    torch.manual_seed(seed)
    if net.sparse is None:
        return net.build(part, seed)
    return net.sparse(net.build(part, seed) if dense is None else dense.cpu(), part, seed)


def _recipe(name: str, seed: int) -> Recipe:
    """The row's recipe, shortened where a heavy net must do without a GPU and none is kept."""
    net = NETS[name]
    kept = _kept(name, seed, net.recipe)
    if not net.heavy or torch.cuda.is_available() or (kept is not None and kept.exists()):
        return net.recipe
    return replace(net.recipe, epochs=max(1, net.recipe.epochs // REDUCED))


def _kept(name: str, seed: int, recipe: Recipe) -> Path | None:
    """The file of a trained net, if nets are kept.

    Its name tells the recipe, by what differs from the default one, and those of all that it comes
    from.
    """
    folder = os.environ.get(KEPT)
    if not folder:
        return None
    usual, net = to_builtins(Recipe()), NETS[name]
    said = {key: value for key, value in to_builtins(recipe).items() if value != usual[key]}
    before = [_kept(each, seed, _recipe(each, seed)) for each in (net.start, net.teacher) if each]
    text = f"{name} {said} {[each.name for each in before if each]} {net.data}"
    place = f"{name.replace(',', '').replace(' ', '-')}-{seed}-{zlib.crc32(text.encode()):08x}"
    return Path(folder) / f"{place}.safetensors"


def _judged(name: str, seed: int) -> Found:
    """The net of a row on the test set and on its held-out samples."""
    net, model = NETS[name], _trained(name, seed)
    data = _data(net.data)
    logits = evaluate(model, data.test)
    last = accuracies(logits, data.test.y)[-1]
    _, held = hold_out(data.train, 0.1, seed=seed)
    held_logits = evaluate(model, held)
    held_out = accuracies(held_logits, held.y)[-1]
    balanced = balanced_accuracy(logits[-1].argmax(1), data.test.y)
    if not isinstance(model, MultiExit):
        return Found(last, held_out, balanced)
    costs = exit_macs(model, torch.from_numpy(data.test.x[:1].copy()))
    chosen = choose_thresholds(held_logits, held.y, max_drop=net.drop / 2, exit_macs=costs)
    routed = route(logits, data.test.y, chosen.thresholds)
    thresholds = dict(zip(model.after, chosen.thresholds, strict=True))
    return Found(
        routed.accuracy,
        held_out,
        balanced,
        1 - routed.shares[-1],
        last,
        *_faster(model, thresholds, data.test),
    )


def _faster(model: MultiExit, thresholds: dict[str, float], test: Samples) -> tuple[float, float]:
    """The time of the whole net over that with exits, in ONNX Runtime: 64 at a time, one by one."""
    images = test.x[:: len(test) // TIMED]
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(model, images[:64], Path(folder) / "net.bundle")
    whole, exits = (
        Local.open(bundle, plan=Plan(bundle.net.last, early)) for early in ({}, thresholds)
    )
    works = {
        "whole 64": functools.partial(_by, whole, images, 64),
        "exits 64": functools.partial(_by, exits, images, 64),
        "whole 1": functools.partial(_by, whole, images[::8], 1),
        "exits 1": functools.partial(_by, exits, images[::8], 1),
    }
    times = medians(works, seconds=8.0)
    in_batches, one_by_one = (times[f"whole {size}"] / times[f"exits {size}"] for size in (64, 1))
    return in_batches, one_by_one


def _by(net: Local, images: Floats, size: int) -> None:
    """Answer all ``images``, ``size`` at a time."""
    for start in range(0, len(images), size):
        net.answer(images[start : start + size])


def _row(name: str, found: Sequence[Found]) -> dict[str, Any]:
    """One row of the table: what its net is, and what the seeds reached."""
    net = NETS[name]
    shape = _data(net.data).test.x.shape[1:]
    model = _untrained(net, hold_out(_data(net.data).train, 0.1)[0], 0)
    layers = summary(model, torch.zeros(1, *shape))
    row = {
        "row": name,
        "data": net.data.split()[0],
        "weights": sum(layer.weights for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "epochs": _recipe(name, 0).epochs,
        "kilojoules": _joules(name, sum(layer.macs for layer in layers)) / 1000,
        "seeds": len(found),
    }
    if found:
        each = [seed.accuracy for seed in found]
        row |= {"accuracy": statistics.mean(each), "spread": max(each) - min(each)}
        row["held_out"] = statistics.mean(seed.held_out for seed in found)
        row["balanced"] = statistics.mean(seed.balanced for seed in found)
        row["each"] = " ".join(f"{100 * share:.2f}" for share in each)
    if found and net.early is not None:
        row["early"] = statistics.mean(seed.early for seed in found)
        row["below_last"] = statistics.mean(seed.last - seed.accuracy for seed in found)
        row["faster_in_batches"] = statistics.mean(seed.faster for seed in found)
        row["faster_one_by_one"] = statistics.mean(seed.one_by_one for seed in found)
    if net.parent:
        row["speed"] = _speed(net, model, shape)
    return row


def _joules(name: str, macs: int) -> float:
    """What the training of a row costs by the energy model, without that of what it starts from."""
    net, taught = NETS[name], 0
    samples = round(0.9 * len(_data(net.data).train))
    if net.teacher:
        shape = _data(net.data).test.x.shape[1:]
        teacher = _untrained(NETS[net.teacher], hold_out(_data(net.data).train, 0.1)[0], 0)
        taught = sum(layer.macs for layer in summary(teacher, torch.zeros(1, *shape)))
    return training_joules(macs, samples, _recipe(name, 0).epochs, teacher=taught)


def _speed(net: Net, model: nn.Module, shape: tuple[int, ...]) -> float:
    """How many times faster than its dense parent it runs in ONNX Runtime, on one thread."""
    x = torch.rand(net.at, *shape)
    parent = NETS[net.parent].build(hold_out(_data(net.data).train, 0.1)[0], 0)
    works = {"dense": sessions(parent, x)[0], "sparse": sessions(model, x)[0]}
    times = medians(works, seconds=4.0)
    return times["dense"] / times["sparse"]


def _checks(name: str, rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of one row against what it must reach."""
    net, row, made = NETS[name], rows[name], list[tuple[str, float, str, bool]]()
    found = row.get("accuracy")
    beside = rows[net.parent].get("accuracy") if net.parent else None
    for key, least in zip(("weights", "macs"), net.fewer if net.parent else (), strict=False):
        ratio = rows[net.parent][key] / row[key]
        if least:
            made.append(
                (f"times fewer {key} than its parent", ratio, f">= {least:g}", ratio >= least)
            )
    if found is not None and net.least is not None:
        made.append(("accuracy", found, f">= {net.least}", found >= net.least))
    if found is not None and net.within is not None and beside is not None:
        goal = beside - net.within
        ok = found >= goal if net.within else found > goal
        made.append(
            (
                "accuracy against its parent's",
                found,
                f"{'>=' if net.within else '>'} {goal:.4f}",
                ok,
            )
        )
    if found is not None and net.uneven and beside is not None:
        goal, value = rows[net.parent]["balanced"], row["balanced"]
        made.append(("balanced accuracy", value, f">= {goal:.4f}", value >= goal))
    if found is not None and net.early is not None:
        made.append(("answered early", row["early"], f">= {net.early}", row["early"] >= net.early))
        made.append(
            (
                "below the last exit",
                row["below_last"],
                f"<= {net.drop}",
                row["below_last"] <= net.drop,
            )
        )
    if found is not None and net.sooner is not None:
        for key, how in (("faster_in_batches", "in batches"), ("faster_one_by_one", "one by one")):
            goal, value = net.sooner, row[key]
            made.append((f"speed with exits {how}", value, f">= {goal}", value >= goal))
    if net.faster is not None:
        made.append(
            (
                "speed against its parent's",
                row["speed"],
                f">= {net.faster}",
                row["speed"] >= net.faster,
            )
        )
    return [
        {"name": f"{name}: {what}", "value": value, "target": goal, "ok": ok}
        for what, value, goal, ok in made
    ]
