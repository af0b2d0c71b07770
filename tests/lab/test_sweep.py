"""Sweeps: grids, what is refused before training, rows, intervals, going on."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit.cli.main import main
from presplit.core.errors import DataError, SpecError
from presplit.core.progress import listening
from presplit.lab.compare import Pair, pair, sides
from presplit.lab.sweep import Found, Settings, axis, grid, read_found, sweep
from presplit.lab.sweep.found import Row
from presplit.lab.sweep.intervals import estimate
from presplit.lab.sweep.local import KILLED, side_by_side
from presplit.lab.sweep.progress import epochs_done, following
from presplit.lab.sweep.sweeping import alone
from presplit.lab.sweep.task import Outcome, Task
from presplit.lab.sweep.worth import worths

DENSITIES = axis("sparsity.density=1,0.5")
HERE = Settings(seeds=2, engine="here", measure_s=0.02)
UNTIMED = dataclasses.replace(HERE, measure_s=0.0)


def names(axes: list[str], raw: dict[str, Any] | None = None) -> list[str]:
    return [point.name for point in grid(raw or {}, [axis(each) for each in axes])]


def test_a_point_that_takes_nothing_away_is_the_dense_net_and_every_grid_has_one() -> None:
    assert names(["sparsity.density=0.25,1,0.5"]) == ["dense", "density=0.25", "density=0.5"]
    assert names(["sparsity.budget=0.5"]) == ["dense", "budget=0.5"]
    (dense, sparse) = grid({"sparsity": {"family": "tiled"}}, [axis("sparsity.density=0.5")])
    assert dense.spec.sparsity is None and dense.settings == {"sparsity.density": 1.0}
    assert sparse.baseline == "dense" and sparse.spec.sparsity is not None


def test_each_point_is_compared_with_the_dense_net_that_is_like_it_in_all_else() -> None:
    both = grid({}, [axis("sparsity.density=1,0.5"), axis("training.epochs=2,3")])
    assert [(point.name, point.baseline) for point in both] == [
        ("dense,epochs=2", "dense,epochs=2"),
        ("dense,epochs=3", "dense,epochs=3"),
        ("density=0.5,epochs=2", "dense,epochs=2"),
        ("density=0.5,epochs=3", "dense,epochs=3"),
    ]
    # A family says nothing of a dense net: there is one.
    families = names(["sparsity.density=1,0.5", "sparsity.family=grouped,tiled"])
    assert families == ["dense", "density=0.5,family=grouped", "density=0.5,family=tiled"]
    # Nor does where a sparse layer's values come from.
    started = names(["sparsity.density=0.5", "start.values=taken,fresh"], {"start": {"net": "r"}})
    assert started == ["dense", "density=0.5,values=taken", "density=0.5,values=fresh"]


def test_points_whose_names_would_be_alike_are_kept_apart_and_so_are_their_dense_nets() -> None:
    both = grid({}, [axis("data.name=p/a.npz,p-a.npz"), axis("sparsity.density=1,0.5")])
    assert [(point.name, point.baseline, point.spec.data.name) for point in both] == [
        ("dense,name=p-a.npz", "dense,name=p-a.npz", "p/a.npz"),
        ("dense,name=p-a.npz-2", "dense,name=p-a.npz-2", "p-a.npz"),
        ("name=p-a.npz,density=0.5", "dense,name=p-a.npz", "p/a.npz"),
        ("name=p-a.npz,density=0.5-2", "dense,name=p-a.npz-2", "p-a.npz"),
    ]
    close = names(["sparsity.density=0.3333331,0.3333332"])
    assert close == ["dense", "density=0.3333331", "density=0.3333332"]
    assert names(["sparsity.density=0.5,0.50"]) == ["dense", "density=0.5"]


def test_commas_inside_of_brackets_and_quotes_part_no_values() -> None:
    assert axis("model.layers=[64,[8,4],10],[2]").values == ("[64,[8,4],10]", "[2]")
    assert axis("""data.name="a,b",it's,c""").values == ('"a,b"', "it's", "c")
    with pytest.raises(SpecError, match="expected KEY=VALUE"):
        axis("sparsity.density=1,")


def test_all_points_that_cannot_be_are_told_at_once() -> None:
    with pytest.raises(SpecError, match="2 of 4 points of the grid cannot be trained") as refused:
        grid({}, [axis("sparsity.density=1,2,0.5,-1")])
    lines = str(refused.value).split("\n  ")
    assert lines[1:] == [
        "density=2: sparsity.density: expected `float` <= 1.0, got 2",
        "density=-1: sparsity.density: expected `float` > 0.0, got -1",
    ]
    with pytest.raises(SpecError, match=r"a=1 and a=2: unknown key 'a'"):
        grid({}, [axis("a=1,2")])
    with pytest.raises(SpecError, match="given twice"):
        grid({}, [axis("training.epochs=1"), axis("training.epochs=2")])
    with pytest.raises(SpecError, match="say --seeds 3"):
        axis("seed=1,2")


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A spec of a net so small that it trains at once, and samples of two classes."""
    file = tmp_path_factory.mktemp("data") / "blobs.npz"
    random = np.random.default_rng(0)
    y = np.arange(90) % 2
    x = random.normal(size=(90, 64)).astype(np.float32) + y[:, None]
    np.savez(file, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    return {
        "name": "blobs",
        "data": {"name": str(file)},
        "model": {"layers": [64, 64, 2]},
        "exits": {"after": ["relu1"]},
        "training": {"epochs": 2},
    }


@pytest.fixture(scope="module")
def swept(raw: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Path]:
    out = tmp_path_factory.mktemp("sweeps") / "blobs"
    return sweep(raw, [DENSITIES], out, HERE, command="presplit sweep"), out


def test_every_point_has_a_row_for_each_seed_and_an_ordinary_run(
    swept: tuple[Found, Path],
) -> None:
    found, out = swept
    assert [(row.point, row.seed) for row in found.rows] == [
        ("dense", 0),
        ("density=0.5", 0),
        ("dense", 1),
        ("density=0.5", 1),
    ]
    for row in found.rows:
        result = json.loads((out / row.run / "result.json").read_bytes())
        assert row.state == "finished" and row.accuracy == result["accuracy"]
        assert row.weights == result["weights"]
        assert row.macs == row.exit_macs["final"] > row.exit_macs["relu1"]
        assert row.seconds and row.seconds > 0 and row.bytes
        assert row.routed and row.exit_macs["relu1"] <= row.routed.macs <= row.macs
    dense, sparse = found.points
    assert dense.weights > sparse.weights and dense.bytes > sparse.bytes
    assert dense.difference == {} and sparse.difference["final"].n == 2
    assert found.samples == {"train": 54, "held_out": 6, "test": 30}


def test_what_was_found_is_read_again_and_stands_in_tables(swept: tuple[Found, Path]) -> None:
    found, out = swept
    assert read_found(out).to_builtins() == found.to_builtins()
    rows = read_csv(out / "sweep.csv")
    assert [float(row["accuracy.final"]) for row in rows] == [
        row.accuracy["final"] for row in found.rows
    ]
    points = read_csv(out / "points.csv")
    assert [row["sparsity.density"] for row in points] == ["1.0", "0.5"]
    assert float(points[1]["difference.final.mean"]) == found.points[1].difference["final"].mean


def test_the_same_sweep_again_trains_nothing_and_finds_the_same(
    raw: dict[str, Any], swept: tuple[Found, Path]
) -> None:
    found, out = swept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    again = sweep(raw, [DENSITIES], out, UNTIMED)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in found.rows]
    assert again.measured is None


def test_a_sweep_that_was_stopped_goes_on_and_one_of_another_spec_is_refused(
    raw: dict[str, Any], swept: tuple[Found, Path], tmp_path: Path
) -> None:
    found, out = swept
    shutil.copytree(out, tmp_path / "half")
    lost = tmp_path / "half" / found.rows[3].run
    shutil.rmtree(lost)
    again = sweep(raw, [DENSITIES], tmp_path / "half", UNTIMED)
    assert again.rows[3].accuracy == found.rows[3].accuracy
    other = {**raw, "training": {"epochs": 3}}
    with pytest.raises(DataError, match=r"training\.epochs was 2, now it is 3; give another"):
        sweep(other, [DENSITIES], out, HERE)


def test_what_no_net_can_be_built_of_is_refused_before_anything_is_trained(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        SpecError, match=r"1 of 3 points.*\n  layers=9-2: model.layers: .* needs 64"
    ):
        sweep(raw, [axis("model.layers=[64,4,2],[9,2],[64,4,4,2]")], tmp_path / "out", HERE)
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_told_and_stops_no_other(
    raw: dict[str, Any], swept: tuple[Found, Path], tmp_path: Path
) -> None:
    found, out = swept
    shutil.copytree(out, tmp_path / "out")
    bad = tmp_path / "out" / found.rows[0].run
    shutil.rmtree(bad)
    bad.write_text("in the way")
    again = sweep(raw, [DENSITIES], tmp_path / "out", UNTIMED)
    assert [row.state for row in again.rows] == ["failed", "finished", "finished", "finished"]
    assert "cannot be written" in (again.failed[0].reason or "")
    assert {point.point: point.runs for point in again.points} == {"density=0.5": 2, "dense": 1}


Said = tuple[int, str, str]
OPTIONS = ("--grid", "sparsity.density=1,0.5", "--no-measure", "--engine", "here")


@pytest.fixture
def command(
    raw: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The command over the module's spec, which it finds in ``{spec}``."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(raw))

    def call(*arguments: object) -> Said:
        code = main([str(each).format(spec=spec) for each in arguments])
        return code, *capsys.readouterr()

    return call


class Heard:
    """A listener that keeps what is said, and the work at its last move."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: list[Any] = []
        self.moves: list[float] = []

    def began(self, task: Any) -> None:
        self.tasks.append(task)

    def moved(self, task: Any) -> None:
        self.moves.append(task.done)

    def ended(self, task: Any) -> None: ...

    def told(self, sentence: str) -> None:
        self.said.append(sentence)


def test_how_far_a_sweep_is_counts_epochs_and_names_the_time_that_is_left(
    swept: tuple[Found, Path], tmp_path: Path
) -> None:
    found, out = swept
    rows = found.rows
    spec = (out / rows[0].run / "spec.json").read_bytes()
    tasks = [Task(number, spec, tmp_path / str(number), 0.0, 1) for number in range(4)]
    heard = Heard()
    with listening(heard), following(tasks, 5) as ended:
        (work,) = heard.tasks
        assert (work.total, work.done, work.unit) == (8, 0, "epochs")
        (tmp_path / "0" / "unfinished").mkdir(parents=True)
        (tmp_path / "0" / "unfinished" / "metrics.jsonl").write_text("{}\n")
        until = time.monotonic() + 10
        while not heard.moves and time.monotonic() < until:  # it is told while a run is trained
            time.sleep(0.02)
        assert heard.moves == [1]
        ended(rows[0])
        assert work.done == 1
        shutil.copytree(out / rows[1].run, tmp_path / "1")
        time.sleep(0.01)
        ended(rows[1])
        assert (work.done, work.note) == (3, "3 of 5 runs")
    assert heard.said[0] == "1 of 5 runs are finished already"
    assert "run 2 of 5: dense, seed 0: " in heard.said[1]
    assert heard.said[2].endswith(" left") and "run 3 of 5: density=0.5, seed 0" in heard.said[2]


def test_the_command_tells_what_was_found_and_leaves_its_report(
    swept: tuple[Found, Path], command: Callable[..., Said]
) -> None:
    found, out = swept
    code, told, _ = command("sweep", "{spec}", *OPTIONS, "--seeds", 2, "--out", out, "--json")
    assert code == 0
    rows = json.loads(told)["rows"]
    assert [row["accuracy"] for row in rows] == [row.accuracy for row in found.rows]
    page = (out / "report.html").read_text()
    assert "Against the dense net" in page and "density=0.5/seed-1" in page
    code, told, _ = command("sweep", "{spec}", *OPTIONS, "--seeds", 2, "--out", out)
    assert code == 0
    assert "on 30 test samples: mean over seeds" in told and "presplit export" in told


def test_the_command_ends_with_1_where_runs_failed_and_with_2_where_nothing_can_be(
    swept: tuple[Found, Path], command: Callable[..., Said], tmp_path: Path
) -> None:
    found, out = swept
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    bad = copy / found.rows[1].run
    shutil.rmtree(bad)
    bad.write_text("in the way")
    code, told, problem = command("sweep", "{spec}", *OPTIONS, "--seeds", 1, "--out", copy)
    assert code == 1 and "one seed says nothing of others" in told
    assert "1 of 2 runs failed" in problem and "density=0.5/seed-0: " in problem
    code, _, problem = command("sweep", "{spec}", "--out", copy)
    assert code == 2 and "nothing is varied" in problem
    code, _, problem = command("sweep", "{spec}", *OPTIONS[:2], "--engine", "cloud")
    assert code == 2 and "expected local, ray or here, got 'cloud'" in problem


def test_runs_are_compared_sample_by_sample_and_a_run_with_itself_is_no_different(
    swept: tuple[Found, Path], command: Callable[..., Said]
) -> None:
    found, out = swept
    dense, sparse = (out / row.run for row in found.rows[:2])
    code, told, _ = command("compare", dense, sparse, dense, "--json")
    result = json.loads(told)
    assert code == 0
    first, other, same = result["runs"]
    assert first["accuracy"]["final"]["share"] == found.rows[0].accuracy["final"]
    assert (other["weights"], other["macs"]) == (found.rows[1].weights, found.rows[1].exit_macs)
    assert result["differing"]["sparsity.density"] == [None, 0.5, None]
    assert "seed" not in result["differing"]
    paired, none = result["pairs"]
    assert paired["difference"] == pytest.approx(
        found.rows[1].accuracy["final"] - found.rows[0].accuracy["final"]
    )
    assert (none["gains"], none["losses"], none["p"]) == (0, 0, 1.0)
    assert same["accuracy"] == first["accuracy"]
    code, told, _ = command("compare", dense, sparse)
    assert "not told apart by 30 samples" in told or ": told apart" in told
    code, _, problem = command("compare", dense)
    assert code == 2 and "needs two runs, got 1" in problem
    code, _, problem = command("compare", dense, out / "nowhere")
    assert code == 2 and "neither a finished run nor a bundle nor a sweep" in problem


def test_runs_that_were_tested_on_other_samples_are_not_compared(
    swept: tuple[Found, Path],
) -> None:
    found, out = swept
    (one,) = sides([out / found.rows[0].run])
    other = dataclasses.replace(one, data=("elsewhere", "other samples"))
    assert pair(other, one) is None
    assert isinstance(pair(dataclasses.replace(one, data=("a copy", one.data[1])), one), Pair)


def test_two_sweeps_never_work_in_one_directory(raw: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another sweep is at work there"):
            sweep(raw, [DENSITIES], tmp_path, HERE)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    # What fails while it works is not taken for that.
    with pytest.raises(BlockingIOError), alone(tmp_path):
        raise BlockingIOError
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), alone(tmp_path / "file"):
        pass


def test_differences_are_paired_by_seed_and_a_missing_partner_leaves_its_seed_out() -> None:
    def row(point: str, seed: int, accuracy: float, state: Any = "finished") -> Row:
        return Row(
            point=point,
            settings={},
            seed=seed,
            dense=point == "dense",
            run=point,
            state=state,
            accuracy={"final": accuracy},
        )

    rows = [row("dense", 0, 0.9), row("dense", 1, 0.7), row("dense", 2, 0.0, "failed")]
    rows += [row("half", 0, 0.88), row("half", 1, 0.69), row("half", 2, 0.99)]
    dense, half = worths(rows, {"dense": "dense", "half": "dense"})
    assert dense.runs == 2 and half.runs == 3
    assert half.accuracy["final"].mean == pytest.approx(statistics.fmean([0.88, 0.69, 0.99]))
    assert half.difference["final"] == estimate([0.88 - 0.9, 0.69 - 0.7])
    assert half.difference["final"].n == 2


def test_an_interval_is_students_and_one_seed_has_none() -> None:
    values = [0.9, 0.92, 0.94]
    found = estimate(values)
    # 4.303: the quantile of Student's t for two degrees of freedom, from any table.
    assert found.high == pytest.approx(0.92 + 4.303 * 0.02 / 3**0.5, abs=1e-5)
    assert estimate([0.9]).spread is None


def die_at_one(task: Task) -> Outcome:
    """Stands where training does: the process of one task is killed, as for want of memory."""
    import os
    import signal

    if task.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.number, reason="reached")


@pytest.mark.long
def test_a_killed_process_is_a_failed_run_and_the_others_are_done() -> None:
    tasks = [Task(number, b"{}", Path(), 0.0, 1) for number in range(4)]
    ended = {each.number: each.reason for each in side_by_side(tasks, die_at_one, jobs=2)}
    assert ended == {0: "reached", 1: KILLED, 2: "reached", 3: "reached"}


@pytest.mark.long
def test_processes_side_by_side_find_what_one_process_finds(
    raw: dict[str, Any], swept: tuple[Found, Path], tmp_path: Path
) -> None:
    found, _ = swept
    local = Settings(seeds=2, jobs=2, measure_s=0.0)
    again = sweep(raw, [DENSITIES], tmp_path / "out", local)
    assert [row.reason for row in again.failed] == []
    assert [row.accuracy for row in again.rows] == [row.accuracy for row in found.rows]
    tasks = [Task(0, b"{}", tmp_path / "out" / found.rows[0].run, 0.0, 1)]
    assert epochs_done(tasks[0]) > 0
