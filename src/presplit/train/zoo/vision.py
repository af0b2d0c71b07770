"""Nets over patches of an image.

They are a small vision transformer (arXiv 2010.11929) and an MLP-Mixer (arXiv 2105.01601).

Attention is written with linear layers of its own, so that all of its projections can become
sparse.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention of ``heads`` heads over ``(batch, tokens, width)``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, tokens, width)``."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return self.project(
            F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )


class Block(nn.Module):
    """Normalise, mix tokens, add; normalise, mix features, add."""

    def __init__(
        self, tokens: nn.Module, width: int, *, ratio: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.tokens, self.norm2 = nn.LayerNorm(width), tokens, nn.LayerNorm(width)
        self.features = _mlp(width, ratio * width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, tokens, width)``."""
        x = x + self.tokens(self.norm1(x))
        return x + self.features(self.norm2(x))


class AcrossTokens(nn.Module):
    """A perceptron over the tokens of each feature."""

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        self.mlp = _mlp(tokens, hidden, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, tokens, width)``."""
        return self.mlp(x.transpose(1, 2)).transpose(1, 2)


class Patches(nn.Module):
    """Each patch of ``patch`` x ``patch`` pixels as a token, with a learned place.

    It gives ``(batch, tokens, width)``.

    Places differ from the start: a net that averages its tokens learns slowly where they begin
    alike.
    """

    def __init__(self, channels: int, size: int, patch: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.place = nn.Parameter(0.5 * torch.randn(1, (size // patch) ** 2, width))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, channels, size, size)``."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.place


class MeanToken(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, tokens, width)``."""
        return x.mean(1)


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    parts = OrderedDict[str, nn.Module](
        fc1=nn.Linear(width, hidden),
        act=nn.GELU(),
        drop=nn.Dropout(dropout),
        fc2=nn.Linear(hidden, width),
    )
    return nn.Sequential(parts)


def vit(
    *,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    patch: int = 4,
    channels: int = 3,
    size: int = 32,
    classes: int = 10,
    dropout: float = 0.0,
) -> nn.Sequential:
    """A vision transformer whose answer is read from the mean of its tokens.

    Its blocks are called ``block<i>``.

    >>> vit(width=16, depth=1)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    blocks = [Block(Attention(width, heads), width, dropout=dropout) for _ in range(depth)]
    return _over_patches(Patches(channels, size, patch, width), blocks, width, classes)


def mixer(
    *,
    width: int = 64,
    depth: int = 4,
    patch: int = 4,
    channels: int = 3,
    size: int = 32,
    classes: int = 10,
) -> nn.Sequential:
    """An MLP-Mixer; its blocks are called ``block<i>``.

    >>> mixer(width=16, depth=1)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    tokens = (size // patch) ** 2
    blocks = [Block(AcrossTokens(tokens, 2 * tokens), width) for _ in range(depth)]
    return _over_patches(Patches(channels, size, patch, width), blocks, width, classes)


def _over_patches(
    patches: nn.Module, blocks: list[Block], width: int, classes: int
) -> nn.Sequential:
    named = {f"block{number}": block for number, block in enumerate(blocks, start=1)}
    ends = {
        "norm": nn.LayerNorm(width),
        "mean": MeanToken(),
        "classifier": nn.Linear(width, classes),
    }
    return nn.Sequential(OrderedDict[str, nn.Module](patches=patches, **named, **ends))
