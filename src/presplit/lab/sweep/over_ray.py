"""The runs of a sweep on the machines of a Ray cluster, by Ray Tune.

The directory of the sweep lies on a file system that all machines share; each run looks for it
first, and refuses to train where it is not. ``RAY_ADDRESS`` says which cluster. The only file of
the lab that knows Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
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
    """What ``do`` gives for each of ``tasks``, ``jobs`` at a time, which share the whole cluster.

    Outcomes come when all tasks are done. Raises as `connected` does.
    """
    if not tasks:
        return
    ray, tune = connected()
    needs = _needs(ray, jobs)
    given = [dataclasses.replace(task, threads=int(needs["cpu"])) for task in tasks]
    with tempfile.TemporaryDirectory(prefix=".ray-", dir=directory.resolve()) as shared:
        tuner = tune.Tuner(
            tune.with_resources(trainable(given, do, Path(shared)), needs),
            param_space={"place": tune.grid_search(list(range(len(given))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=jobs),
            run_config=tune.RunConfig(storage_path=shared, verbose=0),
        )
        with contextlib.redirect_stdout(sys.stderr):  # it is no result of the command
            results = tuner.fit()
        outcomes = [_outcome(task, results, place) for place, task in enumerate(given)]
    yield from outcomes


def connected() -> tuple[Any, Any]:
    """Ray, connected to the user's cluster, and Ray Tune.

    Raises `MissingLibrary` without Ray, `SpecError` without a cluster.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # else it draws boxes, however quiet it is
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the sweep at once
    ray: Any = library("ray", **NEED)
    tune: Any = library("ray.tune", **NEED)
    if not ray.is_initialized():
        if not os.environ.get("RAY_ADDRESS"):
            raise SpecError(
                "--engine ray: RAY_ADDRESS names no cluster; set it (auto: the one of this "
                "machine, which ray start makes), or leave --engine out: one machine needs no Ray"
            )
        ray.init(log_to_driver=False, logging_level="ERROR")
    return ray, tune


def _needs(ray: Any, jobs: int) -> dict[str, float]:
    """The processors and the share of a GPU that each of ``jobs`` runs has, on some machine."""
    of_all, machines = ray.cluster_resources(), ray.nodes()
    largest = max(each["Resources"].get("CPU", 0.0) for each in machines if each["Alive"])
    needs = {"cpu": max(1.0, min(largest, of_all.get("CPU", 1.0)) // jobs)}
    if of_all.get("GPU"):
        needs["gpu"] = min(1.0, of_all["GPU"] / jobs)
    return needs


def trainable(
    tasks: Sequence[Task], do: Callable[[Task], Outcome], shared: Path
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What Ray runs: one task, by its place, whose outcome is the trial's last result."""
    folder = os.getcwd()

    def run(config: Mapping[str, Any]) -> dict[str, Any]:
        place: int = config["place"]
        task = tasks[place]
        if not shared.is_dir():
            outcome = Outcome(
                task.number,
                reason=f"{os.uname().nodename} does not see {shared.parent}: --out must be on a "
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
