"""Models that were not written for this become sparse, train, and are judged.

They get exits where those pay.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.train import (
    Recipe,
    SparseConv1d,
    SparseConv2d,
    SparseLinear,
    add_exits,
    evaluate,
    fit,
    sparsify,
    summary,
)
from presplit.train.data import Samples
from presplit.train.nets.add_exits import places
from presplit.train.nets.exits import taps
from presplit.train.zoo import (
    mixer,
    mlp,
    mobilenet_v2,
    resnet,
    resnet8,
    spectrogram_cnn,
    vgg,
    vit,
    waveform_cnn,
)

IMAGE, SMALL = (3, 32, 32), (3, 16, 16)
ZOO = {
    "mlp": (mlp([30, 64, 64, 64, 5]), (30,)),
    "vgg": (vgg(widths=(32, 64)), SMALL),
    "resnet8": (resnet8(width=8), SMALL),
    "resnet": (resnet(widths=(8, 16, 64), depths=(0, 1, 2)), SMALL),
    "mobilenet_v2": (mobilenet_v2(widths=(16, 32)), SMALL),
    "vit": (vit(width=32, depth=3), IMAGE),
    "mixer": (mixer(width=32, depth=3), IMAGE),
    "spectrogram_cnn": (spectrogram_cnn(width=32), (1, 49, 10)),
    "waveform_cnn": (waveform_cnn(width=32), (1, 2000)),
}
DENSE = ("waveform_cnn",)
"""Convolutions over one dimension stay dense."""

LONGER = ("mobilenet_v2", "mixer", "resnet")
NAMES = [pytest.param(name, marks=[pytest.mark.long] if name in LONGER else []) for name in ZOO]


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_model_gets_exits_where_it_can_be_cut_and_learns(name: str) -> None:
    """Two classes that a threshold on the mean tells apart."""
    model, shape = ZOO[name]
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 64)
    x = draw.normal(size=(64, *shape)).astype(np.float32)
    x += (2 * y - 1).reshape(-1, *(1,) * len(shape)).astype(np.float32)
    torch.manual_seed(0)
    sparse = model if name in DENSE else sparsify(model, density=0.25)
    net = add_exits(sparse, "auto", example=torch.from_numpy(x[:2]))
    assert 1 <= len(net.after) <= 2
    assert set(net.after) <= {each for each, _ in model.named_modules()}
    fit(net, Samples(x, y), recipe=Recipe(epochs=8, batch=16, rate=5e-3, optimiser="adamw"))
    logits = evaluate(net, Samples(x, y))
    assert logits.shape == (len(net.after) + 1, 64, net.heads[0].linear.out_features)
    assert (logits.argmax(-1) == y).mean(1).min() > 0.8 and not net.training


def test_one_exit_pays_most_after_a_third_of_the_multiplications() -> None:
    """A row of equal layers has its best exit at a third.

    The expected cost 1 - sqrt(c) + c sqrt(c) of an answer is lowest at c = 1/3.
    """
    layers = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(9)]
    model = nn.Sequential(*layers, nn.Linear(64, 2))
    assert places(model, torch.zeros(1, 64), most=1) == ["2.1"]


def test_a_net_without_a_place_of_its_own_is_refused() -> None:
    with pytest.raises(
        GraphError, match="has no submodule through which all of it passes: name the places"
    ):
        places(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 4))
    with pytest.raises(GraphError, match="need an example input to see the shapes: give example="):
        add_exits(mlp([4, 4, 2]), "auto")


def test_heads_may_have_a_hidden_layer_and_be_sparse() -> None:
    x = torch.zeros(2, *IMAGE)
    net = add_exits(resnet8(width=16), ["block1"], example=x, hidden=32, density=0.25)
    (layer,) = [part for part in net.heads[0] if isinstance(part, SparseConv2d)]
    assert layer.density == 0.25
    flat = add_exits(mlp([64, 64, 32, 8]), ["relu1"], example=torch.zeros(2, 64), density=0.25)
    assert isinstance(flat.heads[0].linear, SparseLinear)
    tokens = add_exits(vit(width=32, depth=1), ["block1"], example=x, hidden=16)
    sound = torch.zeros(2, 1, 2000)
    times = add_exits(waveform_cnn(), ["block1"], example=sound, hidden=16, density=0.5)
    assert isinstance(times.heads[0][1], SparseConv1d) and times.heads[0][1].density == 0.5
    for model, inputs in (
        (net, x),
        (flat, torch.zeros(2, 64)),
        (tokens, x),
        (times, sound),
    ):
        assert all(logits.shape[0] == 2 for logits in model(inputs))


def test_a_hidden_layer_costs_little_where_maps_are_large() -> None:
    """On the first block's 32 x 32 places it would cost as much as a fifth of the whole net."""
    net, x = resnet8(width=16), torch.zeros(1, *IMAGE)
    rows = summary(add_exits(net, ["stem", "block1"], example=x, hidden=32), x)
    whole = sum(row.macs for row in rows)
    for place in ("stem", "block1"):
        assert 0 < sum(row.macs for row in rows if row.exit == place) < 0.03 * whole


def test_each_exit_may_have_a_hidden_layer_of_its_own() -> None:
    x = torch.zeros(1, *SMALL)
    net = add_exits(
        resnet8(width=16), ["block1", "block2"], example=x, hidden=[32, 0], density=0.25
    )
    sparse = [isinstance(part, SparseConv2d) for head in net.heads for part in head.children()]
    assert sum(sparse) == 1 and net.heads[1].linear.in_features == 32 * 4
    with pytest.raises(GraphError, match=r"one for each exit after \['block1'\], got \[8, 8\]"):
        add_exits(resnet8(width=16), ["block1"], example=x, hidden=[8, 8])


def test_a_hidden_layer_over_time_reads_few_places_and_is_trained() -> None:
    sound = torch.randn(4, 1, 2000)
    net = add_exits(waveform_cnn(), ["block1"], example=sound, hidden=16)
    with taps(net.heads[0], ["0", "1"]) as seen:
        net(sound)[0].square().sum().backward()
    assert isinstance(net.heads[0][1], nn.Conv1d) and seen["0"].shape[-1] <= 64
    assert seen["1"].shape == (4, 16, seen["0"].shape[-1])
    assert all(value.grad is not None for value in net.heads.parameters())


def test_an_exit_over_time_means_over_time_and_one_over_tokens_over_tokens() -> None:
    sound = add_exits(waveform_cnn(width=32), ["block1"], example=torch.zeros(1, 1, 2000))
    assert sound.heads[0].linear.in_features == 32
    sparse = sparsify(waveform_cnn(width=32), layers={"block*": 0.25})
    stem = add_exits(sparse, ["stem"], example=torch.zeros(1, 1, 2000))
    assert stem.heads[0].linear.in_features == 32
    wholly = sparsify(nn.Sequential(nn.Conv1d(16, 16, 3)), layers={"*": 0.5})
    assert add_exits(wholly, ["0"], classes=4).heads[0].over_time
    image = add_exits(vit(width=48, depth=1, heads=4), ["block1"], example=torch.zeros(1, *IMAGE))
    assert image.heads[0].linear.in_features == 48


class WithMore(nn.Module):
    """Answers as the classifiers of transformers do."""

    class Answer:
        def __init__(self, logits: Tensor) -> None:
            self.logits, self.hidden = logits, None

    def __init__(self) -> None:
        super().__init__()
        self.body, self.classifier = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> WithMore.Answer:
        return self.Answer(self.classifier(torch.relu(self.body(x))))


def test_logits_are_taken_from_an_answer_that_holds_more() -> None:
    samples = Samples(np.random.default_rng(0).normal(size=(40, 8)), np.arange(40) % 3)
    model = WithMore()
    fit(model, samples, recipe=Recipe(epochs=1, batch=8))
    assert evaluate(model, samples).shape == (1, 40, 3)
    assert evaluate(add_exits(model, ["body"]), samples).shape == (2, 40, 3)


def test_a_model_that_gives_no_logits_is_refused() -> None:
    class Empty(nn.Linear):
        def forward(self, input: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"probabilities": input}

    with pytest.raises(
        GraphError, match="returns logits, or an object that has them as .logits, got dict"
    ):
        evaluate(Empty(2, 2), Samples(np.zeros((1, 2)), np.zeros(1)))


def test_sparse_layers_have_what_modules_read_of_dense_ones() -> None:
    sparse = sparsify(
        nn.Sequential(nn.Conv2d(32, 64, 3), nn.Flatten(), nn.Linear(64, 32)), layers={"*": 0.25}
    )
    convolution, linear = sparse[0], sparse[2]  # type: ignore[index]
    assert (convolution.in_channels, convolution.out_channels, convolution.kernel_size) == (
        32,
        64,
        (3, 3),
    )
    assert (linear.in_features, linear.out_features) == (64, 32)
    torch.testing.assert_close(linear.weight, linear.to_dense().weight, rtol=0, atol=0)
    assert set(dict(linear.named_parameters())) == {"values", "bias"}
