"""The promise that a training which is killed goes on as if it had not been."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._faults import Row, Rows

FORKS = multiprocessing.get_context("forkserver")


def train(folder: Path, epochs: int) -> None:
    """One training in a process of its own: it says each epoch and leaves its net behind."""
    import torch

    from presplit.train import Recipe, add_exits, fit, sparsify
    from presplit.train.data import digits, hold_out
    from presplit.train.zoo import mlp

    torch.set_num_threads(1)
    torch.manual_seed(0)
    samples, held = hold_out(hold_out(digits().train, 0.2)[1], 0.2)
    model = add_exits(sparsify(mlp([64, 64, 64, 10]), density=0.25), ["relu1"])
    recipe = Recipe(epochs=epochs, batch=64, ema=0.9, patience=epochs)
    with (folder / "epochs").open("a") as said:

        def told(epoch: object) -> None:
            print(getattr(epoch, "number"), file=said, flush=True)  # noqa: B009

        state = folder / "state.safetensors"
        fit(model, samples, recipe=recipe, validation=held, seed=3, state=state, on_epoch=told)
    torch.save(model.state_dict(), folder / "net.part")
    (folder / "net.part").rename(folder / "net.pt")  # a kill may come here too


def resumed(quick: bool) -> Iterator[Row]:
    """Promise 14."""
    kills, epochs = (3, 6) if quick else (200, 60)
    FORKS.set_forkserver_preload(["presplit.train", "presplit.train.data", __name__])
    with tempfile.TemporaryDirectory() as folder:
        whole = _whole(Path(folder), epochs)
        chance, killed, nets, lost, failed = random.Random(0), 0, [], 0, 0
        while killed < kills:
            place = Path(folder) / f"killed{len(nets)}"
            place.mkdir()
            more, steps, broken = _killed(place, epochs, kills - killed, chance)
            killed, lost, failed = killed + more, max(lost, steps), failed + broken
            nets.append(_bits(place))
    same = sum(net == whole for net in nets)
    yield Row(
        14,
        "a training that is killed anywhere, also while it saves, always goes on",
        f"{failed} could not; at most {lost} epochs were done twice",
        killed,
        failed == 0 and lost <= 1,
    )
    yield Row(
        14,
        "its net has the bits of one that was never killed",
        f"{same} of {len(nets)}",
        len(nets),
        same == len(nets),
    )


def _whole(folder: Path, epochs: int) -> dict[str, bytes]:
    """The net of a training that nobody killed."""
    place = folder / "whole"
    place.mkdir()
    process = FORKS.Process(target=train, args=(place, epochs))
    process.start()
    process.join()
    return _bits(place)


def _killed(place: Path, epochs: int, kills: int, chance: random.Random) -> tuple[int, int, int]:
    """Train with so many kills at most.

    How many there were, the most epochs that one of them cost, and how often it did not go on.
    """
    killed = failed = 0
    while not (place / "net.pt").exists():
        begun = len(_epochs(place))
        process = FORKS.Process(target=train, args=(place, epochs))
        process.start()
        if killed < kills:
            while process.is_alive() and len(_epochs(place)) == begun:
                time.sleep(0.002)
            process.join(chance.uniform(0, 0.06))
            if process.is_alive():
                process.kill()
                killed += 1
        process.join()
        if process.exitcode not in (0, -9):
            failed += 1
            break
    numbers = _epochs(place)
    # An epoch is told after it was saved: none is told twice, one may have ended untold.
    jumps = [
        later - number for number, later in zip([0, *numbers], [*numbers, epochs + 1], strict=True)
    ]
    return killed, max(jumps, default=1) - 1, failed + (min(jumps, default=1) < 1)


def _epochs(place: Path) -> list[int]:
    """The epochs that were told so far; a line may be cut by a kill."""
    file = place / "epochs"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _bits(place: Path) -> dict[str, bytes]:
    """A net's weights, bit by bit; none, if there is no net."""
    import torch

    file = place / "net.pt"
    if not file.exists():
        return {}
    weights = torch.load(file, weights_only=True)
    return {name: value.numpy().tobytes() for name, value in weights.items()}


PARTS: dict[int, Rows] = {14: resumed}
