"""A run directory repeats, evaluates and exports what was trained.

An unfinished one is never taken for a run.
"""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from presplit.cli.train import text
from presplit.core.errors import DataError, GraphError, PatternError, SpecError
from presplit.core.spec import read_spec, spec_from
from presplit.train import (
    RECIPES,
    Epoch,
    SparseLinear,
    accuracies,
    choose_thresholds,
    count_weights,
    evaluate,
    route,
    runs,
    temperature,
)
from presplit.train.nets.add_exits import exit_macs

SMALL = {
    "name": "small",
    "seed": 3,
    "model": {"width": 8},
    "sparsity": {"density": 0.5},
    "exits": {"after": ["block1"], "weights": [0.5]},
    "training": {"epochs": 2},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "small"
    runs.train(spec_from(SMALL), directory)
    return directory


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "several"
    runs.train(
        spec_from({**SMALL, "exits": {"after": ["block1", "block3"], "policy": "margin"}}),
        directory,
    )
    return directory


def result(directory: Path) -> dict:
    return json.loads((directory / "result.json").read_text())


def mlp_spec(**changes: object) -> dict:
    """A sparse MLP on digits, padded from 64 to 80 inputs."""
    base = {
        "model": {"kind": "mlp", "layers": [80, 40, 10]},
        "data": {"pad_to": 80},
        "training": {"epochs": 1},
    }
    return {**base, **changes}


def test_a_run_that_is_read_back_gives_the_same_logits(small: Path) -> None:
    first, second = runs.read_run(small), runs.read_run(small)
    logits = evaluate(first.model, first.data.test)
    np.testing.assert_array_equal(evaluate(second.model, second.data.test), logits)
    assert result(small)["accuracy"] == dict(
        zip(("block1", "final"), accuracies(logits, first.data.test.y), strict=True)
    )


def test_uneven_classes_are_told_with_every_class_alike(small: Path) -> None:
    found, run = result(small), runs.read_run(small)
    answers, y = evaluate(run.model, run.data.test).argmax(-1), run.data.test.y
    recalls = [[(own[y == k] == k).mean() for k in range(10)] for own in answers]
    assert list(found["balanced_accuracy"].values()) == pytest.approx(np.mean(recalls, 1))
    assert not found["is_uneven"] and "counts alike" not in text(found, small, "presplit export")
    said = text({**found, "is_uneven": True}, small, "presplit export")
    assert f"{100 * np.mean(recalls[-1]):.2f} % if every class counts alike" in said


def test_the_same_spec_trains_the_same_bits(tmp_path: Path) -> None:
    spec = spec_from(mlp_spec(sparsity={"family": "biregular", "density": 0.5}))
    for name in ("one", "two"):
        runs.train(spec, tmp_path / name)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_written_spec_says_all_that_the_recipe_left_open(small: Path) -> None:
    written = read_spec(small / "spec.json")
    recipe = RECIPES["default"]
    training = written.training
    assert (training.epochs, training.batch, training.rate) == (2, recipe.batch, recipe.rate)
    assert written.seed == 3 and written.exits is not None and written.exits.weights == (0.5,)


def test_a_spec_gives_exits_a_hidden_layer_and_weights_by_what_they_cost(tmp_path: Path) -> None:
    exits = {"after": ["relu1"], "hidden": 8, "weights": "auto"}
    runs.train(spec_from(mlp_spec(exits=exits)), tmp_path / "run")
    head = runs.read_run(tmp_path / "run").model.heads[0]
    assert head[0].out_features == 8 and head[-1].linear.in_features == 8


def test_metrics_have_a_line_an_epoch(small: Path) -> None:
    lines = [json.loads(line) for line in (small / "metrics.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2]
    assert all(len(line["accuracy"]) == 2 for line in lines)


def test_thresholds_are_chosen_on_the_held_out_part_and_judged_on_the_test_set(small: Path) -> None:
    run = runs.read_run(small)
    held, test = evaluate(run.model, run.held_out), evaluate(run.model, run.data.test)
    rows = result(small)["thresholds"]
    assert [row["goal"] for row in rows] == [
        {"max_drop": drop} for drop in (0.0, 0.001, 0.002, 0.005, 0.01)
    ]
    for row in rows:
        chosen = choose_thresholds(held, run.held_out.y, **row["goal"])
        assert tuple(row["thresholds"].values()) == chosen.thresholds
        routed = route(test, run.data.test.y, chosen.thresholds)
        assert (row["accuracy"], tuple(row["shares"].values())) == (routed.accuracy, routed.shares)


def test_a_run_with_several_exits_is_judged_by_the_rule_and_for_the_goal_that_are_asked(
    several: Path,
) -> None:
    run = runs.read_run(several)
    assert result(several)["policy"] == "margin"
    held, test = evaluate(run.model, run.held_out), evaluate(run.model, run.data.test)
    macs = exit_macs(run.model, torch.from_numpy(run.train.x[:1].copy()))
    found = runs.judge(run, policy="entropy", goal=("macs", (macs[0] + macs[2]) / 2))
    chosen = choose_thresholds(
        held, run.held_out.y, macs=(macs[0] + macs[2]) / 2, exit_macs=macs, policy="entropy"
    )
    (row,) = found["thresholds"]
    assert list(row["thresholds"]) == list(run.exit_names[:2]) and list(row["shares"]) == list(
        run.exit_names
    )
    assert tuple(row["thresholds"].values()) == chosen.thresholds
    routed = route(test, run.data.test.y, chosen.thresholds, policy="entropy")
    assert (row["accuracy"], tuple(row["shares"].values())) == (routed.accuracy, routed.shares)
    assert found["temperatures"]["final"] == temperature(held[-1], run.held_out.y)


def test_a_run_says_of_every_exit_what_its_classes_calibration_and_curve_are(small: Path) -> None:
    found, run = result(small), runs.read_run(small)
    logits, y = evaluate(run.model, run.data.test), run.data.test.y
    for name, own in zip(run.exit_names, logits, strict=True):
        counts = np.array(found["confusion"][name])
        assert counts.shape == (10, 10) and counts.trace() == (own.argmax(1) == y).sum()
        shares = [row["accuracy"][name] for row in found["per_class"]]
        assert np.mean(shares) == pytest.approx(found["balanced_accuracy"][name])
        assert set(found["calibration"][name]) == {"before", "after"}
    sizes = [(row["train"], row["held_out"], row["test"]) for row in found["per_class"]]
    assert np.sum(sizes, 0).tolist() == [*found["samples"].values()]
    cheapest, dearest = found["curve"][0], found["curve"][-1]
    assert cheapest["shares"]["block1"] == 1 and dearest["shares"]["final"] == 1
    assert dearest["macs"] == found["exit_macs"]["final"]
    lines = (small / "result.json").read_text().splitlines()
    row = ", ".join(map(str, found["confusion"]["final"][0]))
    assert f"[{row}]," in [line.strip() for line in lines], "a row of counts is one line"


def test_an_unknown_rule_is_refused_before_training() -> None:
    with pytest.raises(SpecError, match=r"exits\.policy: no exit policy named 'surest'"):
        runs.build(spec_from({"exits": {"after": ["block1"], "policy": "surest"}}))


def test_held_out_samples_are_not_trained_on(small: Path) -> None:
    run = runs.read_run(small)
    assert len(run.train) + len(run.held_out) == len(run.data.train)
    trained = {image.tobytes() for image in run.train.x}
    assert sum(image.tobytes() in trained for image in run.held_out.x) == 0


def test_the_paper_s_net_by_its_own_vocabulary_has_2360_weights() -> None:
    spec = spec_from(
        {
            "model": {"kind": "mlp", "layers": [800, 40, 40, 10]},
            "data": {"pad_to": 800},
            "sparsity": {"family": "biregular", "fan_out": [2, 9, 10]},
            "training": {"recipe": "paper"},
        }
    )
    run = runs.build(spec)
    assert count_weights(run.model) == 2360
    fan_outs = [
        set(layer.pattern.fan_out.tolist())
        for layer in run.model.modules()
        if isinstance(layer, SparseLinear)
    ]
    assert fan_outs == [{2}, {9}], "the last junction is complete and stays dense"
    assert all(
        (p == 0.1).all() for name, p in run.model.named_parameters() if name.endswith("bias")
    )


def test_a_budget_in_the_spec_is_kept_by_the_net() -> None:
    sparsity = {"budget": 0.3, "unit": "macs", "profile": "uniform"}
    run = runs.build(
        spec_from({"model": {"kind": "mlp", "layers": [64, 128, 64, 10]}, "sparsity": sparsity})
    )
    assert count_weights(run.model) == pytest.approx(0.3 * (64 * 128 + 128 * 64 + 640), rel=0.05)
    with pytest.raises(SpecError, match="expected the keys of one kind of .* density .* and unit"):
        spec_from({"sparsity": {"density": 0.25, "unit": "macs"}})


def test_what_a_run_has_in_place_of_what_was_asked_is_in_its_notes() -> None:
    near = {"density": 0.3, "nearest": True}
    layers = {"model": {"kind": "mlp", "layers": [64, 128, 10]}}
    run = runs.build(spec_from({**layers, "sparsity": near}))
    assert run.notes == ("density 0.3: the nearest that grouped has is 0.25 for fc1",)
    run = runs.build(spec_from({**layers, "sparsity": {"budget": 0.07}}))
    assert len(run.notes) == 1 and "the nearest total that these densities reach" in run.notes[0]
    with pytest.raises(PatternError, match="is impossible"):
        runs.build(spec_from({**layers, "sparsity": {"budget": 0.07, "tolerance": 0.05}}))


def stop_after(epoch: Epoch) -> None:
    raise KeyboardInterrupt


def bits(directory: Path) -> dict[str, bytes]:
    """The files of a finished run."""
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An older and a newer run of different nets, the older one with a teacher."""
    folder = tmp_path_factory.mktemp("two")
    distilled = {"epochs": 1, "distil": 0.5}
    older = mlp_spec(sparsity={"density": 0.5}, training=distilled)
    runs.train(spec_from(older), folder / "older")
    runs.train(spec_from(mlp_spec(seed=1)), folder / "newer")
    return folder / "older", folder / "newer"


def test_a_finished_run_stays_until_a_newer_one_is_whole(tmp_path: Path) -> None:
    runs.train(spec_from(mlp_spec()), tmp_path / "run")
    before, newer = bits(tmp_path / "run"), spec_from(mlp_spec(seed=1, training={"epochs": 2}))
    (tmp_path / "run" / "small.bundle").mkdir()
    with pytest.raises(DataError, match=r"run: a finished run is there; .*replace=True"):
        runs.train(newer, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        runs.train(newer, tmp_path / "run", replace=True, on_epoch=stop_after)
    assert bits(tmp_path / "run") == before and runs.read_run(tmp_path / "run").spec.seed == 0
    told: list[Epoch] = []
    result = runs.train(newer, tmp_path / "run", resume=True, on_epoch=told.append)
    assert [epoch.number for epoch in told] == [2], "it went on after the first"
    assert runs.read_run(tmp_path / "run").spec == newer
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {*before, "small.bundle"} and json.loads(json.dumps(result)) == json.loads(
        (tmp_path / "run" / "result.json").read_text()
    )


@pytest.mark.parametrize("moved", range(7))
def test_a_kill_while_a_run_takes_its_place_leaves_the_new_one(
    moved: int, two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """``moved``: how many of its files had moved up by then."""
    place = tmp_path / "run"
    shutil.copytree(two_runs[0], place)
    shutil.copytree(two_runs[1], place / "replacing")
    (place / "replacing" / "teacher").mkdir()
    names = sorted(file.name for file in (place / "replacing").iterdir() if file.is_file())
    if moved:
        shutil.rmtree(place / "teacher")
        (place / "replacing" / "teacher").rename(place / "teacher")
    for name in names[: max(0, moved - 1)]:
        (place / "replacing" / name).replace(place / name)
    new = runs.read_run(two_runs[1])
    found = runs.read_run(place)
    assert found.spec == new.spec
    x = new.data.test.take(slice(0, 5))
    np.testing.assert_array_equal(evaluate(found.model, x), evaluate(new.model, x))
    assert runs.train(new.spec, place, resume=True, on_epoch=stop_after), "it is finished"
    assert bits(place) == bits(two_runs[1])
    assert {file.name for file in place.iterdir()} == set(names)


def test_a_disk_that_fills_up_loses_no_run(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(two_runs[0], place)
    before = bits(place)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (2, 8192):  # before the spec is written, and before the net is
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(DataError, match=r"cannot be written .File too large."):
                runs.train(spec_from(mlp_spec(seed=1)), place, replace=True)
            with pytest.raises(DataError, match=r"cannot be written .File too large."):
                runs.train(spec_from(mlp_spec(seed=1)), tmp_path / "fresh")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert bits(place) == before and runs.read_run(place).spec.seed == 0
        assert not (tmp_path / "fresh").exists() and not (place / "unfinished").exists()


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="not a finished run .spec.json and model.safetensors are expected.*"
    ):
        runs.read_run(tmp_path)


def test_a_run_whose_checkpoint_is_damaged_is_refused(tmp_path: Path) -> None:
    runs.train(spec_from(mlp_spec()), tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(
        DataError, match="model.safetensors: not a safetensors file, or a damaged one"
    ):
        runs.read_run(tmp_path)


def test_a_directory_that_may_not_be_written_is_refused_before_training() -> None:
    with pytest.raises(DataError, match="/proc/run: the run cannot be written"):
        runs.train(spec_from(mlp_spec()), "/proc/run", on_epoch=stop_after)


def test_a_file_in_the_place_of_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(DataError, match="run: the run cannot be written .Not a directory."):
        runs.train(spec_from(mlp_spec()), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"data": {}},
            SpecError,
            r"model.layers: digits needs 64 inputs and at least 10 outputs, got \[80, 40, 10\]",
        ),
        (
            {"training": {"optimiser": "lion"}},
            SpecError,
            "^training: optimiser: no optimiser named 'lion'",
        ),
        ({"data": {"name": "digit"}}, SpecError, "no data set named 'digit' .nearest: digits."),
        (
            {"sparsity": {"family": "group", "density": 0.5}},
            SpecError,
            "sparsity: no pattern family named 'group'",
        ),
        (
            {"sparsity": {"layers": {"fc7": 0.5}}},
            GraphError,
            "sparsity: no Linear, Conv1d or Conv2d is called 'fc7'",
        ),
        (
            {"sparsity": {"layers": {"fc1": 0.3}}},
            PatternError,
            "sparsity: layer fc1: 80 -> 40 has no grouped pattern",
        ),
        (
            {"sparsity": {"family": "bernoulli", "fan_out": [2, 10]}},
            SpecError,
            "sparsity.family: expected biregular, got 'bernoulli'",
        ),
        ({"sparsity": {"fan_out": [41, 10]}}, SpecError, r"sparsity.fan_out\[0\]: expected 1..40"),
        (
            {
                "sparsity": {"fan_out": [39, 10]},
                "data": {"pad_to": 81},
                "model": {"kind": "mlp", "layers": [81, 40, 10]},
            },
            PatternError,
            r"sparsity: fan_out\[0\]: 81 -> 40 has no biregular pattern with fan_out 39",
        ),
        (
            {"exits": {"after": ["relu9"]}},
            GraphError,
            "exits.after: no submodule is called 'relu9'; there are: f",
        ),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_with_its_key(
    changes: dict, kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message):
        runs.build(spec_from(mlp_spec(**changes)))


def test_a_cnn_wants_square_images(tmp_path: Path) -> None:
    y = np.array([0, 1, 0, 1])
    np.savez(
        tmp_path / "flat.npz",
        x_train=np.zeros((4, 6)),
        y_train=y,
        x_test=np.zeros((4, 6)),
        y_test=y,
    )
    with pytest.raises(
        SpecError,
        match=r"model.kind: a cnn needs square images or sounds, flat has samples of shape \(6,\)",
    ):
        runs.build(spec_from({"data": {"name": str(tmp_path / "flat.npz"), "validation": 0.3}}))


def test_building_draws_the_same_values_whatever_was_drawn_before() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(runs.build(spec_from(SMALL)).model.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
