"""Which grouped patterns do better on neighbouring inputs than on dealt ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import nn

from presplit.core.types import Pattern
from presplit.train.layers.convolution import Convolution
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.feeders import feeders


class Chosen(Protocol):
    """What `straight` has to know of a decision: its pattern, and the family that drew it."""

    @property
    def pattern(self) -> Pattern | None:
        """Its connections, None if it stays dense."""
        ...

    @property
    def family(self) -> str:
        """The name of the family."""
        ...


def straight(
    model: nn.Module, dense: Mapping[str, nn.Module], chosen: Mapping[str, Chosen]
) -> dict[str, Pattern]:
    """The pattern of neighbouring inputs, for grouped ones that do better without dealing.

    Linear layers that read no sparse layer: neighbours belong together in most data, and the next
    layer mixes. And convolutions that read only layers that deal: two of them in a row need one
    shuffle between, and a shuffle of images costs a pass over them. Convolutions of 1x1 are left
    out: many are shortcuts beside a row. Where it cannot be told which layer reads which, all deal.
    """
    deals = {
        name: layer.order == "dealt"
        for name, layer in model.named_modules()
        if isinstance(layer, SparseLayer)
    }
    deals |= dict.fromkeys(chosen, False)
    mixing = [name for name, layer in dense.items() if not is_depthwise(layer)]
    found: dict[str, Pattern] = {}
    for name, read in (feeders(model, [*mixing, *deals]) or {}).items():
        pattern = chosen[name].pattern if name in chosen else None
        if pattern is None or chosen[name].family != "grouped":
            continue
        layer, sources = dense[name], read & deals.keys()  # a dense layer between mixes all
        fits = not sources
        if isinstance(layer, Convolution):
            fits = all(deals[source] for source in sources) and max(layer.kernel_size) > 1
        if fits and pattern.tile >= len(pattern.index):
            found[name] = _neighbours_together(pattern)
        deals[name] = name not in found
    return found


def _neighbours_together(dealt: Pattern) -> Pattern:
    """The same groups, of inputs that lie side by side.

    Where the layer has groups of its own, this is within each.
    """
    return Pattern(dealt.n_in, dealt.tile, np.sort(dealt.index.ravel()).reshape(dealt.index.shape))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each output reads one channel already."""
    return isinstance(layer, Convolution) and layer.groups == layer.in_channels > 1
