"""The runs of a sweep in processes of this machine, by joblib's loky.

Of joblib only processes are used, which keep their libraries loaded from run to run and are there
again when one was killed; nothing is read from disk by it. The only file that knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from presplit.core.errors import library
from presplit.lab.sweep.task import Outcome, Task

KILLED = "its process was killed: is there enough memory for so many --jobs?"


def side_by_side(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], *, jobs: int
) -> Iterator[Outcome]:
    """What ``do`` gives for each of ``tasks``, ``jobs`` at a time, as they end.

    If a process is killed, the tasks that are not done are done one by one, so that it is known
    which one it was.
    """
    joblib = library("joblib", need="a sweep", extra="train")
    killed = library("joblib.externals.loky.process_executor", need="a sweep", extra="train")
    waiting = {task.number: task for task in tasks}
    try:
        for outcome in _outcomes(joblib, tasks, do, jobs):
            del waiting[outcome.number]
            yield outcome
        return
    except killed.TerminatedWorkerError:
        pass
    for task in waiting.values():
        try:
            yield from _outcomes(joblib, [task], do, 1)
        except killed.TerminatedWorkerError:
            yield Outcome(task.number, reason=KILLED)


def _outcomes(
    joblib: Any, tasks: Sequence[Task], do: Callable[[Task], Outcome], jobs: int
) -> Generator[Outcome]:
    """Each outcome as it comes.

    With one worker joblib would not start a process, so there are two at least, and no more tasks
    are handed out at once than ``jobs``.
    """
    if not tasks:
        return
    settings = joblib.parallel_config("loky", inner_max_num_threads=tasks[0].threads)
    with settings:
        runner = joblib.Parallel(
            n_jobs=max(jobs, 2),
            pre_dispatch=jobs,
            batch_size=1,
            max_nbytes=None,  # tasks hold no arrays to share
            return_as="generator_unordered",
        )
        outcomes = runner(joblib.delayed(do)(task) for task in tasks)
    try:
        yield from outcomes
    finally:
        outcomes.close()  # ends the processes if something is left to do
