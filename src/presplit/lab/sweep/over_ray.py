"""The runs of a sweep on the machines of a Ray cluster, by Ray Tune.

The directory of the sweep lies on a file system that all machines share; each run looks for a file
there first, and refuses to train where it is not. ``RAY_ADDRESS`` says which cluster. The only file
of the lab that knows Ray.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from presplit.core.errors import SpecError, library
from presplit.lab.sweep.task import Outcome, Task

NEED = {"need": "--engine ray", "extra": "ray"}


def over_ray(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], *, directory: Path, jobs: int
) -> Iterator[Outcome]:
    """What ``do`` gives for each of ``tasks``, ``jobs`` at a time on each machine's processors.

    A GPU of the cluster is shared by ``jobs`` runs. Raises
    `MissingLibrary` without Ray, `SpecError` without a cluster.
    """
    ray: Any = library("ray", **NEED)
    tune: Any = library("ray.tune", **NEED)
    if not tasks:
        return
    if not ray.is_initialized():
        if not os.environ.get("RAY_ADDRESS"):
            raise SpecError(
                "--engine ray: RAY_ADDRESS names no cluster; set it (auto: the one of this "
                "machine, which ray start makes), or leave --engine out: one machine needs no Ray"
            )
        ray.init(log_to_driver=False, logging_level="ERROR")
    token = directory.resolve() / f".shared-{secrets.token_hex(4)}"
    token.touch()
    try:
        gpus = float(ray.cluster_resources().get("GPU", 0))
        needs = {"cpu": tasks[0].threads, **({"gpu": 1 / jobs} if gpus else {})}
        with tempfile.TemporaryDirectory() as kept:
            tuner = tune.Tuner(
                tune.with_resources(_trainable(tasks, do, token), needs),
                param_space={"place": tune.grid_search(list(range(len(tasks))))},
                tune_config=tune.TuneConfig(max_concurrent_trials=0),
                run_config=tune.RunConfig(storage_path=kept, verbose=0),
            )
            results = tuner.fit()
        for place, task in enumerate(tasks):
            yield _outcome(task, results, place)
    finally:
        token.unlink(missing_ok=True)


def _trainable(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], token: Path
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What Ray runs: one task, by its place, whose outcome is the trial's last result."""
    folder = os.getcwd()

    def run(config: Mapping[str, Any]) -> dict[str, Any]:
        place: int = config["place"]
        task = tasks[place]
        if not token.is_file():
            outcome = Outcome(
                task.number,
                reason=f"{os.uname().nodename} does not see {token.parent}: --out must be on a "
                "file system that all machines share",
            )
        else:
            os.chdir(folder)  # what the spec names is relative to it; Ray starts elsewhere
            outcome = do(task)
        return {"outcome": msgspec.json.encode(outcome).decode()}

    return run


def _outcome(task: Task, results: Any, place: int) -> Outcome:
    """The outcome of ``task``, or what Ray says of why there is none."""
    for result in results:
        if result.config and result.config["place"] == place:
            if result.metrics and "outcome" in result.metrics:
                return msgspec.json.decode(result.metrics["outcome"], type=Outcome)
            said = str(result.error).strip().splitlines() or ["Ray gave no result"]
            return Outcome(task.number, reason=f"Ray: {said[-1]}")
    return Outcome(task.number, reason="Ray gave no result")
