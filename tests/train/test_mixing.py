"""Sparse layers mix every input into every output in as few layers as can be.

They do so along the way that values take.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from presplit.patterns.grouped import layers_to_mix
from presplit.train import SparseConv1d, SparseConv2d, SparseLinear, sparsify
from presplit.train.layers.sparse import SparseLayer
from presplit.train.zoo import mlp, resnet8


def reached(layers: Sequence[SparseLayer]) -> np.ndarray:
    """Paths from every input of the first layer to every output of the last."""
    masks = [layer.pattern.mask().astype(np.float64) for layer in layers]
    return functools.reduce(lambda before, mask: mask @ before, masks)


MIXING = [
    (width, groups)
    for width in (16, 32, 48, 64, 96, 144)
    for groups in (2, 3, 4, 6, 8, 12)
    if width % groups == 0 and width // groups >= 8
]


@pytest.mark.parametrize(("width", "groups"), MIXING)
def test_linear_layers_in_a_row_reach_everything_in_as_few_as_can_be_from_wherever_they_begin(
    width: int, groups: int
) -> None:
    fewest = layers_to_mix(width, density=1 / groups)
    model = sparsify(mlp([width] * 6 + [4]), density=1 / groups)
    layers = [layer for layer in model.modules() if isinstance(layer, SparseLinear)]
    for first in range(5 - fewest + 1):
        assert (reached(layers[first : first + fewest]) > 0).all()
    assert fewest == 1 or (reached(layers[: fewest - 1]) == 0).any()


@pytest.mark.parametrize(("width", "groups"), MIXING)
@pytest.mark.parametrize(
    ("dense", "sparse"), [(nn.Conv1d, SparseConv1d), (nn.Conv2d, SparseConv2d)]
)
def test_convolutions_in_a_row_reach_everything_in_as_few_as_can_be(
    dense: type[nn.Module], sparse: type[SparseConv1d | SparseConv2d], width: int, groups: int
) -> None:
    """Every other one leaves the channels in place, so a row of them costs half the shuffles."""
    fewest = layers_to_mix(width, density=1 / groups)
    convolutions = [dense(width, width, 3) for _ in range(5)]
    model = sparsify(
        nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(width, 4)), density=1 / groups
    )
    layers = [layer for layer in model.modules() if isinstance(layer, sparse)]
    assert (reached(layers[:fewest]) > 0).all()
    assert fewest == 1 or (reached(layers[: fewest - 1]) == 0).any()
    for first in range(5 - fewest):
        assert (reached(layers[first : first + fewest + 1]) > 0).all(), (
            "one more where the row begins with a shuffle"
        )
    orders = ["straight", "dealt"] * 3 if width // groups >= groups else ["dealt"] * 5
    assert [layer.order for layer in layers] == orders[:5]


@settings(max_examples=15)
@given(
    widths=st.lists(st.sampled_from([64, 96, 128, 192]), min_size=3, max_size=3),
    groups=st.sampled_from([2, 4, 8]),
)
def test_two_layers_of_any_widths_reach_everything_if_groups_are_no_more_than_their_features(
    widths: list[int], groups: int
) -> None:
    dense = [nn.Conv2d(n_in, n_out, 3) for n_in, n_out in zip(widths, widths[1:], strict=False)]
    images = sparsify(
        nn.Sequential(*dense, nn.Flatten(), nn.Linear(widths[-1], 4)), density=1 / groups
    )
    vectors = sparsify(mlp([*widths, 4]), density=1 / groups)
    for kind, model in ((SparseConv2d, images), (SparseLinear, vectors)):
        layers = [layer for layer in model.modules() if isinstance(layer, kind)]
        assert len(layers) == 2 and (reached(layers) > 0).all()


def orders(model: nn.Module) -> list[str]:
    return [
        layer.order for layer in model.modules() if isinstance(layer, SparseLinear | SparseConv2d)
    ]


def test_neighbours_stay_together_where_nothing_sparse_is_read() -> None:
    """Neighbouring inputs belong together in most data; the next layer mixes.

    A dense layer between them mixes as well.
    """
    assert orders(sparsify(mlp([64, 64, 64, 64, 10]), density=0.25)) == [
        "straight",
        "dealt",
        "dealt",
    ]
    between = sparsify(mlp([64, 64, 64, 64, 10]), layers={"fc1": 0.25, "fc3": 0.25})
    assert orders(between) == ["straight", "straight"]


def test_a_layer_that_becomes_sparse_later_mixes_with_those_before_it() -> None:
    first = sparsify(mlp([64, 64, 64, 10]), layers={"fc1": 0.25})
    assert orders(sparsify(first, layers={"fc2": 0.25})) == ["straight", "dealt"]


class Towers(nn.Module):
    """Two rows of convolutions, registered in turn."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(4):
            for tower in "ab":
                setattr(self, f"{tower}{number}", nn.Conv2d(64, 64, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        a = b = x
        for number in range(4):
            a, b = (
                getattr(self, f"{tower}{number}")(y).relu() for tower, y in (("a", a), ("b", b))
            )
        return a + b


def test_convolutions_mix_along_the_way_that_values_take_and_not_as_they_are_registered() -> None:
    towers = sparsify(Towers(), layers={"*": 0.25})
    for tower in "ab":
        row = [towers.get_submodule(f"{tower}{number}") for number in range(4)]
        assert [layer.order for layer in row] == ["straight", "dealt"] * 2
    kernels = (3, 1, 3, 1, 3)
    images = sparsify(
        nn.Sequential(*(nn.Conv2d(64, 64, kernel) for kernel in kernels)), layers={"*": 0.25}
    )
    assert orders(images) == ["straight", "dealt"] * 2 + ["straight"], (
        "a convolution of 1x1 deals: it may be a shortcut"
    )


def test_where_it_cannot_be_told_which_layer_reads_which_all_deal() -> None:
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)) if x.sum() > 0 else x

    assert orders(sparsify(Choosing(), layers={"*": 0.25})) == ["dealt", "dealt"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_channel_of_a_residual_net_reaches_every_output_of_each_block(number: int) -> None:
    """Through both convolutions alone, without the shortcut.

    With positive weights nothing cancels.
    """
    net = sparsify(resnet8(width=64), density=0.25)
    block = net.get_submodule(f"block{number}")
    convolutions = [layer for name, layer in block.named_children() if name.startswith("conv")]
    assert (reached([layer for layer in convolutions if isinstance(layer, SparseConv2d)]) > 0).all()


def test_every_channel_of_a_residual_net_reaches_every_output_of_its_blocks() -> None:
    """Through all convolutions and shortcuts, the narrow ones left dense.

    With positive weights nothing cancels.
    """
    net = sparsify(resnet8(width=64), density=0.25)
    assert sum(isinstance(layer, SparseConv2d) for layer in net.modules()) == 8
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    blocks = net.eval()[1:4]  # type: ignore[index]
    x = torch.ones(1, 64, 8, 8, requires_grad=True)
    for channel in range(0, 256, 8):
        (gradient,) = torch.autograd.grad(blocks(x)[0, channel].sum(), x)
        assert (gradient.sum((2, 3)) > 0).all()
