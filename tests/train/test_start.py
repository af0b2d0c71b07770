"""A run begins with a trained dense net, another run's or one in a file.

What cannot be begun with is refused before anything is trained, and by name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from presplit.core.errors import DataError, PresplitError, SpecError
from presplit.core.spec import Spec, read_spec, spec_from
from presplit.train import SparseLinear, evaluate, runs
from presplit.train.runs.start import weights_of
from presplit.train.runs.weights import read_weights
from presplit.train.zoo import mlp, small_cnn

MLP = {"model": {"kind": "mlp", "layers": [64, 32, 10]}, "training": {"epochs": 1, "bias": 0.3}}


def dense_spec(**changes: object) -> Spec:
    return spec_from({**MLP, **changes})


def begun(spec: Spec, own: runs.Own | None = None) -> runs.Run:
    """The net of ``spec`` as its training finds it."""
    assert spec.start is not None
    return runs.build(spec, own, weights=weights_of(spec.start))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "dense"
    runs.train(dense_spec(name="dense"), path)
    return path


@pytest.fixture(scope="module")
def values(dense: Path) -> dict[str, torch.Tensor]:
    return dict(read_weights(dense / "model.safetensors").tensors)


def test_values_are_taken_where_connections_exist_and_nothing_of_them_is_redrawn(
    dense: Path, values: dict[str, torch.Tensor]
) -> None:
    start, quarter = {"net": str(dense), "connections": "drawn"}, {"density": 0.25}
    taken = begun(dense_spec(start=start, sparsity=quarter, exits={"after": ["relu1"]}))
    net = taken.model.get_submodule("model")
    kept = net.fc1.weight != 0
    assert int(kept.sum()) == 64 * 32 / 4
    torch.testing.assert_close(net.fc1.weight[kept], values["fc1.weight"][kept], rtol=0, atol=0)
    torch.testing.assert_close(net.fc1.bias, values["fc1.bias"], rtol=0, atol=0)
    torch.testing.assert_close(net.fc2.weight, values["fc2.weight"], rtol=0, atol=0)
    exits = taken.model.get_submodule("heads.0.linear")
    assert torch.all(exits.bias == 0.3), "an exit is drawn by the recipe"
    assert taken.start is not None and taken.start.fc1.weight.shape == (32, 64)

    fresh = begun(dense_spec(start={**start, "values": "fresh"}, sparsity=quarter)).model
    assert torch.all(fresh.fc1.bias == 0.3), "the sparse layer is drawn by the recipe"
    torch.testing.assert_close(fresh.fc2.weight, values["fc2.weight"], rtol=0, atol=0)
    whole = begun(dense_spec(start={"net": str(dense)})).model
    torch.testing.assert_close(whole.state_dict(), values, rtol=0, atol=0)


@pytest.mark.parametrize(("net", "after"), [("mlp", "relu1"), ("cnn", "block1")])
def test_chosen_and_fitted_nets_are_trained_and_read_back_when_their_start_is_gone(
    net: str, after: str, dense: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    told: dict = {"training": {"epochs": 1}}
    if net == "mlp":
        shutil.copytree(dense, start)
        told = dict(MLP)
    else:
        told["model"] = {"width": 8}
        runs.train(spec_from(told), start)
    told["start"] = {"net": str(start), "values": "fitted", "connections": "chosen"}
    spec = spec_from({**told, "sparsity": {"density": 0.5}, "exits": {"after": [after]}})
    result = runs.train(spec, tmp_path / "run")
    shutil.rmtree(start)
    found = runs.read_run(tmp_path / "run")
    assert found.spec == spec and found.start is None
    logits = evaluate(found.model, found.data.test)
    assert float(np.mean(logits[-1].argmax(1) == found.data.test.y)) == result["accuracy"]["final"]
    assert not (tmp_path / "run" / "start.safetensors").exists()
    assert runs.train(spec, tmp_path / "run", resume=True) == result, "it is finished"


def test_a_run_goes_on_bit_for_bit_though_its_start_is_gone(dense: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(dense, start)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    spec = dense_spec(
        start={"net": str(start)},
        sparsity={"density": 0.25},
        training={"epochs": 3, "distil": 0.7, "ema": 0.9},
    )
    runs.train(spec, tmp_path / "whole")
    assert not (tmp_path / "whole" / "teacher").exists(), "the start is the teacher"
    with pytest.raises(KeyboardInterrupt):
        runs.train(spec, tmp_path / "half", on_epoch=stop)
    shutil.rmtree(start)
    runs.train(spec, tmp_path / "half", resume=True)
    one, two = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(DataError, match=r"start.net: .*start: no such run or file"):
        runs.train(spec, tmp_path / "whole", replace=True)
    assert one.read_bytes() == two.read_bytes(), "what was finished stays"


def test_the_start_teaches_unless_another_net_is_named(dense: Path, tmp_path: Path) -> None:
    told = {"start": {"net": str(dense)}, "sparsity": {"density": 0.25}}
    runs.train(dense_spec(training={"epochs": 1}, seed=5), tmp_path / "other")
    losses = []
    for teacher in (None, str(dense), str(tmp_path / "other")):
        training = {"epochs": 1, "distil": 0.7, "teacher": teacher}
        runs.train(dense_spec(**told, training=training), tmp_path / "run", replace=True)
        losses.append(json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_what_a_spec_leaves_open_is_as_in_the_run_that_it_starts_from(
    dense: Path, tmp_path: Path
) -> None:
    parent = json.loads((dense / "spec.json").read_text())
    start = {"start": {"net": str(dense)}}
    laid = runs.laid_on_start({}, {**start, "sparsity": {"density": 0.25}})
    spec = spec_from(laid, over={**start, "sparsity": {"density": 0.25}})
    assert (spec.name, spec.model.layers, spec.training.bias) == ("dense-sparse", (64, 32, 10), 0.3)
    assert spec_from(runs.laid_on_start(start, {})).name == "dense-tuned"
    own = {**start, "name": "mine", "training": {"epochs": 9}}
    spec = spec_from(runs.laid_on_start(own, {}))
    assert (spec.name, spec.training.epochs, spec.training.bias) == ("mine", 9, 0.0)
    assert spec.model.layers == (64, 32, 10)
    changed = {"model": {"kind": "own", "factory": "nets:make"}}
    assert "model" not in runs.laid_on_start({}, {**start, **changed})
    shutil.copytree(dense, tmp_path / "taught")
    parent["training"]["teacher"] = "gone"
    parent["start"] = {"net": "gone", "values": "taken", "connections": "drawn"}
    (tmp_path / "taught" / "spec.json").write_text(json.dumps(parent))
    laid = runs.laid_on_start({"start": {"net": str(tmp_path / "taught")}}, {})
    assert "teacher" not in laid["training"]
    assert laid["start"] == {"net": str(tmp_path / "taught")}
    whole = json.loads((dense / "spec.json").read_text())
    assert runs.laid_on_start({**whole, "start": {"net": "/nowhere"}}, {}) == {
        **whole,
        "start": {"net": "/nowhere"},
    }


def test_what_its_user_should_know_of_a_start_is_said(dense: Path, tmp_path: Path) -> None:
    shutil.copytree(dense, tmp_path / "early")
    parent = json.loads((dense / "spec.json").read_text())
    parent["exits"] = {"after": ["relu1"]}
    (tmp_path / "early" / "spec.json").write_text(json.dumps(parent))
    start = {"net": str(tmp_path / "early")}
    spec = dense_spec(start=start, seed=1, sparsity={"density": 0.5}, training={"distil": 0.5})
    said = "\n".join(runs.notes(spec))
    for part in (
        "connections chosen, values taken",
        "is the teacher too",
        "early exits of",
        "held out other samples",
    ):
        assert part in said
    quiet = list(runs.notes(dense_spec(start={"net": str(dense)})))
    assert quiet == [f"training begins with the net of {dense}"]
    assert list(runs.notes(dense_spec())) == []


def test_a_start_with_exits_gives_its_own_net(dense: Path, tmp_path: Path) -> None:
    spec = dense_spec(exits={"after": ["relu1"]})
    runs.train(spec, tmp_path / "early")
    early = runs.read_run(tmp_path / "early")
    found = begun(dense_spec(start={"net": str(tmp_path / "early")}))
    test = found.data.test
    np.testing.assert_array_equal(evaluate(found.model, test)[-1], evaluate(early.model, test)[-1])


def test_a_start_that_does_not_fit_is_refused_before_training(dense: Path, tmp_path: Path) -> None:
    def refuses(sentence: str, folder: Path = tmp_path / "new", **changes: object) -> None:
        with pytest.raises(PresplitError, match=sentence):
            runs.train(dense_spec(**changes), folder, replace=True)
        assert not (tmp_path / "new").exists()

    sparse = tmp_path / "sparse"
    distilled = {"epochs": 1, "distil": 0.5}
    runs.train(dense_spec(sparsity={"density": 0.5}, training=distilled), sparse)
    refuses(
        f"start.net: {sparse}: its net is sparse already.*its parent is {sparse}/teacher",
        start={"net": str(sparse)},
    )
    before = (sparse / "model.safetensors").read_bytes()
    refuses(
        "start.net: .*it is in the run that this one replaces; name another directory",
        sparse,
        start={"net": str(sparse / "teacher")},
    )
    assert (sparse / "model.safetensors").read_bytes() == before
    (tmp_path / "half" / "unfinished").mkdir(parents=True)
    shutil.copy(dense / "spec.json", tmp_path / "half" / "unfinished")
    half = {"net": str(tmp_path / "half")}
    refuses("start.net: .*half: not a finished run .*--resume finishes it", start=half)
    refuses("start.net: nowhere: no such run or file", start={"net": "nowhere"})
    start = {"net": str(dense)}
    refuses(
        r"another net .*its fc1.weight is \(32, 64\), expected \(16, 64\)",
        model={"kind": "mlp", "layers": [64, 16, 10]},
        start=start,
    )
    refuses(
        r"its net takes samples of shape \(1, 8, 8\), and those here are of shape \(80,\)",
        model={"kind": "mlp", "layers": [80, 32, 10]},
        data={"pad_to": 80},
        start=start,
    )
    refuses("it lacks .*it has also", model={"kind": "cnn"}, start=start)
    with pytest.raises(SpecError, match=r"start.values: 'fresh' is said of sparse layers, and the"):
        dense_spec(start={**start, "values": "fresh"})
    with pytest.raises(SpecError, match=r"start.values: expected one of taken, fitted, fresh"):
        dense_spec(start={**start, "values": "copied"})


def test_a_run_of_other_classes_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for classes in (3, 4):
        x, y = rng.random((40, 6), dtype=np.float32), np.arange(40) % classes
        np.savez(tmp_path / f"{classes}.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def told(classes: int, **more: object) -> Spec:
        return spec_from(
            {
                "model": {"kind": "mlp", "layers": [6, 8, classes]},
                "data": {"name": str(tmp_path / f"{classes}.npz")},
                "training": {"epochs": 1},
                **more,
            }
        )

    runs.train(told(3), tmp_path / "three")
    with pytest.raises(DataError, match=r"its fc2.weight is \(3, 8\), expected \(4, 8\)"):
        runs.train(told(4, start={"net": str(tmp_path / "three")}), tmp_path / "four")


def test_rows_are_standardised_as_the_start_was_or_by_the_training_set(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32), np.arange(40) % 2
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    told = {
        "model": {"kind": "mlp", "layers": [6, 8, 2]},
        "data": {"name": str(tmp_path / "rows.npz"), "standardise": True},
        "training": {"epochs": 1},
    }
    runs.train(spec_from(told), tmp_path / "run")
    torch.save(mlp([6, 8, 2]).state_dict(), tmp_path / "net.pt")
    for net in ("run", "net.pt"):
        found = begun(spec_from({**told, "start": {"net": str(tmp_path / net)}})).model
        np.testing.assert_allclose(found.standardise.mean, x.mean(0), rtol=1e-5)


def test_a_net_of_one_s_own_is_filled_and_its_changed_code_is_noticed(tmp_path: Path) -> None:
    def own(_: str) -> nn.Module:
        return small_cnn(width=8, bottleneck=4, channels=1, size=8, classes=10)

    def other(_: str) -> nn.Module:
        return nn.Sequential(*own("").children(), nn.Tanh())

    def named(_: str) -> nn.Module:
        net = own("")
        net.add_module("last", nn.Tanh())
        return net

    told = {"model": {"kind": "own", "factory": "nets:own"}, "training": {"epochs": 1}}
    runs.train(spec_from(told), tmp_path / "own", own=own)
    start = {"start": {"net": str(tmp_path / "own")}, "sparsity": {"density": 0.5}}
    spec = spec_from({**told, **start})
    first = begun(spec, own)
    assert any(
        isinstance(each, nn.Module) and hasattr(each, "values") for each in first.model.modules()
    )
    with pytest.raises(
        DataError, match=r"own: its values give other answers than when they were s"
    ):
        begun(spec, named)
    with pytest.raises(DataError, match="it is of another net"):
        begun(spec, other)


def test_a_file_s_net_is_read_without_its_spec(dense: Path) -> None:
    spec = dense_spec(start={"net": str(dense / "model.safetensors")}, sparsity={"density": 0.25})
    assert isinstance(begun(spec).model.fc1, SparseLinear)
    assert read_spec(dense / "spec.json").start is None
