"""A run: from a spec to a directory with all that is needed to repeat, evaluate and export it.

``spec.json`` (the resolved spec), ``versions.json``, ``metrics.jsonl`` (one line an epoch),
``model.safetensors`` and ``result.json``; ``state.safetensors`` while it is not finished;
``teacher/`` if the dense parent was trained first. A run is read back by building the net from its
spec and filling it from the checkpoint, patterns included.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

import presplit
from presplit.core.errors import DataError
from presplit.core.spec import Spec, read_spec, spec_json
from presplit.train.fitting import checkpoint
from presplit.train.fitting.resume import Epoch
from presplit.train.runs.build import Own, Run, build

MODEL, METRICS, RESULT = "model.safetensors", "metrics.jsonl", "result.json"
STATE, TEACHER = "state.safetensors", "teacher"


def read_run(directory: str | Path, own: Own | None = None) -> Run:
    """The trained net of the run in ``directory``, with ``own`` as for `build`.

    Raises `DataError` if it is not a finished run, or its net's code has changed so that it answers
    otherwise.
    """
    directory = Path(directory)
    if not (directory / "spec.json").is_file() or not (directory / MODEL).is_file():
        cure = (
            "--resume finishes it" if (directory / STATE).is_file() else "presplit train makes one"
        )
        raise DataError(
            f"{directory}: not a finished run (spec.json and {MODEL} are expected); {cure}"
        )
    run = build(read_spec(directory / "spec.json"), own)
    checkpoint.restore(directory / MODEL, run.model)
    run.model.eval()
    return run


def begin(spec: Spec, directory: Path) -> None:
    """An empty run; what an older one left that belongs to its training is gone."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (MODEL, RESULT, STATE):
            (directory / name).unlink(missing_ok=True)
        shutil.rmtree(directory / TEACHER, ignore_errors=True)
        (directory / METRICS).write_bytes(b"")
        (directory / "versions.json").write_bytes(msgspec.json.encode(versions()))
        (directory / "spec.json").write_bytes(spec_json(spec))
    except OSError as error:
        raise DataError(f"{directory}: the run cannot be written ({error.strerror})") from error


def same_spec(directory: Path, spec: Spec) -> None:
    """Raise `DataError` if the run in ``directory`` is of another spec."""
    own, asked = (msgspec.to_builtins(each) for each in (read_spec(directory / "spec.json"), spec))
    for key, before, now in _differences(own, asked):
        raise DataError(
            f"{directory}: the run there is of another spec: {key} was {before!r}, now it is "
            f"{now!r}; resume it as it "
            "was begun, or leave --resume out to begin anew"
        )


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


def line(epoch: Epoch) -> bytes:
    """One line of ``metrics.jsonl``."""
    return msgspec.json.encode(asdict(epoch)) + b"\n"


def versions() -> dict[str, str]:
    """What a run was made with."""
    return {
        "presplit": presplit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
