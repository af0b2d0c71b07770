"""What an export puts into the bundle besides the graph, and what cannot be exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from presplit.bundle import read
from presplit.core.errors import BundleError, GraphError, InputError
from presplit.core.plans import Plan
from presplit.policies import confidence
from presplit.train import add_exits, evaluate, export, to_onnx
from presplit.train.data import Samples
from presplit.train.zoo import mlp

X = np.random.default_rng(0).random((40, 8), np.float32)
CLOSE = 64 * float(np.finfo(np.float32).eps)
"""Sums of fewer float32 terms than this, taken in another order."""
SAMPLES = Samples(X, np.random.default_rng(1).integers(0, 4, 40))


def test_the_evidence_stands_in_the_order_in_which_exits_run(tmp_path: Path) -> None:
    net = add_exits(mlp([8, 8, 8, 4]), ["relu2", "relu1"], example=torch.zeros(1, 8))
    scores, hits = export(net, SAMPLES, tmp_path / "net.bundle").evidence()
    logits = evaluate(net, SAMPLES)[[1, 0, 2]]
    np.testing.assert_allclose(scores, [confidence(exit_) for exit_ in logits], atol=CLOSE)
    np.testing.assert_array_equal(hits, logits.argmax(-1) == SAMPLES.y)


def test_the_user_s_model_is_unchanged(tmp_path: Path) -> None:
    net = add_exits(mlp([8, 8, 4]), ["relu1"], example=torch.zeros(1, 8)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    export(net, X, tmp_path / "net.bundle")
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_a_net_in_training_mode_is_exported_as_it_answers() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    nodes = to_onnx(net, X).graph.node
    assert not {"Dropout", "ReduceMean"} & {node.op_type for node in nodes} and net.training


def test_without_labelled_samples_a_bundle_carries_no_evidence(tmp_path: Path) -> None:
    bundle = export(mlp([8, 4]), torch.from_numpy(X.copy()), tmp_path / "net.bundle")
    with pytest.raises(BundleError, match="holds no validation scores"):
        bundle.evidence()


def test_everything_that_was_given_is_read_back(tmp_path: Path) -> None:
    plan = Plan(1, codec="int8", deadline_s=0.1)
    labels = ("a", "b", "c", "d")
    export(
        mlp([8, 8, 4]),
        X,
        tmp_path / "n.bundle",
        name="mine",
        labels=labels,
        plan=plan,
        spec={"seed": 1},
    )
    found = read(tmp_path / "n.bundle").manifest
    assert (found.name, found.labels, found.plan, found.spec) == ("mine", labels, plan, {"seed": 1})
    assert found.versions["torch"] == str(torch.__version__)


def test_samples_that_are_sorted_by_class_are_calibrated_on_all_classes(tmp_path: Path) -> None:
    x = np.repeat(np.linspace(0, 1, 4, dtype=np.float32), 60)[:, None].repeat(8, 1)
    bundle = export(mlp([8, 4]), Samples(x, np.repeat(np.arange(4), 60)), tmp_path / "net.bundle")
    assert bundle.encoding(0, "int8").scale == pytest.approx(1 / 255)


def test_bytes_are_scaled_whatever_holds_them(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (16, 8), np.uint8)
    raw[0, 0], raw[0, 1] = 0, 255
    given = (raw, torch.from_numpy(raw), Samples(raw, np.zeros(16)), raw.tolist())
    scales = [
        export(mlp([8, 4]), each, tmp_path / "net.bundle").encoding(0, "int8").scale
        for each in given
    ]
    assert scales[:3] == pytest.approx([1 / 255] * 3) and scales[3] == pytest.approx(1)


def test_a_tensor_with_a_gradient_is_an_example_like_any_other(tmp_path: Path) -> None:
    grown = torch.from_numpy(X.copy()).to(torch.bfloat16).requires_grad_()
    bundle = export(mlp([8, 4]), grown, tmp_path / "net.bundle")
    assert bundle.encoding(0, "int8").scale == pytest.approx(1 / 255, rel=0.05)


@pytest.mark.parametrize(
    "example",
    [None, "photographs", object(), [[1.0], [1.0, 2.0]], X[0, 0], X.astype(complex), {}],
    ids=lambda example: type(example).__name__,
)
def test_what_is_no_array_of_samples_is_refused_in_a_sentence(
    example: object, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="example: expected Samples, or an array or tensor"):
        export(mlp([8, 4]), example, tmp_path / "net.bundle")
    with pytest.raises(InputError, match="example: expected Samples, or an array or tensor"):
        export(mlp([8, 4]), torch.eye(8).to_sparse(), tmp_path / "net.bundle")


def test_an_image_travels_as_int8_without_loss(tmp_path: Path) -> None:
    images = np.linspace(0, 1, 256, dtype=np.float32).reshape(2, 1, 8, 16)
    bundle = export(nn.Sequential(nn.Flatten(), nn.Linear(128, 4)), images, tmp_path / "net.bundle")
    assert bundle.encoding(0, "int8").scale == pytest.approx(1 / 255)


def test_a_plan_that_does_not_fit_leaves_the_old_bundle_whole(tmp_path: Path) -> None:
    old = export(mlp([8, 4]), X, tmp_path / "net.bundle")
    with pytest.raises(
        BundleError, match=r"net.bundle/manifest.json: plan: split must be in 0\.\..*, got 99"
    ):
        export(mlp([8, 8, 4]), X, tmp_path / "net.bundle", plan=Plan(99))
    assert read(tmp_path / "net.bundle") == old


def test_a_name_that_no_server_can_host_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="name: expected small letters, .* got 'My Net'"):
        export(mlp([8, 4]), X, tmp_path / "net.bundle", name="My Net")
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    """Control flow that depends on values cannot be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if bool(x.sum() > 0) else self.one(-x)


def test_what_torch_cannot_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="torch cannot export Branching: ") as caught:
        export(Branching(), X, tmp_path / "net.bundle")
    assert "\n" not in str(caught.value)


def test_samples_that_the_net_does_not_take_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        GraphError,
        match="Sequential does not take .* mat1 and mat2 shapes cannot be multiplied",
    ):
        export(mlp([8, 4]), np.zeros((3, 9), np.float32), tmp_path / "net.bundle")
    with pytest.raises(
        GraphError, match="an export needs at least one sample to run through the net, got none"
    ):
        export(mlp([8, 4]), np.zeros((0, 8), np.float32), tmp_path / "net.bundle")


def test_two_exits_at_one_boundary_are_refused(tmp_path: Path) -> None:
    net = add_exits(
        nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.ReLU(), nn.Linear(8, 4)), ["0", "1"]
    )
    with pytest.raises(GraphError, match="must hang on different boundaries"):
        export(net, X, tmp_path / "net.bundle")


def test_an_exit_inside_a_residual_block_hangs_before_it_and_computes_its_own_part(
    tmp_path: Path,
) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.relu(self.inner(x))

    net = add_exits(
        nn.Sequential(nn.Linear(8, 8), Block(), nn.Linear(8, 4)),
        ["1.inner"],
        example=torch.zeros(1, 8),
    )
    bundle = export(net, X, tmp_path / "net.bundle")
    assert bundle.net.exits[0].after == 1
    assert bundle.manifest.exits["1.inner"].macs == 8 * 8 + 8 * 4
