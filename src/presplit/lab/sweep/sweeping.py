"""A sweep from its grid to its tables: all is checked, then trained, then measured.

Every run is an ordinary run directory, ``POINT/seed-SEED`` in the sweep's, so the same command goes
on where an earlier one stopped: what is finished is read, what is half trained goes on. Points that
an earlier command asked for and this one does not stay there, and are not told.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from presplit.core.errors import DataError, PresplitError, SpecError
from presplit.core.processor import processor
from presplit.core.progress import doing, track
from presplit.core.spec import read_spec, spec_json
from presplit.lab.differing import differences
from presplit.lab.sweep import timing
from presplit.lab.sweep.found import SWEEP, Found, Row
from presplit.lab.sweep.grid import Axis, Point, grid, refuse
from presplit.lab.sweep.local import side_by_side
from presplit.lab.sweep.over_ray import connected, over_ray
from presplit.lab.sweep.progress import following
from presplit.lab.sweep.tables import write_tables
from presplit.lab.sweep.task import WHOLE, Kept, Outcome, Own, Task, do, kept, loaded
from presplit.lab.sweep.worth import worths

LOCK = ".lock"
EngineName = Literal["local", "ray", "here"]
Run = Callable[[Sequence[Task], Callable[[Task], Outcome]], Iterator[Outcome]]


@dataclass(frozen=True)
class Settings:
    """How a sweep is done.

    ``seeds``: repetitions of each point, from the spec's own seed on. ``jobs``: runs at a time,
    which divide the processors among them. ``max_drop``: what early exits with thresholds may lose
    of accuracy, 0..1. ``measure_s``: how long each net is timed at the end, 0 for not at all.
    ``engine``: where runs are trained: "local" in processes of this machine, "ray" on the machines
    of a Ray cluster, "here" one after another in this process, which is good for looking at a
    fault.
    """

    seeds: int = 1
    jobs: int = 1
    max_drop: float = 0.005
    measure_s: float = timing.SECONDS_EACH
    engine: EngineName = "local"

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.jobs < 1:
            raise SpecError(
                f"--seeds and --jobs: expected 1 or more, got {self.seeds} and {self.jobs}"
            )
        if not 0 <= self.max_drop < 1:
            raise SpecError(f"--max-drop: expected 0..1, got {self.max_drop:g}")

    @property
    def threads(self) -> int:
        """Of each run, so that all together have the processors."""
        return max(1, len(os.sched_getaffinity(0)) // self.jobs)


def engine_named(name: str) -> EngineName:
    """The engine of that name; raises `SpecError` if there is none."""
    if name not in ("local", "ray", "here"):
        raise SpecError(f"--engine: expected local, ray or here, got {name!r}")
    return name


def sweep(
    raw: Mapping[str, object],
    axes: Sequence[Axis],
    directory: str | Path,
    settings: Settings = Settings(),
    *,
    own: Own | None = None,
    command: str = "",
) -> Found:
    """Train and compare every point of ``axes`` over the spec ``raw``; see the head of this file.

    ``own`` gives a net of one's own, as for `presplit.train.runs.train`. Raises `SpecError` or
    `DataError`, before anything is trained, for points that cannot be, for runs in ``directory``
    that are of another spec, and if another sweep is at work there. A run that fails is told in
    its row, and the others go on.
    """
    directory = Path(directory)
    if settings.engine == "ray":
        connected()  # what is missing is told before the data is read
    points = grid(raw, axes)
    tasks = _tasks(points, directory, settings, own)
    _refuse_others(tasks, directory)
    samples = _check(points, own)
    with alone(directory):
        state = _State(_begun(raw, axes, points, tasks, settings, samples, command), directory)
        done = {task.number: found for task in tasks if (found := kept(task))}
        for number, found in done.items():
            state.note(Outcome(number, found))
        open_tasks = [task for task in tasks if task.number not in done]
        state.write()
        with following(open_tasks, len(tasks)) as ended:
            for outcome in _engine(settings, directory)(open_tasks, do):
                row = state.note(outcome)
                state.write()
                ended(row)
        if settings.measure_s and state.shapes:
            with doing(f"timing {len(state.shapes)} nets in turn"):
                state.measure(settings.measure_s)
            state.write()
        return state.found


class _State:
    """What has been found so far, and where it is written."""

    def __init__(self, found: Found, directory: Path) -> None:
        self.found, self.directory = found, directory
        self.shapes: dict[int, tuple[int, ...]] = {}

    def note(self, outcome: Outcome) -> Row:
        """The row of a run that has ended."""
        row = self.found.rows[outcome.number]
        if outcome.kept is None:
            row = msgspec.structs.replace(row, state="failed", reason=outcome.reason)
        else:
            self.shapes[outcome.number] = outcome.kept.input
            row = _finished(row, outcome.kept)
        self._replace({outcome.number: row})
        return row

    def measure(self, seconds_each: float) -> None:
        """The time of every finished run, all in one process."""
        numbers = sorted(self.shapes)
        files = [self.directory / self.found.rows[n].run / WHOLE for n in numbers]
        timed = timing.measure(
            [(file.read_bytes(), self.shapes[n]) for n, file in zip(numbers, files, strict=True)],
            seconds_each,
        )
        self._replace(
            {
                number: msgspec.structs.replace(self.found.rows[number], seconds=seconds)
                for number, seconds in zip(numbers, timed.seconds, strict=True)
            }
        )
        self.found = msgspec.structs.replace(self.found, measured=timed.how)

    def write(self) -> None:
        """Put all that is known so far where readers find it."""
        from presplit.train import checkpoint

        self.found = msgspec.structs.replace(
            self.found, points=worths(self.found.rows, self.found.baseline)
        )
        text = msgspec.json.format(msgspec.json.encode(self.found), indent=2)
        checkpoint.write(self.directory / SWEEP, text + b"\n")
        write_tables(self.found, self.directory)

    def _replace(self, rows: Mapping[int, Row]) -> None:
        every = (rows.get(number, row) for number, row in enumerate(self.found.rows))
        self.found = msgspec.structs.replace(self.found, rows=tuple(every))


def _tasks(
    points: Sequence[Point], directory: Path, settings: Settings, own: Own | None
) -> list[Task]:
    """Every run: of each seed all points, so that a sweep that is stopped has whole comparisons."""
    first = points[0].spec.seed
    made = [
        (msgspec.structs.replace(point.spec, seed=first + repeat), point)
        for repeat in range(settings.seeds)
        for point in points
    ]
    parent = os.getpid() if settings.engine == "local" else None
    return [
        Task(
            number,
            spec_json(spec),
            directory / point.name / f"seed-{spec.seed}",
            settings.max_drop,
            settings.threads,
            own,
            parent,
        )
        for number, (spec, point) in enumerate(made)
    ]


def _refuse_others(tasks: Sequence[Task], directory: Path) -> None:
    """Raise `DataError` if a run that is there is of another spec."""
    from presplit.train.runs import spec_file

    for task in tasks:
        file = spec_file(task.directory)
        if file is None:
            continue
        for key, before, now in differences(read_spec(file), task.spec):
            if key != "model.factory":  # where the code lies is the user's word each time
                raise DataError(
                    f"{directory}: the sweep there is of another spec: in {task.directory} {key} "
                    f"was {before!r}, now it is {now!r}; give another directory with --out, or "
                    "delete that one"
                )


def _check(points: Sequence[Point], own: Own | None) -> dict[str, int]:
    """Build every point, and give the counts of samples; raises `SpecError` with all faults."""
    from presplit.train import runs

    faults, samples = list[tuple[str, str]](), dict[str, int]()
    for number, point in enumerate(track(points, "looking at the grid", "points")):
        try:
            data = loaded(point.spec.data)
            run = runs.check(point.spec, own, data=data, fill=number == 0)
        except PresplitError as error:
            faults.append((point.name, str(error)))
            continue
        samples = samples or {
            "train": len(run.train),
            "held_out": len(run.held_out),
            "test": len(run.data.test),
        }
    refuse(faults, of=len(points))
    return samples


def _engine(settings: Settings, directory: Path) -> Run:
    if settings.engine == "ray":
        return functools.partial(over_ray, directory=directory, jobs=settings.jobs)
    if settings.engine == "here":
        return lambda tasks, do: map(do, tasks)
    return functools.partial(side_by_side, jobs=settings.jobs)


def _begun(
    raw: Mapping[str, object],
    axes: Sequence[Axis],
    points: Sequence[Point],
    tasks: Sequence[Task],
    settings: Settings,
    samples: Mapping[str, int],
    command: str,
) -> Found:
    """A sweep of which nothing is found yet."""
    from presplit.train.runs import versions

    rows = [
        Row(
            point=point.name,
            settings=point.settings,
            seed=task.spec.seed,
            dense=point.is_dense,
            run=f"{point.name}/{task.directory.name}",
        )
        for task, point in zip(tasks, list(points) * settings.seeds, strict=True)
    ]
    return Found(
        name=points[0].spec.name,
        spec=dict(raw),
        grid={each.key: each.values for each in axes},
        seeds=tuple(dict.fromkeys(task.spec.seed for task in tasks)),
        rows=tuple(rows),
        points=(),
        baseline={point.name: point.baseline for point in points},
        samples=samples,
        measured=None,
        versions=versions(),
        machine=processor(),
        command=command,
    )


def _finished(row: Row, found: Kept) -> Row:
    """``row`` with what the run is worth."""
    shared = set(Row.__struct_fields__) & set(Kept.__struct_fields__)
    values: dict[str, Any] = {name: getattr(found, name) for name in shared}
    return msgspec.structs.replace(row, state="finished", **values)


@contextlib.contextmanager
def alone(directory: Path) -> Generator[None]:
    """No other sweep is at work in ``directory`` while the block lasts; raises `DataError`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("wb")
    except OSError as error:
        raise DataError(f"{directory}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{directory}: another sweep is at work there; wait for it") from error
        except OSError as error:
            raise DataError(f"{directory}: cannot be locked ({error.strerror})") from error
        yield
