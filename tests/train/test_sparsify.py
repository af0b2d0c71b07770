"""Sparsify changes only what is asked for, never the user's model, and refuses the impossible."""

from __future__ import annotations

import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError, PatternError, SpecError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS, biregular, local
from presplit.patterns.butterfly import butterfly
from presplit.patterns.periodic_kernel import periodic_kernel
from presplit.train import (
    SparseConv2d,
    SparseLinear,
    add_exits,
    count_weights,
    decide,
    moved,
    sparsify,
    summary,
)
from presplit.train.zoo import mlp, resnet8, small_cnn

CLOSE = 1024 * torch.finfo(torch.float32).eps
"""Sums of fewer float32 terms than this, each of which may be rounded once more."""


def forms(model: nn.Module) -> dict[str, str]:
    return {row.name: str(row.form) for row in summary(model)}


@pytest.mark.parametrize("family", PATTERNS)
def test_every_layer_but_the_classifier_gets_exactly_the_density(family: str) -> None:
    model = sparsify(mlp([64, 64, 32, 16]), density=0.25, family=family)
    assert [row.density for row in summary(model)] == [0.25, 0.25, 1.0]
    assert count_weights(model) == 64 * 16 + 64 * 8 + 32 * 16


def test_the_user_s_model_is_unchanged() -> None:
    model = mlp([64, 32, 10])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparsify(model, density=0.25)
    assert all(
        isinstance(layer, nn.Linear)
        for name, layer in model.named_children()
        if name.startswith("fc")
    )
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["biregular", "bernoulli"])
def test_the_seed_chooses_the_pattern_and_layers_differ(family: str) -> None:
    one, same, other = (
        sparsify(mlp([64, 64, 64, 8]), density=0.25, family=family, seed=s) for s in (1, 1, 2)
    )
    masks = [
        [layer.pattern.mask() for layer in model.modules() if isinstance(layer, SparseLinear)]
        for model in (one, same, other)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0][0] != masks[2][0]).any() and (masks[0][0] != masks[0][1]).any()


def test_unsuitable_layers_stay_dense_unless_they_are_named() -> None:
    """32 -> 7 has no such density; 16 -> 32 would read 4 features.

    The depthwise convolution is grouped already.
    """
    net = nn.Sequential(
        OrderedDict[str, nn.Module](
            good=nn.Conv2d(64, 32, 3),
            odd=nn.Conv2d(32, 7, 1),
            back=nn.Conv2d(7, 16, 1),
            depthwise=nn.Conv2d(16, 16, 3, groups=16),
            reflecting=nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
            narrow=nn.Conv2d(16, 32, 1),
            flat=nn.Flatten(),
            classifier=nn.LazyLinear(10),
        )
    )
    net(torch.zeros(1, 64, 8, 8))
    assert {
        name for name, form in forms(sparsify(net, density=0.25)).items() if form != "dense"
    } == {"good"}
    named = sparsify(net, layers={"narrow": 0.25, "good": 0.5})
    assert {name for name, form in forms(named).items() if form != "dense"} == {"good", "narrow"}


def test_names_win_over_the_density_and_globs_match_many() -> None:
    model = sparsify(resnet8(width=16), density=0.5, layers={"block1.*": 0.25, "classifier": 0.5})
    found = {row.name: row.density for row in summary(model)}
    assert found["block1.conv1"] == found["block1.conv2"] == 0.25
    assert found["block3.conv2"] == found["classifier"] == 0.5


def test_the_first_name_that_matches_counts() -> None:
    model = sparsify(mlp([64, 64, 64, 8]), layers={"fc1": 0.125, "fc*": 0.25})
    assert [row.density for row in summary(model)] == [0.125, 0.25, 0.25]


def test_a_pattern_of_one_s_own_is_taken_as_it_is() -> None:
    pattern = biregular(800, 40, fan_out=2)
    model = sparsify(mlp([800, 40, 10]), layers={"fc1": pattern})
    layer = model.get_submodule("fc1")
    assert isinstance(layer, SparseLinear)
    np.testing.assert_array_equal(layer.pattern.index, pattern.index)


def test_a_family_of_one_s_own_is_taken_as_it_is() -> None:
    def first(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
        return Pattern(n_in, n_out, np.arange(round(density * n_in))[None])

    model = sparsify(mlp([64, 16, 4]), density=0.5, family=first)
    assert forms(model) == {"fc1": "batched", "fc2": "dense"}


def test_the_summary_says_how_each_layer_runs() -> None:
    model = sparsify(small_cnn(width=16, size=8), density=0.25)
    rows = {row.name: row for row in summary(model)}
    assert rows["stem.conv"].form == "dense" and rows["block2.conv"].form == "batched"
    assert rows["block2.conv"].weights == 32 * 32 * 9 // 4
    scattered = sparsify(mlp([64, 64, 8]), density=0.25, family="biregular")
    assert forms(scattered)["fc1"] == "scattered"
    assert "density=0.25, tile=1, form=scattered" in repr(scattered)


def test_values_are_drawn_for_their_own_fan_in() -> None:
    torch.manual_seed(0)
    layer = sparsify(mlp([1024, 256, 10]), density=0.25).get_submodule("fc1")
    assert isinstance(layer, SparseLinear)
    assert float(layer.values.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.02)


def test_what_is_frozen_keeps_its_values() -> None:
    """Unless it is named: fresh values would never be trained."""
    net = mlp([64, 32, 32, 4])
    net.get_submodule("fc1").requires_grad_(False)
    assert forms(sparsify(net, density=0.5)) == {"fc1": "dense", "fc2": "batched", "fc3": "dense"}
    assert decide(net, density=0.5)["fc1"].why.startswith("frozen: the fresh values")


def test_a_layer_under_two_names_becomes_sparse_under_both() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.once = self.twice = nn.Linear(32, 32)
            self.classifier = nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.twice(self.once(x)))

    model = sparsify(Tied(), density=0.25)
    assert isinstance(model.once, SparseLinear) and model.twice is model.once


def test_a_model_that_is_one_layer_becomes_a_sparse_layer() -> None:
    assert isinstance(sparsify(nn.Linear(16, 16), layers={"*": 0.5}), SparseLinear)
    assert isinstance(sparsify(nn.Conv2d(16, 16, 3), layers={"*": 0.5}), SparseConv2d)


def test_layers_that_are_more_than_linear_stay_as_they_are() -> None:
    """An attention's output projection is read by the attention, which knows no sparse layer."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
            self.hidden, self.classifier = nn.Linear(32, 64), nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.hidden(self.attention(x, x, x)[0]).mean(1))

    model = sparsify(Attending(), density=0.25)
    assert {name for name, form in forms(model).items() if form != "dense"} == {"hidden"}
    assert model(torch.zeros(2, 5, 32)).shape == (2, 4)


def test_a_head_that_has_no_size_yet_stays_dense_and_is_not_summed_up() -> None:
    net = sparsify(add_exits(mlp([64, 64, 64, 8]), ["relu1", "relu2"]), layers={"model.fc*": 0.25})
    assert isinstance(net.get_submodule("model.fc2"), SparseLinear)
    with pytest.raises(GraphError, match=r"layer heads.0.linear has no size yet: run an example"):
        summary(net)
    assert [logits.shape for logits in net(torch.zeros(2, 64))] == [(2, 8)] * 3
    assert forms(net)["heads.1.linear"] == "dense"


@pytest.mark.parametrize("name", ["fc9", "FC1", "relu1", ""])
def test_a_name_that_matches_no_layer_is_refused(name: str) -> None:
    with pytest.raises(
        GraphError, match=f"no Linear, Conv1d or Conv2d is called '{name}'; there are: fc1, fc2"
    ):
        sparsify(mlp([64, 64, 8]), layers={name: 0.25})


def test_a_density_that_a_named_layer_cannot_have_is_refused_with_the_layer_s_name() -> None:
    with pytest.raises(
        PatternError, match=r"layer fc1: 64 -> 64 has no grouped pattern of density 0.3"
    ):
        sparsify(mlp([64, 64, 8]), layers={"fc1": 0.3})


def test_a_pattern_of_another_size_is_refused_with_the_layer_s_name() -> None:
    with pytest.raises(
        PatternError, match=r"layer fc1: the layer is 64 -> 64, the pattern 800 -> 40"
    ):
        sparsify(mlp([64, 64, 8]), layers={"fc1": biregular(800, 40, fan_out=2)})


def test_a_depthwise_convolution_is_refused_if_it_is_named_and_left_alone_if_not() -> None:
    net = nn.Sequential(
        nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 64, 1), nn.Flatten(), nn.Linear(64, 4)
    )
    with pytest.raises(GraphError, match="layer 0: a depthwise convolution has no connections"):
        sparsify(net, layers={"0": 0.5})
    decided = decide(net, density=0.5)
    assert [decided[name].pattern is not None for name in "013"] == [False, True, False]
    assert decided["0"].why == "depthwise: each output reads one channel already"
    assert decided["3"].why == "the classifier stays dense unless it is named"


@pytest.mark.parametrize("family", PATTERNS)
def test_a_convolution_with_groups_is_sparse_within_each_of_them(family: str) -> None:
    dense = nn.Conv2d(32, 16, 3, groups=2, padding=1, padding_mode="circular")
    model = sparsify(
        nn.Sequential(dense, nn.Flatten(), nn.Linear(16, 4)), layers={"0": 0.25}, family=family
    )
    layer = model.get_submodule("0")
    assert isinstance(layer, SparseConv2d)
    mask = layer.pattern.mask()
    assert not mask[:8, 16:].any() and not mask[8:, :16].any()
    assert layer.values.numel() == dense.weight.numel() // 4
    layer.take_dense(torch.ones(16, 32, 3, 3), dense.bias)
    x = torch.randn(2, 32, 5, 5)
    torch.testing.assert_close(layer(x), layer.to_dense()(x), rtol=CLOSE, atol=CLOSE)


def test_kernels_keep_the_entries_that_are_asked_for() -> None:
    supports = periodic_kernel((3, 3), support=2, period=9)
    net = sparsify(resnet8(width=16), density=0.5, kernels={"block?.conv?": supports})
    rows = {row.name: row for row in summary(net, torch.zeros(1, 3, 32, 32))}
    assert rows["block1.conv1"].weights == 16 * 8 * 2 and rows["block1.conv1"].density == 1 / 9
    assert "2 of 9 entries a kernel" in rows["block1.conv1"].pattern
    alone = sparsify(resnet8(width=16), kernels={"stem.conv": supports}).get_submodule("stem.conv")
    assert isinstance(alone, SparseConv2d) and alone.values.shape == (16, 3, 2)
    with pytest.raises(GraphError, match="layer fc1: only convolutions have kernels"):
        sparsify(mlp([8, 8, 4]), kernels={"fc1": supports})
    with pytest.raises(
        PatternError,
        match=r"layer shortcut: the layer's kernels are \(1, 1\), the supports are of \(3, 3\)",
    ):
        sparsify(
            nn.Sequential(OrderedDict(shortcut=nn.Conv2d(8, 8, 1))), kernels={"shortcut": supports}
        )


def test_the_summary_prints_a_table_that_says_who_profits() -> None:
    net = mlp([784, 1024, 64, 10])
    decided = decide(net, density=0.25)
    rows = summary(sparsify(net, density=0.25), torch.zeros(1, 784), decided=decided)
    text = str(rows).splitlines()
    said = {line.split()[0]: line for line in text}
    assert "grouped: 4 tiles of 256 outputs x 196 inputs" in said["fc1"]
    assert "PyTorch, ONNX Runtime, OpenVINO" in said["fc1"]
    assert said["fc1"].split()[-6:-4] == ["200,704", "200,704"]
    assert "runs as dense where it is exported" in said["fc2"]
    assert "the classifier stays dense" in said["fc3"]
    assert text[-1].split() == ["all", "217,728", "217,728"]


def orders(model: nn.Module) -> list[str]:
    return [
        layer.order for layer in model.modules() if isinstance(layer, SparseLinear | SparseConv2d)
    ]


def test_a_family_may_be_named_for_one_layer() -> None:
    field = local.over((8, 8), tile=16)
    net = sparsify(mlp([64, 64, 64, 10]), layers={"fc1": field}, density=0.25)
    assert [layer.family for layer in net.modules() if isinstance(layer, SparseLinear)] == [
        "local",
        "grouped",
    ]
    with pytest.raises(
        PatternError,
        match="layer fc1: a family draws patterns of a density: give sparsify density=",
    ):
        sparsify(mlp([64, 64, 10]), layers={"fc1": field})


def test_what_is_no_density_no_pattern_and_no_family_is_refused() -> None:
    pair = butterfly(64, 64, groups=4)
    with pytest.raises(
        PatternError, match="layer fc1: expected a density, a Pattern or a family .*, got Butterfly"
    ):
        sparsify(mlp([64, 64, 10]), layers={"fc1": pair})  # type: ignore[dict-item]


def test_the_classifier_is_the_layer_that_runs_last() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(64, 16), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.body(x)))

    assert forms(sparsify(HeadFirst(), density=0.25)) == {"head": "dense", "body": "batched"}


def test_a_density_that_no_layer_can_have_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        GraphError,
        match=r"can have density 0.3 \(fc1: 64 -> 64 has no grouped .* nearest: 0.25, 0.5; fc2",
    ):
        sparsify(mlp([64, 64, 10]), density=0.3)


def test_what_a_layer_carries_is_kept_or_refused() -> None:
    model = nn.Sequential(
        nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
    ).eval()
    model[0].requires_grad_(False)
    sparse = sparsify(model, layers={"0": 0.25})
    assert (
        not any(value.requires_grad for value in sparse[0].parameters()) and not sparse[0].training
    )  # type: ignore[index]
    model[2].weight = model[1].weight
    model[0].register_forward_hook(lambda *_: None)
    for name, message in (("1", "shares its weight with another module"), ("0", "has hooks")):
        with pytest.raises(
            GraphError, match=f"layer {name}: it {message}, which a sparse layer would lose"
        ):
            sparsify(model, layers={name: 0.25})
    assert not orders(
        sparsify(nn.Sequential(*model, nn.Linear(64, 64), nn.Linear(64, 10)), density=0.25)
    )[1:]


def test_a_name_pattern_that_decides_nothing_is_refused() -> None:
    with pytest.raises(
        GraphError,
        match="'fc1' decides nothing: name patterns before it fit the same layers; put it",
    ):
        sparsify(mlp([64, 64, 64, 10]), layers={"fc*": 0.25, "fc1": 0.5})
    assert sparsify(mlp([64, 64, 64, 10]), layers={"fc1": 0.5, "fc*": 0.5}) is not None
    assert not orders(sparsify(mlp([64, 64, 10]), layers={"fc*": 1}))
    with pytest.raises(PatternError, match="density must be in 0..1, got nan"):
        sparsify(mlp([64, 64, 10]), density=float("nan"))


def test_an_encoder_of_torch_runs_in_both_modes() -> None:
    """Its fast path reads the weights of its linear layers."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0), 2
    )
    sparse = sparsify(encoder, layers={"*linear?": 0.25})
    assert len(orders(sparse)) == 4
    x = torch.randn(2, 5, 64)
    training = sparse.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(sparse.eval()(x), training, rtol=CLOSE, atol=CLOSE)
    linear = sparse.get_submodule("layers.0.linear1")
    torch.testing.assert_close(linear(input=x), linear(x), rtol=0, atol=0)


def test_a_layer_that_is_more_than_linear_is_refused_if_it_is_named() -> None:
    attention = nn.Sequential(nn.MultiheadAttention(32, 2), nn.Linear(32, 4))
    with pytest.raises(GraphError, match="layer 0.out_proj: .*NonDynamicallyQuantizableLinear"):
        sparsify(attention, layers={"0.out_proj": 0.25})
    with pytest.raises(GraphError, match="layer 0: it has no size yet: run an example"):
        sparsify(nn.Sequential(nn.LazyLinear(4)), layers={"0": 0.25})


@pytest.mark.parametrize("model", [mlp([64, 10]), nn.Sequential(nn.ReLU()), mlp([60, 50, 7])])
def test_a_model_in_which_nothing_can_become_sparse_is_refused(model: nn.Module) -> None:
    with pytest.raises(GraphError, match="no layer of Sequential can have density 0.25"):
        sparsify(model, density=0.25)


def test_an_unknown_family_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        SpecError, match="no pattern family named 'group' .nearest: grouped.*biregular, bernoulli"
    ):
        sparsify(mlp([64, 64, 8]), density=0.25, family="group")


def test_one_density_for_a_model_with_exits_is_refused() -> None:
    model = add_exits(mlp([8, 16, 4]), after=["relu1"])
    with pytest.raises(GraphError, match="call sparsify before add_exits"):
        sparsify(model, density=0.5)


def test_the_nearest_density_is_taken_where_it_is_asked_for_and_told() -> None:
    net = mlp([64, 48, 36, 37, 10])
    found = sparsify(net, density=0.3, layers={"fc2": 0.21}, nearest=True)
    has = {name: layer.pattern.density for name, layer in sparse_layers(found).items()}
    # 48 and 36 share the divisors 1, 2, 3, 4, 6 and 12; 36 -> 37 has only 1, and stays dense
    assert has == {"fc1": 0.25, "fc2": 0.25}
    assert moved(found) == {"fc1": (0.3, 0.25), "fc2": (0.21, 0.25)}
    assert decide(net, density=0.3, nearest=True)["fc3"].why == (
        "density 0.3: the nearest that it can have is 1"
    )
    assert moved(sparsify(net, density=0.25, nearest=True)) == {}
    # outputs of layers that nobody names read 8 features at least: 64 / 8, not 64 / 16
    assert moved(sparsify(mlp([64, 64, 10]), density=0.07, nearest=True)) == {"fc1": (0.07, 0.125)}
    with pytest.raises(PatternError, match="; --nearest .* takes the nearest of each layer"):
        sparsify(net, layers={"fc2": 0.21})
    with pytest.raises(GraphError, match="name layers and densities; --nearest"):
        sparsify(net, density=0.3)
    # 64 -> 33 has no grouped pattern but the whole one: the nearest is no cure, other families are
    odd = mlp([64, 33, 10])
    with pytest.raises(GraphError, match="; --nearest with --family ([a-z_]+)") as told:
        sparsify(odd, density=0.37)
    family = re.search("--family ([a-z_]+)", str(told.value))
    assert family and sparse_layers(sparsify(odd, density=0.37, family=family[1], nearest=True))
    with pytest.raises(PatternError, match="nearest: 1$"):
        sparsify(odd, layers={"fc1": 0.37})


def sparse_layers(model: nn.Module) -> dict[str, SparseLinear]:
    """Those that became sparse."""
    return {name: each for name, each in model.named_modules() if isinstance(each, SparseLinear)}
