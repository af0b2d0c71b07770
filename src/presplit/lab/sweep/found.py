"""What a sweep found: ``sweep.json`` in its directory, written anew after every run.

- ``name``; ``spec``: the spec of the command as a table of tables; ``grid``: each key with its
  values as they were written; ``seeds``: the seed of each repetition.
- ``rows``: one for each run (`Row`): the point, its ``settings``, the ``seed``, the ``run``
  directory relative to the sweep's, its ``state`` ("waiting", "finished" or "failed", then with a
  ``reason``), and of a finished one what it is worth: ``accuracy`` of each exit on the test set,
  ``routed`` (what answers that leave at the first sure exit are worth: thresholds chosen on
  held-out samples for ``max_drop``, their accuracy and shares on the test set, mean MACs),
  ``weights``, ``macs`` of one answer at the last exit and ``exit_macs`` of each, ``bytes`` of the
  exported pieces, ``seconds`` (median time of one sample in ONNX Runtime on one thread; None until
  it is measured).
- ``points``: one for each point (`Worth`): the same over its finished runs as `Estimate`, and
  ``difference`` (accuracy of each exit less that of the dense net of the same seed, seed by seed).
- ``baseline``: the point of each point's dense net, by name.
- ``samples``: how many there are to train with, held out, and to test with.
- ``measured``: how times were measured, None if they were not; ``versions``, ``machine``,
  ``command``.

Accuracies are shares in 0..1, times seconds. The same rows are in ``sweep.csv``, the points in
``points.csv``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from presplit.core.errors import DataError

SWEEP, ROWS, POINTS = "sweep.json", "sweep.csv", "points.csv"


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """What early exits with thresholds give, on the test set."""

    max_drop: float
    thresholds: Mapping[str, float]
    shares: Mapping[str, float]
    accuracy: float
    macs: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a sweep; see the head of this file."""

    point: str
    settings: Mapping[str, Any]
    seed: int
    dense: bool
    run: str
    state: Literal["waiting", "finished", "failed"] = "waiting"
    reason: str | None = None
    accuracy: Mapping[str, float] = {}
    balanced_accuracy: Mapping[str, float] = {}
    routed: Routed | None = None
    weights: int | None = None
    macs: int | None = None
    exit_macs: Mapping[str, int] = {}
    bytes: int | None = None
    seconds: float | None = None
    train_s: float | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over seeds.

    ``spread``: the standard deviation between seeds; ``low`` and ``high``: the 95 % interval of the
    mean by Student's t. All three are None for one seed, which says nothing of others.
    """

    mean: float
    n: int
    spread: float | None = None
    low: float | None = None
    high: float | None = None


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What the finished runs of a point are worth together."""

    point: str
    settings: Mapping[str, Any]
    dense: bool
    runs: int
    accuracy: Mapping[str, Estimate]
    difference: Mapping[str, Estimate]
    routed_accuracy: Estimate | None
    routed_difference: Estimate | None
    routed_macs: Estimate | None
    weights: float
    macs: float
    bytes: float
    seconds: Estimate | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All of a sweep; see the head of this file."""

    name: str
    spec: Mapping[str, Any]
    grid: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    points: tuple[Worth, ...]
    baseline: Mapping[str, str]
    samples: Mapping[str, int]
    measured: Mapping[str, Any] | None
    versions: Mapping[str, str]
    machine: str
    command: str

    def to_builtins(self) -> dict[str, Any]:
        """As ``sweep.json`` has it."""
        return msgspec.to_builtins(self)

    @property
    def failed(self) -> list[Row]:
        """The runs that could not be finished."""
        return [row for row in self.rows if row.state == "failed"]


def read_found(directory: Path) -> Found:
    """What the sweep in ``directory`` found; raises `DataError` if there is none that is whole."""
    file = directory / SWEEP
    try:
        return msgspec.json.decode(file.read_bytes(), type=Found)
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{file}: not what presplit sweep writes ({error}); run the same sweep again, which "
            "trains nothing that is finished"
        ) from error
