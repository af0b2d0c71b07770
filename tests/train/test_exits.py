"""Exits hang where they are named, in order, on taps of any rank, and change no model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.train import add_exits, sparsify
from presplit.train.nets.exits import ExitClassifier
from presplit.train.zoo import mlp, resnet8, small_cnn


def test_exits_bear_the_names_of_their_submodules_in_the_order_given() -> None:
    net = add_exits(small_cnn(width=8, size=8), ["block3", "stem"])
    assert net.exit_names == ("block3", "stem", "final")
    assert len(net(torch.zeros(2, 1, 8, 8))) == 3


def test_the_last_logits_are_the_model_s_own() -> None:
    model = small_cnn(width=8, size=8).eval()
    x = torch.randn(3, 1, 8, 8)
    found = add_exits(model, ["stem", "block3"], example=x).eval()(x)
    torch.testing.assert_close(found[-1], model(x), rtol=0, atol=0)


def test_an_early_exit_sees_only_what_runs_before_it() -> None:
    net = add_exits(mlp([8, 8, 8, 4]), ["relu1"], example=torch.zeros(1, 8))
    x = torch.randn(2, 8)
    before = net(x)
    with torch.no_grad():
        net.model.get_submodule("fc2").weight.zero_()  # type: ignore[union-attr]
    after = net(x)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert (after[1] != before[1]).any()


def test_the_user_s_model_is_unchanged() -> None:
    model = mlp([8, 8, 4])
    net = add_exits(model, ["relu1"], example=torch.zeros(1, 8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert all(parameter.any() for name, parameter in model.named_parameters() if "weight" in name)
    assert not any(module._forward_hooks for module in (*model.modules(), *net.modules()))


@pytest.mark.parametrize(
    "shape",
    [(7,), (3, 7), (4, 1, 1), (4, 2, 2), (4, 3, 3), (4, 5, 7), (4, 8, 8), (4, 11, 4), (4, 28, 28)],
)
def test_a_head_classifies_taps_of_every_shape(shape: tuple[int, ...]) -> None:
    head = ExitClassifier(5, pool=3)
    assert head(torch.randn(2, *shape)).shape == (2, 5)
    assert head.linear.in_features <= shape[0] * 9 or len(shape) < 3


@pytest.mark.parametrize(
    ("size", "windows"), [(1, 1), (2, 2), (3, 3), (4, 2), (7, 3), (8, 2), (14, 3), (28, 3)]
)
def test_pooling_leaves_at_most_three_windows_a_side(size: int, windows: int) -> None:
    head = ExitClassifier(2, pool=3)
    head(torch.zeros(1, 1, size, size))
    assert head.linear.in_features <= 9
    assert head.linear.in_features == windows**2


def test_the_classes_are_those_of_the_last_layer_unless_given() -> None:
    assert add_exits(mlp([8, 8, 4]), ["relu1"])(torch.zeros(1, 8))[0].shape == (1, 4)
    sparse = sparsify(mlp([64, 64, 32]), layers={"fc*": 0.5})
    assert add_exits(sparse, ["relu1"])(torch.zeros(1, 64))[0].shape == (1, 32)
    assert add_exits(mlp([8, 8, 4]), ["relu1"], classes=3)(torch.zeros(1, 8))[0].shape == (1, 3)


def test_sizes_come_from_an_example_or_from_the_first_call() -> None:
    with_example = add_exits(resnet8(width=8), ["block1"], example=torch.zeros(1, 3, 16, 16))
    later = add_exits(resnet8(width=8), ["block1"])
    later(torch.zeros(1, 3, 16, 16))
    assert [p.shape for p in with_example.parameters()] == [p.shape for p in later.parameters()]


def test_an_example_leaves_statistics_and_mode_as_they_are() -> None:
    model = resnet8(width=8).train()
    net = add_exits(model, ["block1"], example=torch.randn(4, 3, 16, 16))
    assert net.training
    torch.testing.assert_close(net.model.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["block9", "", "relu"])
def test_a_name_that_the_model_lacks_is_refused(name: str) -> None:
    with pytest.raises(
        GraphError, match=f"no submodule is called '{name}'; there are: flatten, fc1"
    ):
        add_exits(mlp([8, 8, 4]), [name])


def test_two_exits_at_one_submodule_are_refused() -> None:
    with pytest.raises(
        GraphError, match=r"each exit needs its own submodule, got \['relu1', 'relu1'\]"
    ):
        add_exits(mlp([8, 8, 4]), ["relu1", "relu1"])


def test_a_model_that_does_not_tell_its_classes_is_refused() -> None:
    with pytest.raises(
        GraphError, match="no linear layer to tell the number of classes: give classes="
    ):
        add_exits(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), ["0"])


def test_a_submodule_that_is_never_called_is_refused() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.classifier = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(x)

    with pytest.raises(GraphError, match="exit after 'idle': this submodule was not called"):
        add_exits(Idle(), ["idle"], example=torch.zeros(1, 4))


def test_a_submodule_that_gives_no_tensor_is_refused() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts, self.classifier = Parts(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.parts(x)["x"])

    class Parts(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    with pytest.raises(
        GraphError, match="exit after 'parts': its output is a dict, an exit needs one tensor"
    ):
        add_exits(Recurrent(), ["parts"], example=torch.zeros(1, 4))
