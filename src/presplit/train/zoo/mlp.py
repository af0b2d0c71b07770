"""Multi-layer perceptrons, as arXiv 2407.11763 and 1812.01164 use them.

Layers are joined by junctions, with ReLU between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from presplit.core.errors import SpecError


def mlp(layers: Sequence[int]) -> nn.Sequential:
    """A dense perceptron with ``layers`` sizes, input and classes included.

    Junction i is called ``fc<i>``.

    >>> [name for name, _ in mlp([800, 40, 40, 10]).named_children()]
    ['flatten', 'fc1', 'relu1', 'fc2', 'relu2', 'fc3']
    """
    if len(layers) < 2:
        raise SpecError(
            f"model.layers needs at least an input and an output size, got {list(layers)}"
        )
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for junction, (n_in, n_out) in enumerate(zip(layers, layers[1:], strict=False), start=1):
        modules[f"fc{junction}"] = nn.Linear(n_in, n_out)
        if junction < len(layers) - 1:
            modules[f"relu{junction}"] = nn.ReLU()
    return nn.Sequential(modules)
