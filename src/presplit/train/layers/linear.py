"""Sparse linear layers: one batched matmul over gathered features.

See `presplit.train.layers.sparse` for what all sparse layers share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presplit.core.types import Pattern
from presplit.train.layers.sparse import SMALL, SparseLayer, check_size, fill

SPLIT_FAN_IN = 128
"""From this many inputs a tile on, ONNX Runtime is faster tile by tile than with all as a batch."""


class SparseLinear(SparseLayer):
    """A linear layer with predefined connections: ``(..., n_in)`` to ``(..., n_out)``.

    >>> from presplit.patterns import grouped
    >>> layer = SparseLinear(grouped(8, 4, density=0.5))
    >>> layer.values.shape, layer(torch.ones(3, 8)).shape
    (torch.Size([2, 2, 4]), torch.Size([3, 4]))
    """

    def __init__(self, pattern: Pattern, *, bias: bool = True) -> None:
        super().__init__(pattern, bias=bias)
        self.in_features, self.out_features = self.n_in, self.n_out  # as nn.Linear has

    def forward(self, input: Tensor) -> Tensor:
        """``input``: float ``(..., n_in)``; a 2-D result may lie in memory feature by feature."""
        x = input
        if x.shape[-1] != self.n_in:
            raise ValueError(
                f"expected inputs of {self.n_in} features, (..., {self.n_in}), got {tuple(x.shape)}"
            )
        exporting = torch.compiler.is_exporting()
        if self.form == "scattered" or (exporting and self.n_in * self.n_out <= SMALL):
            return F.linear(x, self.dense_weight(), self.bias)
        rows = x if x.ndim == 2 else x.reshape(-1, self.n_in)
        if exporting and self.order != "any":
            y = self._row_major(rows)
        elif not exporting and len(rows) == 1:
            y = self._one(rows)
        else:
            y = self._feature_major(rows.t()).t()
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.n_out).contiguous()

    def _feature_major(self, features: Tensor) -> Tensor:
        """``features`` ``(n_in, batch)`` to ``(n_out, batch)``: one batched matmul."""
        tiles, tile, fan_in = self.values.shape
        batch = features.shape[1]
        if self.order == "any":
            taken = features.index_select(0, self.index.view(-1)).view(tiles, fan_in, batch)
        elif self.order == "straight":
            taken = features.unflatten(
                0, (tiles, fan_in)
            )  # both ways of lying in memory suit a matmul
        else:
            taken = features.contiguous().view(fan_in, tiles, batch).transpose(0, 1)
        bias = self._bias()
        y = (
            torch.bmm(self.values, taken)
            if bias is None
            else torch.baddbmm(bias.view(tiles, tile, 1), self.values, taken)
        )
        y = y.view(self.n_out, batch)
        return y if self._place is None else y.index_select(0, self._place)

    def _one(self, row: Tensor) -> Tensor:
        """A single sample ``(1, n_in)``.

        There are no rows of features to move, row-major is faster.
        """
        tiles, tile, fan_in = self.values.shape
        taken, bias = row.index_select(1, self.index.view(-1)).view(tiles, 1, fan_in), self._bias()
        turned = self.values.transpose(1, 2)
        y = (
            torch.bmm(taken, turned)
            if bias is None
            else torch.baddbmm(bias.view(tiles, 1, tile), taken, turned)
        )
        y = y.view(1, self.n_out)
        return y if self._place is None else y.index_select(1, self._place)

    def _row_major(self, rows: Tensor) -> Tensor:
        """The graph that ONNX Runtime runs fastest if the gather is a view.

        This is so at batch 1 above all.
        """
        tiles, _, fan_in = self.values.shape
        taken = (
            rows.reshape(-1, tiles, fan_in)
            if self.order == "straight"
            else rows.reshape(-1, fan_in, tiles).transpose(1, 2)
        )
        if fan_in >= SPLIT_FAN_IN:
            parts = taken.reshape(-1, self.n_in).split(fan_in, dim=1)
            y = torch.cat([part @ self.values[t].t() for t, part in enumerate(parts)], dim=1)
        else:
            y = (
                (taken.transpose(0, 1) @ self.values.transpose(1, 2))
                .transpose(0, 1)
                .reshape(-1, self.n_out)
            )
        bias = self._bias()
        y = y if bias is None else y + bias
        return y if self._place is None else y.index_select(1, self._place)

    def to_dense(self) -> nn.Linear:
        """The dense layer that computes the same."""
        dense = nn.Linear(self.n_in, self.n_out, bias=self.bias is not None)
        return fill(dense, self)

    @classmethod
    def from_dense(cls, dense: nn.Linear, pattern: Pattern) -> SparseLinear:
        """``dense`` restricted to ``pattern``; raises `PatternError` if the sizes differ."""
        check_size(pattern, dense.in_features, dense.out_features)
        layer = cls(pattern, bias=dense.bias is not None).to(dense.weight)
        layer.take_dense(dense.weight, dense.bias)
        return layer
