"""A training that is stopped or killed goes on as if it had not been, bit for bit.

Several processes train as one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from presplit.core.errors import DataError, SpecError
from presplit.train import Epoch, Recipe, add_exits, evaluate, fit, sparsify
from presplit.train.data import Samples, digits, hold_out
from presplit.train.fitting import checkpoint, distributed
from presplit.train.fitting.trainer import Trainer
from presplit.train.zoo import mlp

RECIPES = {
    "plain": Recipe(epochs=4, batch=64),
    "moving average, momentum": Recipe(
        epochs=4, batch=64, optimiser="sgd", rate=0.05, ema=0.9, schedule="cosine"
    ),
    "keeps the best": Recipe(
        epochs=4, batch=64, optimiser="adamw", weight_decay=0.1, patience=3, schedule="constant"
    ),
    "the net, then the heads": Recipe(epochs=4, batch=64, regime="separate", augment="shift_flip"),
    "the net, then everything": Recipe(
        epochs=5, batch=64, regime="mixed", backbone_epochs=2, self_distil=0.5
    ),
    "distils": Recipe(epochs=3, batch=64, distil=0.5),
    "distils what is augmented": Recipe(epochs=3, batch=64, distil=0.5, augment="shift"),
    "mixes, with weights": Recipe(
        epochs=3, batch=64, distil=0.5, mixup=0.3, cutmix=1.0, class_weights="balanced"
    ),
    "augments and draws evenly": Recipe(
        epochs=3,
        batch=64,
        sampling="balanced",
        augment="photos+rotate+noise",
        bf16=True,
        cutmix=1.0,
    ),
    "in half precision": Recipe(
        epochs=3, batch=64, bf16=True, label_smoothing=0.1, schedule="inverse_time", decay=0.1
    ),
}


@pytest.fixture(scope="module")
def parts() -> tuple[Samples, Samples]:
    return hold_out(hold_out(digits().train, 0.2)[1], 0.2)


def net() -> nn.Module:
    """Convolutions, batch normalisation, dropout and an exit.

    These are all that has a state or draws random numbers.
    """
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
    ]
    ends = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10)]
    return add_exits(sparsify(nn.Sequential(*layers, *ends), layers={"3": 0.5}), ["2"])


class Restless(nn.Module):
    """A net that draws random numbers when it is evaluated, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(nn.functional.dropout(x, 0.2, training=True))


class Stopped(Exception):
    """As if the user had pressed Ctrl-C after an epoch."""


def stop_after(number: int) -> Any:
    def told(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Stopped

    return told


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("name", RECIPES)
def test_a_stopped_training_goes_on_bit_for_bit(
    name: str, parts: tuple[Samples, Samples], tmp_path: Path
) -> None:
    """Bit for bit, because the same kernels run in the same process."""
    train, held = parts
    whole, teacher = net(), net()
    evaluate(teacher, held)  # its exit has a size now, as that of a trained one has
    recipe = RECIPES[name]
    asked = {"recipe": recipe, "validation": held, "seed": 3}
    asked |= {"teacher": teacher} if recipe.distil else {}

    def keep(epoch: Epoch) -> None:
        shutil.copy(tmp_path / "state.safetensors", tmp_path / f"{epoch.number}.safetensors")

    state = tmp_path / "state.safetensors"
    history = fit(whole, train, **asked, state=state, on_epoch=keep)
    for number in range(1, RECIPES[name].epochs):
        model = net()
        found = fit(model, train, **asked, state=tmp_path / f"{number}.safetensors")
        assert same(model, whole), f"stopped after epoch {number}"
        assert [(e.number, e.loss, e.accuracy) for e in found] == [
            (e.number, e.loss, e.accuracy) for e in history
        ]
    plain = net()
    fit(plain, train, **asked)
    assert same(plain, whole), "keeping the state changes nothing"


def test_a_net_that_is_never_the_same_goes_on_bit_for_bit(
    parts: tuple[Samples, Samples], tmp_path: Path
) -> None:
    whole, model, state = Restless(), Restless(), tmp_path / "state.safetensors"
    asked = {"recipe": Recipe(epochs=3, batch=64, augment="shift"), "validation": parts[1]}
    fit(whole, parts[0], **asked)
    with pytest.raises(Stopped):
        fit(Restless(), parts[0], **asked, state=state, on_epoch=stop_after(1))
    fit(model, parts[0], **asked, state=state)
    assert same(model, whole)


def test_a_training_from_a_loader_goes_on_bit_for_bit(
    parts: tuple[Samples, Samples], tmp_path: Path
) -> None:
    x, y = (torch.from_numpy(part.copy()) for part in (parts[0].x, parts[0].y))

    def loader() -> DataLoader[Any]:
        return DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True)

    whole, model, state = net(), net(), tmp_path / "state.safetensors"
    fit(whole, loader(), recipe=RECIPES["plain"])
    with pytest.raises(Stopped):
        fit(net(), loader(), recipe=RECIPES["plain"], state=state, on_epoch=stop_after(2))
    fit(model, loader(), recipe=RECIPES["plain"], state=state)
    assert same(model, whole)


def test_a_state_of_another_training_or_a_damaged_one_is_refused(
    parts: tuple[Samples, Samples], tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"
    fit(mlp([64, 16, 10]), parts[0], epochs=1, state=state)
    with pytest.raises(
        DataError, match="it is of another training: seed was 0, now it is 1; train as before"
    ):
        fit(mlp([64, 16, 10]), parts[0], epochs=1, state=state, seed=1)
    with pytest.raises(DataError, match="it is of another net"):
        fit(mlp([64, 17, 10]), parts[0], epochs=1, state=state)
    raw = state.read_bytes()
    for damaged in (b"", raw[:100], raw[: len(raw) // 2]):
        state.write_bytes(damaged)
        with pytest.raises(
            DataError, match="not the state of a training|not a safetensors file, or a damaged one"
        ):
            fit(mlp([64, 16, 10]), parts[0], epochs=1, state=state)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("about", "[]"),
        ("about", "null"),
        ("history", '[{"number": 1}]'),
        ("groups", "[]"),
        ("plain", '{"0": 1}'),
        ("plain", '{"zero": {}}'),
        ("random", torch.zeros(3, dtype=torch.uint8)),
        ("random", torch.zeros(5056)),
        ("order", torch.zeros(5056, dtype=torch.uint8)),
        ("recognised.shape", torch.tensor([-64])),
    ],
    ids=str,
)
def test_a_state_whose_parts_have_been_changed_is_refused_in_a_sentence(
    part: str, value: Any, parts: tuple[Samples, Samples], tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"
    with pytest.raises(Stopped):
        fit(mlp([64, 10]), parts[0], epochs=2, state=state, on_epoch=stop_after(1))
    tensors, header = checkpoint.read_tensors(state)
    if isinstance(value, str):
        header[part] = value
    else:
        tensors[part] = value
    checkpoint.write_tensors(state, tensors, header)
    before = state.read_bytes()
    with pytest.raises(DataError, match=f"{state}: .*anew"):
        fit(mlp([64, 10]), parts[0], epochs=2, state=state)
    assert state.read_bytes() == before


def test_the_samples_are_read_once_to_recognise_the_net_by(
    parts: tuple[Samples, Samples],
) -> None:
    trainer = Trainer(mlp([64, 10]), parts[0], epochs=1)
    first, x = trainer.state(), trainer._batches.first[0]
    x.fill_(float("nan"))  # whoever read them again would find another range
    assert torch.equal(
        trainer.state().tensors["recognised.limits"], first.tensors["recognised.limits"]
    )


FORKS = multiprocessing.get_context("forkserver")
"""Processes that have torch already."""


def train_in_a_process(state: Path, done: Path, epochs: int) -> None:
    """Says each epoch as it ends; `done` gets the net."""
    torch.set_num_threads(1)
    train, held = hold_out(hold_out(digits().train, 0.2)[1], 0.2)
    model, recipe = net(), Recipe(epochs=epochs, batch=64, ema=0.9, patience=epochs)

    def told(epoch: Epoch) -> None:
        with (state.parent / "epochs").open("a") as file:
            file.write(f"{epoch.number}\n")

    fit(model, train, recipe=recipe, validation=held, seed=3, state=state, on_epoch=told)
    torch.save(model.state_dict(), done.with_suffix(".part"))
    done.with_suffix(".part").rename(done)  # a kill may come here too


@pytest.mark.parametrize(
    ("kills", "epochs"),
    [pytest.param(*each, marks=pytest.mark.long) for each in ((2, 8), (30, 60))],
)
def test_trainings_killed_at_random_moments_lose_an_epoch_at_most_and_end_with_the_same_bits(
    kills: int, epochs: int, tmp_path: Path
) -> None:
    """SIGKILL comes while saving, too.

    Each time training goes on from the last epoch that was saved.
    """
    FORKS.set_forkserver_preload(["presplit.train", "presplit.train.data", __name__])
    chance, killed, nets = random.Random(0), 0, []
    while killed < kills or len(nets) < 2:
        folder = tmp_path / str(len(nets))
        folder.mkdir()
        done, told = folder / "net.pt", folder / "epochs"
        while not done.exists():
            begun = len(told.read_text().split()) if told.exists() else 0
            process = FORKS.Process(
                target=train_in_a_process, args=(folder / "state.safetensors", done, epochs)
            )
            process.start()
            while (
                process.is_alive()
                and killed < kills
                and (not told.exists() or len(told.read_text().split()) == begun)
            ):
                time.sleep(0.002)
            process.join(chance.uniform(0, 0.06) if killed < kills else None)
            if process.is_alive():
                process.kill()
                killed += 1
            process.join()
            assert process.exitcode in (0, -9)
        numbers = [int(line) for line in told.read_text().split()]
        ends = [0, *numbers, epochs + 1]
        steps = {later - number for number, later in zip(ends, ends[1:], strict=False)}
        assert steps <= {1, 2}, (
            "an epoch is told after it was saved: none is told twice, one may end untold"
        )
        nets.append(torch.load(done, weights_only=True))
    assert all(torch.equal(nets[0][name], other[name]) for other in nets[1:] for name in other)


def curve_of(out: Path) -> None:
    """The losses and accuracies of a training that may be shared, written by the first process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, held = hold_out(hold_out(digits().train, 0.3)[1], 0.2)
    model = add_exits(sparsify(mlp([64, 64, 64, 10]), density=0.25), ["relu1"])
    recipe = Recipe(epochs=4, batch=50, regime="mixed", ema=0.5, self_distil=0.2, distil=0.3)
    weighed = {"class_weights": tuple(range(1, 11)), "mixup": 0.3, "label_smoothing": 0.1}
    recipe = msgspec.structs.replace(recipe, **weighed, augment="noise", sampling="balanced")
    history = fit(model, train, recipe=recipe, validation=held, teacher=mlp([64, 16, 10]))
    if distributed.rank() == 0:
        found = [distributed.count(), [(e.loss, e.accuracy) for e in history]]
        out.write_text(json.dumps(found))
    distributed.leave()


def one_of_two(number: int, port: int, out: Path) -> None:
    """A process as ``torchrun`` starts it."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "LOCAL_RANK": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    curve_of(out)


def agree(one: Path, two: Path) -> None:
    """The curve of two processes is that of one, but for sums in another order."""
    (alone, curve), (together, shared) = (json.loads(file.read_text()) for file in (one, two))
    assert (alone, together) == (1, 2)
    for (loss, accuracy), (other, seen) in zip(curve, shared, strict=True):
        assert loss == pytest.approx(other, rel=1e-4) and accuracy == pytest.approx(seen, abs=0.02)


@pytest.mark.long
def test_two_processes_give_the_curve_of_one_with_the_same_batch(tmp_path: Path) -> None:
    FORKS.set_forkserver_preload(["presplit.train", "presplit.train.data", __name__])
    curve_of(tmp_path / "one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    both = [FORKS.Process(target=one_of_two, args=(k, port, tmp_path / "two")) for k in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    agree(tmp_path / "one", tmp_path / "two")


@pytest.mark.long
def test_torchrun_shares_a_training(tmp_path: Path) -> None:
    curve_of(tmp_path / "one")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "import pathlib, test_resume\n"
    code += f"test_resume.curve_of(pathlib.Path({str(tmp_path / 'two')!r}))\n"
    (tmp_path / "train.py").write_text(code)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*launch, str(tmp_path / "train.py")], check=True, timeout=300)
    agree(tmp_path / "one", tmp_path / "two")


def test_processes_that_nobody_started_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = Samples(torch.zeros(4, 2).numpy(), torch.zeros(4).numpy())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SpecError, match="WORLD_SIZE is 2, .* start them with torchrun"):
        fit(mlp([2, 2]), samples, epochs=1)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SpecError, match="WORLD_SIZE: expected a whole number .*, got 'two'"):
        fit(mlp([2, 2]), samples, epochs=1)
