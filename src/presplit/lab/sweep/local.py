"""The runs of a sweep in processes of this machine, by loky, which joblib brings.

Of joblib only processes are used, which keep their libraries loaded from run to run, and whose end
is noticed; nothing is read from disk by it. The only file that knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from presplit.core.errors import library
from presplit.lab.sweep.task import Outcome, Task

KILLED = "its process was killed: is there enough memory for so many --jobs?"
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What tells numerical libraries, before they are loaded, how many threads to start."""


def side_by_side(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], *, jobs: int
) -> Iterator[Outcome]:
    """What ``do`` gives for each of ``tasks``, ``jobs`` at a time, as they end.

    If a process is killed, the tasks that are not done are done one by one, so that it is known
    which one it was.
    """
    waiting = list[Task]()
    for task, outcome in _outcomes(tasks, do, jobs):
        if outcome is None:
            waiting.append(task)
        else:
            yield outcome
    for task in waiting:
        for _, outcome in _outcomes([task], do, 1):
            yield outcome or Outcome(task.number, reason=KILLED)


def _outcomes(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], jobs: int
) -> Iterator[tuple[Task, Outcome | None]]:
    """Each task with its outcome as it comes; None where a process of the pool was killed."""
    if not tasks:
        return
    loky: Any = library("joblib.externals.loky", need="a sweep", extra="train")
    threads = dict.fromkeys(POOLS, str(tasks[0].threads))
    pool = loky.ProcessPoolExecutor(max_workers=min(jobs, len(tasks)), env=threads)
    try:
        tasks_of = {pool.submit(do, task): task for task in tasks}
        for future in loky.as_completed(tasks_of):
            is_killed = isinstance(future.exception(), loky.BrokenProcessPool)
            yield tasks_of[future], None if is_killed else future.result()
    except BaseException:
        pool.shutdown(wait=True, kill_workers=True)
        raise
    # Killed workers leave semaphores behind, of which Python then warns: here they end themselves.
    pool.shutdown(wait=True)
