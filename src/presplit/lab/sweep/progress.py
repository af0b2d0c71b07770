"""How far the runs of a sweep are, as their directories say."""

from __future__ import annotations

from pathlib import Path

from presplit.core.sections import Spec
from presplit.lab.sweep.task import Task


def epochs_of(spec: Spec) -> int:
    """How many epochs a run of ``spec`` trains, those of a dense parent that it learns from too."""
    own = spec.training.epochs
    has_parent = spec.training.distil and spec.training.teacher is None and spec.start is None
    return 2 * own if has_parent else own


def epochs_done(task: Task) -> int:
    """How many of them are done; all once the run is finished."""
    from presplit.train.runs import MODEL, TEACHER, UNFINISHED

    begun = task.directory / UNFINISHED
    if not begun.is_dir():
        return epochs_of(task.spec) if (task.directory / MODEL).is_file() else 0
    teacher = begun / TEACHER
    return sum(map(_lines, (begun, teacher / UNFINISHED, teacher)))


def _lines(directory: Path) -> int:
    from presplit.train.runs.directory import METRICS

    try:
        return (directory / METRICS).read_bytes().count(b"\n")
    except OSError:
        return 0
