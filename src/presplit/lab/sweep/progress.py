"""How far the runs of a sweep are, as their directories say, told while they are trained."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from presplit.core import units
from presplit.core.bar import clock
from presplit.core.progress import advance, doing, tell
from presplit.core.sections import Spec
from presplit.lab.sweep.found import Row
from presplit.lab.sweep.task import Task

EVERY_S = 0.5
"""How often is looked how far the runs are."""


@contextmanager
def following(tasks: Sequence[Task], of: int) -> Generator[Callable[[Row], None]]:
    """What is to be told of every run that ends, of ``tasks`` that are left of so many.

    While the block lasts, it is told how many of their epochs are done.
    """
    total = sum(epochs_of(task.spec) for task in tasks)
    ended, over = of - len(tasks), threading.Event()
    if ended and tasks:
        tell(f"{ended} of {of} runs are finished already")
    with doing("training", total, "epochs", done=sum(map(epochs_done, tasks))) as work:

        def look() -> None:
            done = min(total, sum(map(epochs_done, tasks)))
            if not work.note:  # until the first epoch ends libraries and data are loaded
                work.first, work.began = float(done), time.monotonic()
            if done != work.done:
                advance(done - work.done, note=f"{ended} of {of} runs")

        def follow() -> None:
            while not over.wait(EVERY_S):
                look()

        def note(row: Row) -> None:
            nonlocal ended
            ended += 1
            look()
            advance(0, note=f"{ended} of {of} runs")
            left = work.left_s(time.monotonic())
            rest = f"; about {clock(left)} left" if left and ended < of else ""
            tell(f"run {ended} of {of}: {_told(row)}{rest}")

        # Whoever listens here is known to the thread only in this context.
        follower = threading.Thread(
            target=contextvars.copy_context().run, args=(follow,), daemon=True
        )
        follower.start()
        try:
            yield note
        finally:
            over.set()
            follower.join()


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


def _told(row: Row) -> str:
    """How one run ended."""
    if row.state == "failed":
        return f"{row.point}, seed {row.seed} failed: {row.reason}"
    accuracy = units.percent(row.accuracy["final"])
    took = "" if row.train_s is None else f" after {clock(row.train_s)}"
    return f"{row.point}, seed {row.seed}: {accuracy} right on the test set{took}"
