"""Exits hang where they are named, in order, on taps of any rank, and change no model."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from presplit.core.errors import GraphError
from presplit.train import Recipe, add_exits, export, fit, sparsify
from presplit.train.data import Samples
from presplit.train.nets.add_exits import places
from presplit.train.nets.exits import ExitClassifier
from presplit.train.nets.inspect import survey
from presplit.train.nets.paths import uncertain_exits
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


def test_the_classes_are_those_that_the_net_gives_for_an_example() -> None:
    net = nn.Sequential(
        nn.Linear(9, 7),
        nn.Unflatten(1, (7, 1, 1)),
        nn.Conv2d(7, 3, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    assert add_exits(net, ["0"], example=torch.zeros(2, 9)).heads[0].linear.out_features == 3
    given = add_exits(net, ["0"], example=torch.zeros(2, 9), classes=5)
    assert given.heads[0].linear.out_features == 5


class Changing(nn.Module):
    """Changes in place what its layers gave, in each way that is seen."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.relu, self.classifier = nn.ReLU(inplace=in_place), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, 8)``."""
        y = self.relu(self.first(x))
        y = self.second(y)
        if self.in_place:
            y += 1
        else:
            y = y + 1
        y = self.third(y)
        y = y.mul_(2) if self.in_place else y * 2
        return self.classifier(y)


def test_an_exit_sees_what_its_layer_gave_before_the_next_one_changes_it() -> None:
    x, after = torch.randn(5, 8), ["first", "second", "third", "relu"]
    plain, changing = (
        add_exits(Changing(in_place=in_place), after, example=x) for in_place in (False, True)
    )
    changing.load_state_dict(plain.state_dict())
    for ours, theirs in zip(changing(x), plain(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for net in (plain, changing):
        torch.stack(net(x)).sum().backward()
    for (name, ours), theirs in zip(changing.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0, msg=name)


class Skipping(nn.Module):
    """Adds its input to what three layers make of it, the second of which is called twice."""

    def __init__(self, skip: str) -> None:
        super().__init__()
        self.skip = skip
        self.stem, self.place, self.next = (nn.Linear(8, 8) for _ in range(3))
        self.same, self.idle, self.classifier = nn.Identity(), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, 8)``."""
        if self.skip == "input":
            return self.classifier(self.next(self.place(x).relu()) + x)
        if self.skip == "twice":
            return self.classifier(self.place(x) - self.place(x.flip(1)))
        if self.skip == "in a row":
            return self.classifier(self.place(self.place(x).relu()))
        if self.skip == "memory":  # the input comes back in the memory of another tensor
            kept = torch.zeros_like(x)
            kept += x
            return self.classifier(self.next(self.place(x)) * kept)
        y = self.stem(x).relu()
        return self.classifier(self.same(self.next(self.place(y)) + y))


@pytest.mark.parametrize(
    ("skip", "after", "said"),
    [
        ("input", ["place"], "exit after 'place': .* does not hang on one boundary"),
        ("twice", ["place"], "exit after 'place': .* does not hang on one boundary"),
        ("memory", ["place"], "exit after 'place': .* does not hang on one boundary"),
        ("stem", ["classifier"], "exit after 'classifier': .* must hang on different boundaries"),
        ("stem", ["idle"], "exit after 'idle': this submodule was not called"),
    ],
)
def test_a_place_that_cannot_be_cut_is_refused_before_training(
    skip: str, after: list[str], said: str
) -> None:
    with pytest.raises(GraphError, match=said):
        add_exits(Skipping(skip), after, example=torch.zeros(1, 8))


def test_fit_refuses_a_place_before_it_trains() -> None:
    samples = Samples(np.zeros((4, 8)), np.arange(4))
    for skip, after in (("input", "place"), ("stem", "idle")):
        with pytest.raises(GraphError, match=f"exit after '{after}': "):
            fit(add_exits(Skipping(skip), [after], classes=4), samples, epochs=1)


def test_places_are_judged_in_float32_whatever_the_recipe_computes_in() -> None:
    samples = Samples(np.zeros((4, 8)), np.arange(4))
    net = add_exits(Skipping("stem"), ["stem", "place"])
    assert fit(net, samples, recipe=Recipe(epochs=1, bf16=True))


def test_a_row_of_places_is_certain_without_an_export() -> None:
    x = torch.zeros(1, 8)
    certain = (("stem", ["stem", "same"]), ("in a row", []))
    for skip, after in certain:
        assert uncertain_exits(add_exits(Skipping(skip), after), x) == []
    for skip, after in (("stem", "place"), ("in a row", "place"), ("twice", "place")):
        assert uncertain_exits(add_exits(Skipping(skip), [after]), x) == [after]
    net = add_exits(resnet8(width=8), ["stem", "block1", "block3"])
    assert uncertain_exits(net, torch.zeros(1, 3, 16, 16)) == []


def test_a_place_inside_a_branch_is_taken_where_the_net_can_be_cut_before_it() -> None:
    assert add_exits(Skipping("stem"), ["place"], example=torch.zeros(1, 8)).after == ("place",)


def test_an_exit_may_follow_a_submodule_of_any_name(tmp_path: Path) -> None:
    names = ["final", "a/b", "a b", "logits", "boundary_01", "Größe:1", "auto"]
    net = nn.Sequential(OrderedDict({name: nn.Linear(8, 8) for name in names}))
    net.append(nn.Linear(8, 4))
    model = add_exits(net, names, example=torch.zeros(1, 8))
    assert model.exit_names == (*names, "final_")
    bundle = export(model, torch.rand(2, 8), tmp_path / "net.bundle")
    assert [each.name for each in bundle.net.exits] == [*names, "final_"]


def test_an_exit_on_whole_numbers_is_refused() -> None:
    class Ids(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.long()

    net = nn.Sequential(Ids(), nn.Embedding(4, 8), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(GraphError, match="exit after '0': its output is int64"):
        add_exits(net, ["0"], example=torch.zeros(1, 1))


class Functional(nn.Module):
    """Layers with functions between them; some stand in a list called like what exporters wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.model = nn.ModuleList([nn.Linear(64, 32), nn.Linear(32, 32)])
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, 1, 8, 8)``."""
        x = functional.relu(self.conv1(x))
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        for layer in self.model:
            x = functional.relu(layer(x))
        return self.classifier(x)


def test_auto_finds_the_layers_before_functions() -> None:
    found = survey(Functional(), (1, 8, 8)).recommended
    assert found and set(found) <= {"conv1", "conv2", "model.0", "model.1"}
    early = Skipping("stem")
    early.place, early.next = nn.Linear(8, 256), nn.Linear(256, 8)
    assert places(early, torch.zeros(1, 8)) == ["stem"]  # its only place, before a tenth is done


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
