"""What each connection of a trained dense net is worth: what its layer's output would lose.

A layer's output is a sum over its inputs; leaving one out changes it by the weight times the input.
So a connection is worth the square of its weight (of its whole kernel) times the mean square of its
input over a batch. Source: Wanda (arXiv 2306.11695), squared and taken for whole kernels.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.train.layers.convolution import Convolution
from presplit.train.nets.calling import answer, evaluating

PART = 64
"""At most so many samples go through a net at a time: activations of images are large."""
Scores = npt.NDArray[np.float64]
"""float64 ``(n_out, n_in)``, 0 or more."""


def worth(model: nn.Module, names: Collection[str], samples: Tensor) -> dict[str, Scores]:
    """The worth of every connection of the named linear layers and convolutions.

    ``samples``: a batch of inputs. A layer that does not run on them, or reads nothing but zeros,
    is worth its squared weights. For one that runs several times, the calls' worths are added.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = nn.init.ones_(net[0].weight)
    >>> worth(net, ["0"], torch.tensor([[1.0, 3.0]]))["0"].tolist()
    [[1.0, 9.0]]
    """
    layers = {name: model.get_submodule(name) for name in names}
    squares = dict[str, Tensor]()
    share = 1.0

    def seen(name: str, layer: nn.Module, x: Tensor) -> None:
        if not x.numel():
            return
        axes = len(layer.kernel_size) if isinstance(layer, Convolution) else 0
        channels = x.ndim - 1 - axes
        over = [place for place in range(x.ndim) if place != channels]
        mean = _mean_square(x, over)
        squares[name] = squares.get(name, torch.zeros(())) + share * mean.cpu()

    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, given, named, name=name: seen(name, layer, what_is_read(given, named)),
            with_kwargs=True,
        )
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            for part in parts_of(samples):
                share = len(part) / len(samples)
                answer(model, part)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _scores(layer, squares.get(name)) for name, layer in layers.items()}


def parts_of(samples: Tensor) -> list[Tensor]:
    """``samples`` in parts of about equal size, at most `PART` each.

    Each part is spread over all samples, which may be in the order of their classes.
    """
    count = max(1, math.ceil(len(samples) / PART))
    return [samples[first::count] for first in range(count)]


def what_is_read(given: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Tensor:
    """The input of a layer, whether its caller names it or not."""
    return given[0] if given else named["input"]


def _mean_square(x: Tensor, over: list[int]) -> Tensor:
    """float64; at most a float32 copy of ``x`` is held."""
    squares = x.float().square()
    if not over:  # torch would take no axis for all axes
        return squares.double()
    return squares.mean(over, dtype=torch.float64)


def _scores(layer: nn.Module, squares: Tensor | None) -> Scores:
    """Of one layer; a convolution with groups has nothing between them."""
    assert isinstance(layer, nn.Linear | Convolution)
    weight = layer.weight.detach().double().cpu()
    own = weight.square().flatten(2).sum(2) if weight.ndim > 2 else weight.square()
    groups = getattr(layer, "groups", 1)
    if groups > 1:
        own = torch.block_diag(*own.chunk(groups))
    if squares is not None and bool(squares.any()):  # inputs that are all 0 tell nothing
        own = own * squares
    return own.numpy()
