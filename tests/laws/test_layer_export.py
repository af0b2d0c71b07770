"""Every sparse layer is the same in ONNX Runtime and in torch, and its file holds nothing dense."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.patterns.periodic_kernel import periodic_kernel
from presplit.runtime.engines.onnxruntime import Engine
from presplit.train import SparseConv1d, SparseConv2d, SparseLinear, sparsify
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.calling import AnswersAtExits
from presplit.train.nets.to_onnx import to_onnx
from presplit.train.zoo import mlp
from presplit.train.zoo.cnn import Residual

CLOSE = 2e-5
"""Relative to the largest value.

The sides take float32 sums of a few hundred terms in different orders.
"""
BATCHES = (1, 2, 7)
NODES = 8192
"""Bytes of the graph itself for one layer.

It has at most some 20 nodes with their names and places in the source.
"""


class Beside(AnswersAtExits):
    """Layers that read the same input, so that one export serves them all."""

    def __init__(self, layers: dict[str, SparseLayer]) -> None:
        super().__init__()
        self.names, self.layers = tuple(layers), nn.ModuleList(layers.values())

    @property
    def exit_names(self) -> tuple[str, ...]:
        return self.names

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


def check(net: nn.Module, shape: tuple[int, ...], names: list[str]) -> onnx.ModelProto:
    """The exported graph gives torch's outputs at every batch."""
    torch.manual_seed(0)
    model = to_onnx(net.eval(), torch.randn(1, *shape))
    engine = Engine(model.SerializeToString())
    for batch in BATCHES:
        x = torch.randn(batch, *shape)
        with torch.no_grad():
            out = net(x)
        ours = out if isinstance(out, tuple) else (out,)
        theirs = engine.run({"input": x.numpy()})
        for name, own, of_graph in zip(names, ours, theirs.values(), strict=True):
            assert own.shape == of_graph.shape
            assert np.abs(own.numpy() - of_graph).max() <= CLOSE * max(
                1.0, float(own.abs().max())
            ), (name, batch)
    return model


def check_size(model: onnx.ModelProto, layers: dict[str, SparseLayer]) -> None:
    """Four bytes for each value and index number, also where rows or kernels differ in length."""
    held = 0
    for layer in layers.values():
        held += (
            4 * layer.values.numel()
            + 4 * layer.index.numel()
            + 4 * layer.n_out * (layer.bias is not None)
        )
        if layer.kept is not None:
            held += (
                4 * layer.kept.numel() + NODES
            )  # kernels are put together in about as many nodes again
        held += 0 if layer.out_order is None else 12 * layer.n_out
    assert len(model.SerializeToString()) <= held + NODES * len(layers)


def linears(families: dict[str, Pattern]) -> dict[str, SparseLayer]:
    torch.manual_seed(0)
    made: dict[str, SparseLayer] = {}
    for number, (name, pattern) in enumerate(families.items()):
        layer = SparseLinear(pattern, bias=number % 3 > 0)
        if layer.bias is not None:
            nn.init.normal_(
                layer.bias
            )  # another one for every output: none can stand at another's place unseen
        made[name] = layer
    return made


@pytest.mark.parametrize(("n_in", "n_out", "density"), [(64, 48, 0.25), (512, 256, 0.25)])
def test_a_linear_layer_of_every_family_is_the_same_in_onnx_runtime(
    n_in: int, n_out: int, density: float
) -> None:
    """The small ones run as dense."""
    layers = linears(
        {family: PATTERNS[family](n_in, n_out, density=density) for family in PATTERNS}
    )
    check_size(check(Beside(layers), (n_in,), list(layers)), layers)


def forms(n_in: int, n_out: int, groups: int) -> dict[str, Pattern]:
    """Every way in which inputs go to tiles, with outputs in their order and in another."""
    random = np.random.default_rng(0)
    fan_in, tile = n_in // groups, n_out // groups
    indices = {
        "straight": np.arange(n_in).reshape(groups, fan_in),
        "dealt": np.arange(n_in).reshape(fan_in, groups).T,
        "any partition": random.permutation(n_in).reshape(groups, fan_in),
        "overlapping": np.stack(
            [random.choice(n_in, fan_in, replace=False) for _ in range(groups)]
        ),
        "ragged": np.stack(
            [np.where(np.arange(fan_in) < fan_in - k, np.arange(fan_in), -1) for k in range(groups)]
        ),
    }
    patterns = {name: Pattern(n_in, tile, index) for name, index in indices.items()}
    order = random.permutation(n_out)
    return patterns | {
        f"{name}, ordered": Pattern(n_in, tile, p.index, order) for name, p in patterns.items()
    }


def test_a_linear_layer_of_every_form_is_the_same_in_onnx_runtime() -> None:
    """Wide groups, of 128 inputs, are multiplied one by one, and narrow ones, of 32, as a batch."""
    wide, narrow = forms(512, 256, 4), forms(512, 256, 16)
    few = {f"narrow, {name}": narrow[name] for name in ("straight", "dealt", "dealt, ordered")}
    layers = linears(wide | few)
    check_size(check(Beside(layers), (512,), list(layers)), layers)


def test_a_linear_layer_with_positions_is_the_same_in_onnx_runtime() -> None:
    patterns = forms(512, 256, 4)
    layers = linears({name: patterns[name] for name in ("dealt", "dealt, ordered", "overlapping")})
    check(Beside(layers), (3, 512), list(layers))


AXES = pytest.mark.parametrize(("kind", "size"), [(SparseConv1d, (5,)), (SparseConv2d, (5, 4))])


@AXES
def test_a_convolution_of_every_family_and_form_is_the_same_in_onnx_runtime(
    kind: type[SparseConv1d | SparseConv2d], size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    families = {family: PATTERNS[family](32, 64, density=0.25) for family in PATTERNS}
    layers: dict[str, SparseLayer] = {}
    for number, (name, pattern) in enumerate((families | forms(32, 64, 4)).items()):
        mode = ("zeros", "reflect", "circular", "replicate")[number % 4]
        padding = "same" if number % 2 else (1,) * len(size)
        layers[name] = kind(
            pattern,
            kernel_size=(3,) * len(size),
            padding=padding,
            padding_mode=mode,
            bias=number % 3 > 0,
        )
    for layer in layers.values():
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
    check_size(check(Beside(layers), (32, *size), list(layers)), layers)


@AXES
def test_a_convolution_whose_kernels_keep_entries_is_the_same_in_onnx_runtime(
    kind: type[SparseConv1d | SparseConv2d], size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    every = forms(32, 64, 4)
    regular = {name: every[name] for name in ("straight", "dealt, ordered", "overlapping")}
    regular["scattered"] = PATTERNS["biregular"](32, 64, density=0.25)
    layers: dict[str, SparseLayer] = {}
    for name, pattern in regular.items():
        for dense in (0, 2):
            kernel = (3,) * len(size)
            supports = periodic_kernel(kernel, support=2, period=9, dense=dense)
            layers[f"{name}, {dense} whole"] = kind(pattern, kernel_size=kernel, supports=supports)
    check_size(check(Beside(layers), (32, *size), list(layers)), layers)


def test_whole_nets_are_the_same_in_onnx_runtime() -> None:
    net = sparsify(mlp([784, 1024, 512, 64, 10]), density=0.25)
    assert isinstance(net[-1], FeatureMajorLinear)  # type: ignore[index]
    check(net, (784,), ["logits"])
    block = nn.Sequential(
        Residual(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    images = sparsify(block, density=0.5, kernels={"0.conv?": periodic_kernel((3, 3), support=3)})
    check(images, (16, 8, 8), ["logits"])


def test_a_net_without_a_fixed_size_takes_batches_and_images_of_any_size() -> None:
    layers = [
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding="same"),
    ]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    for family in ("grouped", "biregular"):
        net = sparsify(nn.Sequential(*layers, *ends), density=0.25, family=family).eval()
        engine = Engine(
            to_onnx(net, torch.zeros(1, 32, 16, 16), open_axes=(2, 3)).SerializeToString()
        )
        for shape in ((1, 32, 16, 16), (3, 32, 7, 20)):
            x = torch.randn(shape)
            (found,) = engine.run({"input": x.numpy()}).values()
            np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=0, atol=CLOSE)


def test_a_net_over_time_takes_sequences_of_any_length() -> None:
    layers = [nn.Conv1d(32, 64, 5, stride=2, padding=2, padding_mode="circular"), nn.ReLU()]
    more = [nn.Conv1d(64, 64, 3, padding="same"), nn.MaxPool1d(2), nn.Conv1d(64, 64, 1)]
    ends = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10)]
    net = sparsify(nn.Sequential(*layers, *more, *ends), density=0.25).eval()
    assert sum(isinstance(layer, SparseConv1d) for layer in net.modules()) == 3
    exported = to_onnx(net, torch.zeros(1, 32, 40), open_axes=(2,))
    engine = Engine(exported.SerializeToString())
    for shape in ((1, 32, 40), (3, 32, 21)):
        x = torch.randn(shape)
        (found,) = engine.run({"input": x.numpy()}).values()
        np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=0, atol=CLOSE)


def test_open_axes_that_mean_nothing_or_that_the_net_fixes_are_refused() -> None:
    image, legal = (
        torch.zeros(1, 32, 8, 8),
        nn.Sequential(nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    for axes in ((-1,), (4,), (0,), (2, 2), ("h",), 2):
        with pytest.raises(
            GraphError,
            match="open_axes: expected different numbers of 1..3, the batch being axis 0",
        ):
            to_onnx(legal, image, open_axes=axes)  # type: ignore[arg-type]
    with pytest.raises(
        GraphError,
        match=r"Sequential works at \(64,\) and not at \(97,\): leave axes \(1,\) closed|export",
    ):
        to_onnx(mlp([64, 10]), torch.zeros(1, 64), open_axes=(1,))
    pooled = nn.Sequential(
        nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 4)
    )
    with pytest.raises(
        GraphError, match=r"graph of Sequential is right at \(32, 8, 8\) and not at \(32, 13, 13\)"
    ):
        to_onnx(pooled, image, open_axes=(2, 3))


def test_a_grouped_layer_is_exported_without_a_gather_of_features_or_a_dense_weight() -> None:
    """Where inputs are dealt in turn, the gather is a view.

    Wide groups pick only constant weights.
    """
    for density, products in ((0.25, 4), (0.0625, 1)):
        layer = SparseLinear(PATTERNS["grouped"](512, 512, density=density), bias=False)
        graph = to_onnx(layer, torch.zeros(1, 512)).graph
        found = Counter(node.op_type for node in graph.node)
        assert found["MatMul"] + found["Gemm"] == products
        assert not set(found) & {"ScatterElements", "GatherND", "ScatterND"}
        assert {node.input[0] for node in graph.node if node.op_type == "Gather"} <= {
            "model.values"
        }


def test_a_partition_of_channels_is_exported_as_one_grouped_convolution() -> None:
    layer = SparseConv2d(PATTERNS["grouped"](32, 64, density=0.25), kernel_size=(3, 3))
    (node,) = [
        n for n in to_onnx(layer, torch.zeros(1, 32, 5, 5)).graph.node if n.op_type == "Conv"
    ]
    assert next(a.i for a in node.attribute if a.name == "group") == 4
