"""One run of a sweep, in a process of its own: train it, judge it, export it, write it down.

What it is worth is kept in its run directory (``worth.json``), beside the net as one ONNX file
(``whole.onnx``): the same sweep finds both again and does nothing twice.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from presplit.core.errors import PresplitError
from presplit.core.progress import listening
from presplit.core.sections import Data, Spec
from presplit.lab.sweep.found import Routed

if TYPE_CHECKING:
    from presplit.train.data import Dataset

WORTH, WHOLE = "worth.json", "whole.onnx"

Own = Callable[[str], object]


@dataclass(frozen=True)
class Task:
    """What a process needs to know: the spec with its seed, where it goes, what is asked of it.

    ``parent``: the process that started it and without which it stops after an epoch, so that no
    training goes on unseen; None on another machine.
    """

    number: int
    spec_json: bytes
    directory: Path
    max_drop: float
    threads: int
    own: Own | None = None
    parent: int | None = None

    @property
    def spec(self) -> Spec:
        """The spec, which travels as text."""
        return msgspec.json.decode(self.spec_json, type=Spec)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished run is worth, as its directory keeps it."""

    max_drop: float
    accuracy: Mapping[str, float]
    balanced_accuracy: Mapping[str, float]
    routed: Routed | None
    weights: int
    macs: int
    exit_macs: Mapping[str, int]
    bytes: int
    input: tuple[int, ...]
    train_s: float


@dataclass(frozen=True)
class Outcome:
    """How the task of that ``number`` ended: with what it is worth, or why not."""

    number: int
    kept: Kept | None = None
    reason: str = ""


class Quiet:
    """Listens and draws nothing: many runs at once are told together, by whoever started them."""

    def began(self, task: object) -> None:
        """Nothing."""

    def moved(self, task: object) -> None:
        """Nothing."""

    def ended(self, task: object) -> None:
        """Nothing."""

    def told(self, sentence: str) -> None:
        """Nothing."""


def do(task: Task) -> Outcome:
    """Do ``task``; whatever goes wrong in it is an outcome, so that the others go on."""
    from presplit.train.runs import take_part

    if task.parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    try:
        with listening(Quiet()):
            take_part(task.number, threads=task.threads)
            return Outcome(task.number, _done(task))
    except PresplitError as error:
        return Outcome(task.number, reason=str(error))
    except Exception as error:  # the user's code and torch may raise anything
        said = " ".join(str(error).split())[:300]
        return Outcome(task.number, reason=f"{type(error).__name__}: {said}")


def kept(task: Task) -> Kept | None:
    """What the finished run of ``task`` is worth, if it is there and was asked the same."""
    found = kept_in(task.directory)
    return found if found is not None and found.max_drop == task.max_drop else None


def kept_in(directory: Path) -> Kept | None:
    """What the finished run in ``directory`` is worth, if a sweep has written it down."""
    from presplit.train.runs import MODEL

    file = directory / WORTH
    try:
        if file.stat().st_mtime_ns < (directory / MODEL).stat().st_mtime_ns:
            return None  # it has been trained again since
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (directory / WHOLE).is_file() else None


@functools.lru_cache(1)
def loaded(data: Data) -> Dataset:
    """The data set of ``data``; that of the run before is kept, which most often is the same."""
    from presplit.train import runs

    return runs.loaded(data)


def _done(task: Task) -> Kept:
    """Train what ``task`` says, or go on with it, and give what it is worth."""
    from presplit.train import checkpoint, runs

    data = loaded(task.spec.data)
    began, seen = time.perf_counter(), list[runs.Run]()
    result = runs.train(
        task.spec,
        task.directory,
        own=task.own,
        resume=True,
        on_data=seen.append,
        on_epoch=lambda _: _stop_if_alone(task.parent),
        data=data,
    )
    took = time.perf_counter() - began
    run = seen[0] if seen else runs.read_run(task.directory, task.own, data=data)
    pieces, macs = runs.pieces_of(run)
    found = Kept(
        max_drop=task.max_drop,
        accuracy=result["accuracy"],
        balanced_accuracy=result["balanced_accuracy"],
        routed=_routed(run, result, task.max_drop, macs),
        weights=result["weights"],
        macs=macs[run.exit_names[-1]],
        exit_macs=macs,
        bytes=pieces.nbytes,
        input=tuple(int(size) for size in run.train.x.shape[1:]),
        train_s=round(took, 3),
    )
    checkpoint.write(task.directory / WHOLE, b"".join(pieces.whole(boundaries=False)))
    checkpoint.write(task.directory / WORTH, msgspec.json.encode(found))
    return found


def _routed(
    run: Any, result: dict[str, Any], drop: float, macs: Mapping[str, int]
) -> Routed | None:
    """What thresholds for that ``drop`` of accuracy give; None of a net without early exits."""
    from presplit.train import runs

    if len(macs) == 1:
        return None
    asked = {"max_drop": drop}
    rows = [row for row in result["thresholds"] if row["goal"] == asked]
    row = rows[0] if rows else runs.judge(run, goal=("max_drop", drop))["thresholds"][0]
    spent = sum(share * macs[name] for name, share in row["shares"].items())
    return Routed(
        max_drop=drop,
        thresholds=row["thresholds"],
        shares=row["shares"],
        accuracy=row["accuracy"],
        macs=spent,
    )


def _stop_if_alone(parent: int | None) -> None:
    """End this process if the one that started it is gone; its run can be gone on with."""
    if parent is not None and os.getppid() != parent:
        os._exit(1)
