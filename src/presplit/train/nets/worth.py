"""What each connection of a trained dense net is worth: what its layer's output would lose.

A layer's output is a sum over its inputs; leaving one out changes it by the weight times the input.
So a connection is worth the square of its weight (of its whole kernel) times the mean square of its
input over a batch. Source: Wanda (arXiv 2306.11695), squared and taken for whole kernels.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.train.layers.convolution import Convolution
from presplit.train.nets.calling import answer, evaluating

Scores = npt.NDArray[np.float64]
"""float64 ``(n_out, n_in)``, 0 or more."""


def worth(model: nn.Module, names: Collection[str], samples: Tensor) -> dict[str, Scores]:
    """The worth of every connection of the named linear layers and convolutions.

    ``samples``: a batch of inputs. A layer that does not run on them is worth its squared weights.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = nn.init.ones_(net[0].weight)
    >>> worth(net, ["0"], torch.tensor([[1.0, 3.0]]))["0"].tolist()
    [[1.0, 9.0]]
    """
    layers = {name: model.get_submodule(name) for name in names}
    squares = dict[str, Tensor]()

    def seen(name: str, layer: nn.Module, x: Tensor) -> None:
        channels = 1 if isinstance(layer, Convolution) else x.ndim - 1
        over = [place for place in range(x.ndim) if place != channels]
        squares[name] = squares.get(name, torch.zeros(())) + x.double().square().mean(over).cpu()

    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs, name=name: seen(name, layer, inputs[0])
        )
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model), torch.no_grad():
            answer(model, samples)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _scores(layer, squares.get(name)) for name, layer in layers.items()}


def _scores(layer: nn.Module, squares: Tensor | None) -> Scores:
    """Of one layer; a convolution with groups has nothing between them."""
    assert isinstance(layer, nn.Linear | Convolution)
    weight = layer.weight.detach().double().cpu()
    own = weight.square().flatten(2).sum(2) if weight.ndim > 2 else weight.square()
    groups = getattr(layer, "groups", 1)
    if groups > 1:
        own = torch.block_diag(*own.chunk(groups))
    if squares is not None:
        own = own * squares
    return own.numpy()
