"""What a run's directory says of the run, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from presplit.core.costs import Device
from presplit.core.errors import DataError, SpecError
from presplit.core.spec import Spec, read_spec
from presplit.core.types import Net
from presplit.report.pictures import Connections
from presplit.report.strip import Cost

TIMING = "timing.json"
"""Where a run's directory keeps what an answer takes (`Timed`)."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights, and what it would be with every connection."""

    name: str
    size: str
    pattern: str
    weights: int
    dense_weights: int
    macs: int
    dense_macs: int


@dataclass(frozen=True)
class Made:
    """What a run's net is made of: its row of segments, its layers, its sparse patterns."""

    net: Net
    segments: Sequence[Cost]
    layers: Sequence[Layer]
    sparse: Sequence[Connections]


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What one sample takes, as ``timing.json`` of a run keeps it.

    Medians in seconds, ``dense_s`` of the dense parent that was timed in turn with it, None of a
    net that is dense itself. ``how`` is what `presplit.lab.sweep.timing` says of the measuring,
    ``processor`` on what it was.
    """

    seconds: float
    dense_s: float | None
    how: Mapping[str, Any]
    processor: str


@dataclass(frozen=True)
class RunFacts:
    """All that is known of a run.

    ``result`` is what ``result.json`` holds (see `presplit.train.runs.judge`), ``epochs`` the lines
    of ``metrics.jsonl``, ``parent_epochs`` those of its dense parent, ``origin`` what
    ``versions.json`` says; ``made`` is None where the net could not be built, for the reason
    ``unknown``; ``timed`` None where its time is not known, for the reason ``untimed``. Energy is
    told for ``device``.
    """

    directory: Path
    spec: Spec
    result: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    parent_epochs: Sequence[Mapping[str, Any]]
    origin: Mapping[str, str]
    made: Made | None = None
    unknown: str = ""
    timed: Timed | None = None
    untimed: str = ""
    device: Device | None = None


def read_run_facts(directory: Path) -> RunFacts:
    """The facts in the directory of a finished run, without what its net is made of.

    Raises `DataError` for a file that is missing or damaged.
    """
    return RunFacts(
        directory,
        read_spec(directory / "spec.json"),
        _read(directory / "result.json", dict[str, Any]),
        _lines(directory / "metrics.jsonl"),
        _lines(directory / "teacher" / "metrics.jsonl"),
        _read(directory / "versions.json", dict[str, str]),
        timed=_kept(directory),
    )


def said(spec: Spec) -> dict[str, Any]:
    """The keys of a spec whose values are not the defaults, as ``section.key``.

    >>> said(Spec(seed=3))
    {'seed': 3}
    """
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, msgspec.Struct):
            tag = value.__struct_config__.tag
            kind = {f"{field.name}.kind": tag} if tag and value != _default(field) else {}
            found |= kind | {
                f"{field.name}.{inner.name}": _plain(getattr(value, inner.name))
                for inner in msgspec.structs.fields(value)
                if getattr(value, inner.name) != _default(inner)
            }
        elif value != _default(field):
            found[field.name] = _plain(value)
    return found


def _default(field: Any) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _kept(directory: Path) -> Timed | None:
    """The times that an earlier report found, unless the net was trained again since."""
    file, net = directory / TIMING, directory / "model.safetensors"
    try:
        if file.stat().st_mtime_ns < net.stat().st_mtime_ns:
            return None
        return msgspec.json.decode(file.read_bytes(), type=Timed)
    except (OSError, msgspec.MsgspecError):
        return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; none where it is not there, and none after a torn one."""
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    for line in path.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError:
            break
    return found


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, SpecError) as error:
        raise DataError(f"{path}: cannot be read as the file of a run ({error})") from error
