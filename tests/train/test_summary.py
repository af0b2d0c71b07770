"""A summary counts what exists and says who profits."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.patterns import LEGAL, PATTERNS
from presplit.patterns.periodic_kernel import periodic_kernel
from presplit.train import (
    LayerSummary,
    SparseConv2d,
    SparseLinear,
    add_exits,
    count_weights,
    decide,
    sparsify,
    summary,
)
from presplit.train.nets.summary import FAST
from presplit.train.zoo import mlp, resnet8


def only(model: nn.Module, example: Tensor | None = None) -> LayerSummary:
    (row,) = summary(model, example)
    return row


@settings(max_examples=30)
@given(
    family=st.sampled_from([*PATTERNS]),
    data=st.data(),
    leading=st.sampled_from([(1,), (3,), (2, 5)]),
)
def test_a_linear_layer_multiplies_by_each_weight_once_at_each_position(
    family: str, data: st.DataObject, leading: tuple[int, ...]
) -> None:
    pattern = PATTERNS[family](24, 36, density=data.draw(st.sampled_from(LEGAL[family](24, 36))))
    row = only(SparseLinear(pattern), torch.zeros(*leading, 24))
    positions = 5 if len(leading) > 1 else 1
    assert (row.weights, row.macs) == (pattern.connections, pattern.connections * positions)
    assert (row.n_in, row.n_out, row.density) == (24, 36, pattern.density)


@settings(max_examples=30)
@given(
    family=st.sampled_from([*PATTERNS]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    axes=st.sampled_from([1, 2]),
)
def test_a_convolution_multiplies_by_each_weight_once_at_each_place(
    family: str, stride: int, padding: int, dilation: int, groups: int, axes: int
) -> None:
    kind, area = (nn.Conv1d, 3) if axes == 1 else (nn.Conv2d, 9)
    dense = kind(16, 32, 3, stride, padding, dilation, groups=groups)
    x = torch.zeros(2, 16, *(9, 8)[:axes])
    places = dense(x)[0, 0].numel()
    of_dense, of_sparse = only(dense, x), only(sparsify(dense, layers={"*": 0.5}, family=family), x)
    assert (
        of_dense.weights == 16 * 32 * area // groups and of_dense.macs == of_dense.weights * places
    )
    assert (
        of_sparse.weights == of_dense.weights // 2 and of_sparse.macs == of_sparse.weights * places
    )
    assert (of_dense.n_in, of_dense.n_out) == (of_sparse.n_in, of_sparse.n_out) == (16, 32)


def test_a_layer_that_runs_twice_is_counted_twice_in_multiplications_and_once_in_weights() -> None:
    tied = SparseLinear(PATTERNS["grouped"](16, 16, density=0.5))
    assert [
        (row.weights, row.macs)
        for row in summary(nn.Sequential(tied, nn.ReLU(), tied), torch.zeros(3, 16))
    ] == [(128, 256)]


def test_counting_leaves_the_net_as_it_was() -> None:
    net = sparsify(resnet8(width=16), density=0.5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    summary(net, torch.randn(2, 3, 8, 8))
    assert net.training and not any(module._forward_hooks for module in net.modules())
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_an_example_that_the_net_does_not_take_leaves_no_hooks() -> None:
    net = mlp([8, 4]).train()
    with pytest.raises(GraphError, match="does not take .* shapes cannot be multiplied"):
        summary(net, torch.zeros(1, 9))
    assert net.training and not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("family", "layer", "density", "faster_in", "note"),
    [
        ("grouped", (1024, 1024), 0.25, FAST, ""),
        ("tiled", (1024, 1024), 0.25, FAST, ""),
        ("grouped", (256, 256), 0.25, (), "too small to gain; runs as dense where it is exported"),
        ("tiled", (1024, 1024), 0.75, (), "density 0.75: smaller, not faster"),
        ("grouped", (1024, 1024), 1 / 128, (), "reads only 8 features: smaller, not faster"),
        ("biregular", (1024, 1024), 0.25, (), "exact, as fast as dense"),
        ("bernoulli", (1024, 1024), 0.25, (), "exact, as fast as dense"),
    ],
)
def test_a_linear_layer_says_where_it_is_faster_and_why_not_elsewhere(
    family: str, layer: tuple[int, int], density: float, faster_in: tuple[str, ...], note: str
) -> None:
    row = only(SparseLinear(PATTERNS[family](*layer, density=density)))
    assert (row.faster_in, row.note) == (faster_in, note)


def test_a_convolution_says_where_it_is_faster_and_why_not_elsewhere() -> None:
    wide, narrow = (PATTERNS["grouped"](64, 64, density=density) for density in (0.25, 0.125))
    supports = periodic_kernel((3, 3), support=2)
    rows = [
        only(SparseConv2d(wide, kernel_size=(3, 3))),
        only(SparseConv2d(wide, kernel_size=(3, 3), supports=supports)),
        only(SparseConv2d(narrow, kernel_size=(3, 3))),
        only(SparseConv2d(PATTERNS["biregular"](64, 64, density=0.25), kernel_size=(3, 3))),
    ]
    assert [(row.faster_in, row.note) for row in rows] == [
        (FAST, ""),
        (FAST, "kernels are multiplied whole"),
        ((), "reads only 8 features: smaller, not faster"),
        ((), "exact, as fast as dense"),
    ]


def test_a_layer_that_stayed_dense_says_why() -> None:
    net = nn.Sequential(
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, groups=64),
        nn.Conv2d(64, 7, 1),
        nn.Conv2d(7, 16, 1),
        nn.Conv2d(16, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    rows = summary(sparsify(net, density=0.25), decided=decide(net, density=0.25))
    assert [row.form for row in rows] == ["batched", *["dense"] * 5]
    assert [row.note for row in rows if "legal are" not in row.note] == [
        "",
        "depthwise: each output reads one channel already",
        "outputs would read only 4 features",
        "the classifier stays dense unless it is named",
    ]
    assert "64 -> 7 has no grouped pattern of density 0.25" in rows[2].note
    assert not any(row.faster_in for row in rows if row.form == "dense")


def test_the_exits_share_of_the_multiplications_is_said() -> None:
    net = add_exits(mlp([16, 16, 16, 4]), ["relu1", "relu2"], example=torch.zeros(1, 16))
    rows = summary(net, torch.zeros(1, 16))
    assert [row.exit for row in rows] == ["", "", "", "relu1", "relu2"]
    said = next(line for line in str(rows).splitlines() if line.startswith("exits"))
    assert said.split() == ["exits", "128", "128", "18.2", "%", "of", "all", "MACs"]
    assert "exits" not in str(summary(net.model))


def test_weights_are_counted_without_biases_and_normalisation() -> None:
    assert (
        count_weights(nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.Conv2d(4, 2, 3)))
        == 32 + 72
    )


def test_positions_of_a_linear_layer_are_all_that_stands_before_its_features() -> None:
    assert summary(nn.Linear(8, 4), torch.zeros(2, 5, 6, 8))[0].macs == 30 * 32


def test_a_frozen_part_stays_in_evaluation_mode() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.Dropout()).train()
    net[1].eval()
    summary(net, torch.zeros(1, 8))
    assert net.training and not net[1].training


def test_other_layers_with_weights_are_counted_and_called_dense() -> None:
    net = nn.Sequential(nn.Conv3d(4, 8, 3), nn.Embedding(10, 6), nn.LSTM(4, 5), nn.Linear(8, 8))
    rows = {row.name: row for row in summary(net)}
    assert [rows[name].weights for name in "0123"] == [864, 60, 180, 64]
    assert {row.form for row in rows.values()} == {"dense"}
    assert rows["1"].note == "Embedding: only Linear, Conv1d and Conv2d become sparse"


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.LSTM(4, 4), "LSTM: recurrent layers stay dense"),
        (nn.GRU(4, 4), "GRU: recurrent layers stay dense"),
        (nn.RNN(4, 4), "RNN: recurrent layers stay dense"),
        (nn.GRUCell(4, 4), "GRUCell: recurrent layers stay dense"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention: its packed projections stay dense"),
        (nn.Bilinear(4, 4, 4), "Bilinear: products of two inputs stay dense"),
        (nn.Conv3d(4, 4, 3), "Conv3d: 3-D convolutions stay dense"),
        (nn.ConvTranspose1d(4, 4, 3), "ConvTranspose1d: transposed convolutions stay dense"),
        (nn.ConvTranspose2d(4, 4, 3), "ConvTranspose2d: transposed convolutions stay dense"),
    ],
)
def test_a_layer_that_never_becomes_sparse_says_why_wherever_it_is_met(
    layer: nn.Module, why: str
) -> None:
    net = nn.Sequential(OrderedDict(other=layer, hidden=nn.Linear(64, 64), last=nn.Linear(64, 4)))
    decided = decide(net, density=0.25)
    assert decided["other"].why.startswith(why) and decided["hidden"].pattern is not None
    rows = {row.name: row for row in summary(sparsify(net, density=0.25), decided=decided)}
    own = sum(value.numel() for value in layer.parameters(recurse=False) if value.ndim > 1)
    assert (rows["other"].note, rows["other"].weights) == (decided["other"].why, own)
    nothing = nn.Sequential(OrderedDict(other=layer, last=nn.Linear(64, 4)))
    with pytest.raises(GraphError, match=rf"density 0.25 \(other: {why}.*; last: the classifier"):
        sparsify(nothing, density=0.25)
    for named in ("other", "oth*"):
        with pytest.raises(GraphError, match=f"layer other: {why}.*, or 'other' first with 1"):
            sparsify(net, layers={named: 0.25})
    with pytest.raises(GraphError, match=f"layer other: {why}"):
        sparsify(net, layers={"hidden": 0.25}, kernels={"other": periodic_kernel()})
    kept = sparsify(net, layers={"other": 1, "hidden": 0.25})
    assert type(kept.get_submodule("other")) is type(layer)


def test_a_weight_that_two_layers_share_is_counted_once() -> None:
    net = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10))
    net[1].weight = net[0].weight
    assert count_weights(net) == 60


def test_whole_kernels_of_few_entries_are_said_to_be_no_faster() -> None:
    net = sparsify(nn.Sequential(nn.Conv2d(64, 64, 3)), kernels={"0": periodic_kernel(support=4)})
    assert (summary(net)[0].faster_in, summary(net)[0].note) == ((), "kernels are multiplied whole")
