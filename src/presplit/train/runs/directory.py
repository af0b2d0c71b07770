"""The directory of a run: all that is needed to repeat, evaluate and export it.

``spec.json`` (the whole spec), ``versions.json`` (and by which command, where and when),
``metrics.jsonl`` (one line an epoch), ``model.safetensors`` and ``result.json``; ``teacher/`` if
the dense parent was trained first. A run
is read back by building the net from its spec and filling it from the checkpoint, patterns
included.

A run that is being trained lies in ``unfinished/``, with its ``state.safetensors`` and the dense
net that it began with, if any, in ``start.safetensors``; the finished run that it replaces stays
readable beside it. When the new one is whole, its folder is renamed
``replacing/``, at one stroke; from then on its files are the run's, and they move up one by one. A
crash at any moment leaves one whole run, the old or the new.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

import presplit
from presplit.core.errors import DataError
from presplit.core.processor import processor
from presplit.core.spec import Spec, read_spec, spec_json
from presplit.train.data import Dataset
from presplit.train.fitting import checkpoint, distributed
from presplit.train.fitting.resume import Epoch
from presplit.train.runs.build import Own, Run, build

SPEC, VERSIONS, METRICS = "spec.json", "versions.json", "metrics.jsonl"
MODEL, RESULT, REPORT = "model.safetensors", "result.json", "report.html"
STATE, START, TEACHER = "state.safetensors", "start.safetensors", "teacher"
UNFINISHED, REPLACING = "unfinished", "replacing"
ANYWHERE = ("model.factory",)
"""Keys in which a run that goes on may differ: where the code lies is the user's word each time."""


def read_run(directory: str | Path, own: Own | None = None, *, data: Dataset | None = None) -> Run:
    """The trained net of the run in ``directory``, with ``own`` as for `build`.

    No code that the run names is run: a net of one's own comes from ``own``. ``data``: its data
    set, where it is loaded already. Raises `DataError` if
    it is not a finished run, or its net's code has changed so that it answers otherwise.
    """
    directory = Path(directory)
    refuse_unfinished(directory)
    run = build(read_spec(at(directory, SPEC)), own, data=data)
    checkpoint.restore(at(directory, MODEL), run.model)
    run.model.eval()
    return run


def is_finished(directory: Path) -> bool:
    """Whether there is a whole run in ``directory``."""
    return all(os.path.isfile(at(directory, name)) for name in (SPEC, MODEL))


def refuse_unfinished(directory: Path) -> None:
    """Raise `DataError` unless there is a whole run in ``directory``."""
    if not is_finished(directory):
        is_begun = os.path.isfile(directory / UNFINISHED / SPEC)
        cure = "--resume finishes it" if is_begun else "presplit train makes one"
        raise DataError(
            f"{directory}: not a finished run ({SPEC} and {MODEL} are expected); {cure}"
        )


def spec_file(directory: Path) -> Path | None:
    """The spec of the run with which ``--resume`` would go on, or that it would find finished."""
    unfinished = directory / UNFINISHED / SPEC
    if os.path.isfile(unfinished):
        return unfinished
    return at(directory, SPEC) if is_finished(directory) else None


def begin(spec: Spec, directory: Path, start: nn.Module | None) -> None:
    """An empty run in ``directory``'s folder for what is unfinished.

    ``start``, the dense net that it begins with, is kept there until the run is whole: whatever
    becomes of where it came from, the run can go on. Raises `DataError` if it cannot be written;
    what was finished stays as it is.
    """
    place = directory / UNFINISHED
    with _written(directory):
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
    with tidied(directory):
        checkpoint.write(place / METRICS, b"")
        checkpoint.write(place / VERSIONS, msgspec.json.encode(versions() | origin()))
        if start is not None:
            checkpoint.save(place / START, start)
        checkpoint.write(place / SPEC, spec_json(spec))


@contextlib.contextmanager
def tidied(directory: Path) -> Iterator[None]:
    """If what is done inside fails before an epoch was trained, leave nothing behind."""
    place = directory / UNFINISHED
    try:
        yield
    except BaseException:
        metrics = place / METRICS
        is_trained = metrics.exists() and metrics.stat().st_size > 0
        if distributed.rank() == 0 and not is_trained and not (place / TEACHER).exists():
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):  # it was there before, with other things in it
                directory.rmdir()
        raise


def note(epoch: Epoch, metrics: Path) -> None:
    """A line at the end of ``metrics``; raises `DataError` if it cannot be written."""
    try:
        with metrics.open("ab") as file:
            file.write(line(epoch))
    except OSError as error:
        raise DataError(f"{metrics}: cannot be written ({error.strerror})") from error


def line(epoch: Epoch) -> bytes:
    """One line of ``metrics.jsonl``."""
    return msgspec.json.encode(asdict(epoch)) + b"\n"


def result_json(result: dict[str, Any]) -> bytes:
    """``result.json``: indented, each list of numbers in one line.

    >>> print(result_json({"confusion": [[1, 2], [3, 4]]}).decode(), end="")
    {
      "confusion": [
        [1, 2],
        [3, 4]
      ]
    }
    """
    text = msgspec.json.format(msgspec.json.encode(result), indent=2)
    # A line break in a string is written as \\n, so this finds lists only.
    flat = re.sub(rb"\[\n([\d\s.,eE+-]+)\]", _in_one_line, text)
    return flat + b"\n"


def _in_one_line(found: re.Match[bytes]) -> bytes:
    return b"[" + b" ".join(found[1].split()) + b"]"


def take_place(directory: Path) -> None:
    """The unfinished run, which is whole now, is the run of ``directory`` from here on."""
    place, moving = directory / UNFINISHED, directory / REPLACING
    with _written(directory):
        (place / TEACHER).mkdir(exist_ok=True)  # an empty one stands for none, see `settle`
        place.rename(moving)
    settle(directory)


def settle(directory: Path) -> None:
    """Move up what is in the folder of the replacing run; a second call ends what a first began."""
    moving = directory / REPLACING
    if not os.path.isdir(moving):
        return
    with _written(directory):
        for name in (STATE, START):
            (moving / name).unlink(missing_ok=True)
        if (moving / TEACHER).is_dir():
            if (directory / TEACHER).exists():
                shutil.rmtree(directory / TEACHER)
            (moving / TEACHER).rename(directory / TEACHER)
        # What was reported of the run before is not of this one.
        (directory / REPORT).unlink(missing_ok=True)
        for file in sorted(moving.iterdir()):
            file.replace(directory / file.name)
        moving.rmdir()
    with contextlib.suppress(OSError):  # it is not empty: there is a teacher
        (directory / TEACHER).rmdir()


@contextlib.contextmanager
def _written(directory: Path) -> Iterator[None]:
    """What the file system refuses inside, in one sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{directory}: the run cannot be written ({error.strerror})") from error


def same_spec(file: Path, spec: Spec) -> None:
    """Raise `DataError` if the run whose spec is ``file`` is of another one."""
    before, now = (msgspec.to_builtins(each) for each in (read_spec(file), spec))
    for key, then, asked in _differences(before, now):
        if key not in ANYWHERE:
            raise DataError(
                f"{file.parent}: the run there is of another spec: {key} was {then!r}, now it is "
                f"{asked!r}; resume it as it was begun, or leave --resume out to begin anew"
            )


def at(directory: Path, name: str) -> Path:
    """Where a file of the finished run is, while a newer run takes its place too."""
    moving = directory / REPLACING / name
    return moving if os.path.exists(moving) else directory / name  # no error where it is hidden


def _differences(
    before: dict[str, Any], now: dict[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Each key that differs, as ``section.key``, with both values.

    >>> list(_differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}))
    [('a.c', 2, 3)]
    """
    for key, value in now.items():
        other = before.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(other, value, f"{place}{key}.")
        elif value != other:
            yield f"{place}{key}", other, value


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {
        "presplit": presplit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def origin() -> dict[str, str]:
    """By which command a run was begun, on which machine, and on which day."""
    started = Path(sys.argv[0] or "python")
    is_ours = started.name == "presplit" or started.parts[-2:] == ("presplit", "__main__.py")
    gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = f", {torch.cuda.get_device_name()}" if gpu is not None and gpu.type == "cuda" else ""
    command = shlex.join(["presplit", *sys.argv[1:]] if is_ours else [started.name])
    return {
        # A path may hold bytes that are no text.
        "command": command.encode(errors="backslashreplace").decode(),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}{name}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
