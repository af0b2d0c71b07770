"""A sweep over Ray Tune: a real cluster on this machine, where Ray is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit.core.errors import MissingLibrary, SpecError
from presplit.lab.sweep import Settings, axis, sweep
from presplit.lab.sweep.over_ray import over_ray
from presplit.lab.sweep.task import Outcome, Task

INSTALLED = all(importlib.util.find_spec(name) for name in ("ray", "pandas", "pyarrow"))
real = pytest.mark.skipif(
    not INSTALLED, reason="Ray Tune is not installed: pip install 'presplit[ray]'"
)


def reached(task: Task) -> Outcome:
    return Outcome(task.number, reason=f"reached with {task.threads}")


@pytest.mark.skipif(INSTALLED, reason="Ray Tune is installed")
def test_without_ray_one_sentence_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(MissingLibrary, match=r"pip install .*\[ray\]"):
        sweep({}, [axis("sparsity.density=0.5")], tmp_path / "out", Settings(engine="ray"))
    assert not (tmp_path / "out").exists()


@real
@pytest.mark.long
def test_no_cluster_is_started_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    tasks = [Task(0, b"{}", tmp_path, 0.0, 1)]
    with pytest.raises(SpecError, match="RAY_ADDRESS names no cluster"):
        list(over_ray(tasks, reached, directory=tmp_path, jobs=1))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = importlib.import_module("ray")
    ray.init(
        address="local",
        include_dashboard=False,
        dashboard_host="127.0.0.1",
        _node_ip_address="127.0.0.2",
        log_to_driver=False,
        logging_level="ERROR",
        num_cpus=2,
    )
    yield ray
    ray.shutdown()


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own, of what it will do in years to come
def test_runs_on_a_cluster_are_those_of_one_process(cluster: Any, tmp_path: Path) -> None:
    y = np.arange(60) % 2
    x = np.random.default_rng(0).normal(size=(60, 64)).astype(np.float32) + y[:, None]
    np.savez(tmp_path / "blobs.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    raw = {
        "data": {"name": str(tmp_path / "blobs.npz")},
        "model": {"layers": [64, 64, 2]},
        "training": {"epochs": 1},
    }
    axes = [axis("sparsity.density=1,0.5")]
    here, there = (
        sweep(raw, axes, tmp_path / engine, Settings(jobs=2, measure_s=0.0, engine=engine))
        for engine in ("here", "ray")
    )
    assert [row.reason for row in there.rows] == [None, None]
    assert [row.accuracy for row in there.rows] == [row.accuracy for row in here.rows]
    assert not list((tmp_path / "ray").glob(".ray-*"))
    given = [Task(number, b"{}", tmp_path, 0.0, 7) for number in range(3)]
    ended = list(over_ray(given, reached, directory=tmp_path, jobs=2))
    assert [each.reason for each in ended] == ["reached with 1"] * 3


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_machine_that_does_not_see_the_directory_trains_nothing(
    cluster: Any, tmp_path: Path
) -> None:
    from presplit.lab.sweep.over_ray import trainable

    run = trainable([Task(0, b"{}", tmp_path, 0.0, 1)], reached, tmp_path / "elsewhere" / ".ray-x")
    assert "on a file system that all machines share" in run({"place": 0})["outcome"]
