"""The nets whose accuracy is measured.

They are perceptrons, convolutional nets and a vision transformer, dense and sparse.

A builder takes the training samples (where receptive fields lie follows from them, without their
labels) and a seed, and gives the untrained net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from presplit.core.types import Pattern
from presplit.patterns import CHOSEN, data_aware, local
from presplit.train import Recipe, SparseLinear, add_exits, fit, sparsify
from presplit.train.data import Samples
from presplit.train.nets.copying import bare_copy
from presplit.train.nets.decide import Wanted
from presplit.train.nets.sparsify import Values
from presplit.train.nets.worth import worth
from presplit.train.zoo import log_mel_cnn, mlp, resnet, resnet8, small_cnn, vit

Builder = Callable[[Samples, int], nn.Module]
Sparse = Callable[[nn.Module, Samples, int], nn.Module]
"""Makes a sparse net of a dense one, given training samples and a seed."""
Family = Literal["biregular", "grouped"]

LAYOUT, PIXELS, PADDED = (28, 28), 784, 800
"""MNIST's images, and the features that arXiv 2407.11763 has of them: the images' 784 and zeros."""


def dense_mlp(*layers: int) -> Builder:
    """A dense perceptron of these sizes."""
    return lambda train, seed: mlp(layers)


def local_mlp(
    *layers: int, fields: int, second: int, tile: int = 1, family: Family = "biregular"
) -> Builder:
    """A perceptron whose first units read ``fields`` pixels each, the second ``second`` units.

    Each ``tile`` of first units shares a field; the centres lie where the training images vary. The
    last layer is dense.
    """

    def build(train: Samples, seed: int) -> nn.Module:
        weights = data_aware.importance(train.x.reshape(len(train), -1)[:, :PIXELS])
        first = local.local(
            LAYOUT, layers[1], fan_in=fields, n_in=layers[0], tile=tile, weights=weights, seed=seed
        )
        densities: dict[str, float | Pattern | Callable[..., Pattern]] = {
            "fc1": first,
            "fc2": second / layers[1],
        }
        return sparsify(mlp(layers), layers=densities, family=family, seed=seed)

    return build


QUARTER = {"block3.conv2": 1 / 8, "block*.conv*": 1 / 4}
"""Densities with which ResNet-8 has less than a quarter of the weights and multiplications.

The shortcuts of 1x1 stay dense, are cheap, and mix all channels.
"""
EIGHTH = {"block2.conv2": 1 / 16, "block3.conv*": 1 / 16, "block*.conv*": 1 / 8}
"""As `QUARTER`, for an eighth."""


def residual(*, width: int, layers: Mapping[str, float] | None = None) -> Builder:
    """ResNet-8 for 32 x 32 in colour, dense or with these ``layers`` sparse."""

    def build(train: Samples, seed: int) -> nn.Module:
        net = resnet8(width=width)
        return sparsify(net, layers=layers) if layers else net

    return build


def deep_behind(*, exits: Sequence[str] = ()) -> Builder:
    """A residual net of one stem at full size and its depth behind, sparse, with early exits.

    The first exit has a convolution of 64 channels, whose input is plain.
    """

    def build(train: Samples, seed: int) -> nn.Module:
        net = resnet(widths=(32, 64, 256), depths=(0, 1, 3))
        net = sparsify(net, layers={"block1.conv2": 1 / 4, "block[2-4].conv*": 1 / 4})
        few = torch.zeros(2, 3, 32, 32)
        return add_exits(net, exits, example=few, hidden=(64, 0), density=1 / 4) if exits else net

    return build


PHOTO_LAYERS = {"block1.conv*": 1 / 8, "block3.conv2": 1 / 8, "block*.conv*": 1 / 4}
SOUND_LAYERS = {"block1.conv": 1 / 8, "block2.conv": 1 / 8, "block*.conv": 1 / 4}


def photos(*, width: int = 64, classes: int = 10) -> Builder:
    """ResNet-8 behind a stem that makes photos a quarter as high and as wide."""
    return lambda train, seed: resnet(
        widths=(width, 2 * width, 4 * width), stride=4, classes=classes
    )


def sounds(*, width: int, rate: int) -> Builder:
    """The small CNN behind a log-mel spectrogram, which takes the sound itself."""
    return lambda train, seed: log_mel_cnn(rate=rate, width=width, bottleneck=width // 2)


def patches(*, width: int) -> Builder:
    """A vision transformer, 4 blocks over CIFAR-10's 16 patches of 8 x 8."""
    return lambda train, seed: vit(width=width, patch=8)


def from_dense(
    layers: Mapping[str, float],
    *,
    values: Values = "taken",
    exits: Sequence[str] = (),
    hidden: int = 0,
) -> Sparse:
    """A trained dense net with these ``layers`` sparse, their connections chosen from it.

    Each of the ``exits`` is fresh, and has a sparse convolution of ``hidden`` channels.
    """

    def make(dense: nn.Module, train: Samples, seed: int) -> nn.Module:
        few = torch.from_numpy(train.x[:: max(1, len(train) // 512)].copy())
        net = sparsify(
            dense, layers=layers, values=values, connections="chosen", samples=few, seed=seed
        )
        if not exits:
            return net
        return add_exits(net, exits, example=few[:2], hidden=hidden, density=1 / 4)

    return make


ROUND = Recipe(epochs=5, batch=256, rate=6e-3, augment="nudge", distil=0.7, temperature=3.0)
"""How a net learns to do with fewer connections, before there are fewer still."""


def in_rounds(weights: Sequence[int], totals: Sequence[int]) -> Sparse:
    """A trained dense perceptron left with these ``weights`` of each layer, in rounds.

    Round by round it keeps the connections that are worth most, as many as ``totals`` says of the
    whole net, and learns from the dense net to do with them; after the last round it is for the
    caller to train. Each layer has its share of every total, as much as it has left. Outputs read
    as many inputs as are worth it. A net that was never trained only has its connections chosen.
    """

    def make(dense: nn.Module, train: Samples, seed: int) -> nn.Module:
        net = dense
        for number, total in enumerate(totals):
            counts = [round(count * total / totals[-1]) for count in weights]
            net = _with_the_best(net, counts, train, seed=seed)
            if not dense.training and number < len(totals) - 1:
                fit(net, train, recipe=ROUND, teacher=dense, seed=seed + number)
        return net

    return make


def _with_the_best(
    net: nn.Module, counts: Sequence[int], train: Samples, *, seed: int
) -> nn.Module:
    """A perceptron with at most ``counts`` connections a layer, and the values they had."""
    whole = bare_copy(net)
    for name, layer in net.named_children():
        if isinstance(layer, SparseLinear):
            setattr(whole, name, layer.to_dense())
    linear = {name: layer for name, layer in whole.named_children() if isinstance(layer, nn.Linear)}
    scores = worth(whole, list(linear), torch.from_numpy(train.x[:4096].copy()))
    patterns: dict[str, Wanted] = {}
    for (name, score), count in zip(scores.items(), counts, strict=True):
        if count < score.size:
            patterns[name] = CHOSEN["bernoulli"](score, density=count / score.size, seed=seed)
    return sparsify(whole, layers=patterns, values="taken", seed=seed)


def bottlenecked(*, exits: Sequence[str]) -> Builder:
    """The small CNN with a narrow place, for MNIST's images, sparse at 1/4, with exits."""

    def build(train: Samples, seed: int) -> nn.Module:
        return add_exits(sparsify(small_cnn(width=32, bottleneck=16), density=1 / 4), list(exits))

    return build


def transformer() -> Builder:
    """A vision transformer, 4 blocks of 64 features over MNIST's 16 patches of 7 x 7."""
    return lambda train, seed: vit(patch=7, channels=1, size=28)
