"""Sparse layers: only the connections that exist have a value, a gradient and an optimiser state.

Execution follows from the pattern (DESIGN section 3). Tiles that partition the inputs, or tiles of at least
`BATCHED_TILE` outputs, run as one gather of whole features and one batched matmul (a grouped convolution for images).
Finer patterns scatter their values into a dense weight for the multiply: exact, and no faster than dense.
Activations are feature-major inside ``(features, batch)``: the layer works on ``x.t()`` and returns ``y.t()``, so
between sparse layers the transposes are strides, not copies.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presplit.core.errors import GraphError, PatternError
from presplit.core.types import Pattern

BATCHED_TILE = 16
"""From this many outputs a tile on, gathering a shared fan-in set pays (KERNELS: between 8 and 64)."""

Form = Literal["batched", "scattered"]
Dense = TypeVar("Dense", nn.Linear, nn.Conv2d)


class SparseLayer(nn.Module):
    """What both sparse layers hold: ``values``, an optional ``bias`` and the pattern's index.

    ``values``: float ``(tiles, tile, fan_in)``, for a convolution ``(n_out, fan_in, height, width)`` in tile order, or
    ``(connections, *kernel)`` if the outputs' fan-in differs.
    ``index``: int32 buffer as in `Pattern`, saved with the values, so that a checkpoint needs no seed to be read.
    """

    form: Form
    """How the layer runs: "batched" is faster than dense, "scattered" is exact only."""
    dealt: bool
    """True if the inputs are dealt to the tiles in turn, like cards: then the gather is a channel shuffle."""
    index: Tensor
    out_order: Tensor | None
    _gather: Tensor
    _place: Tensor | None
    _where: Tensor | None

    def __init__(self, pattern: Pattern, *, kernel: tuple[int, ...] = (), bias: bool = True) -> None:
        super().__init__()
        self.tile = pattern.tile
        self.n_in, self.n_out, self.kernel = pattern.n_in, pattern.n_out, kernel
        rows = (self.n_out,) if kernel else (len(pattern.index), self.tile)
        shape = (*rows, pattern.fan_in) if pattern.is_regular else (pattern.connections,)
        self.values = nn.Parameter(torch.empty(*shape, *kernel))
        self.bias = nn.Parameter(torch.empty(self.n_out)) if bias else None
        self.register_buffer("index", torch.from_numpy(pattern.index.copy()))
        order = None if pattern.out_order is None else torch.from_numpy(pattern.out_order.copy())
        self.register_buffer("out_order", order)
        self.register_load_state_dict_pre_hook(_fit_index)
        self.register_load_state_dict_post_hook(lambda layer, _: layer._derive())
        self._derive()
        self.reset_parameters()

    @property
    def pattern(self) -> Pattern:
        """The pattern, rebuilt from what is stored."""
        order = None if self.out_order is None else self.out_order.cpu().numpy()
        return Pattern(n_in=self.n_in, tile=self.tile, index=self.index.cpu().numpy(), out_order=order)

    def reset_parameters(self, *, fan_in: Literal["sparse", "dense"] = "sparse", bias: float = 0.0) -> None:
        """He initialisation (arXiv 1502.01852) scaled by the connections that exist, or as if all did (``dense``)."""
        area = math.prod(self.kernel)
        degree = (self.index >= 0).sum(1).clamp(min=1).float()
        per_row = torch.full_like(degree, self.n_in) if fan_in == "dense" else degree
        std = (2.0 / (per_row * area)).sqrt()
        scale = std.repeat_interleave(self.tile * (self.index >= 0).sum(1))
        connections = self.values.shape[: self.values.ndim - len(self.kernel)]
        with torch.no_grad():
            self.values.normal_().mul_(scale.view(*connections, *(1,) * len(self.kernel)))
            if self.bias is not None:
                self.bias.fill_(bias)

    def dense_weight(self) -> Tensor:
        """The weight as a dense layer would hold it, ``(n_out, n_in, *kernel)``, with zeros where nothing exists."""
        area = math.prod(self.kernel)
        empty = self.values.new_zeros(self.n_out * self.n_in, area)
        place = self._places().view(-1, 1).expand(-1, area)
        return empty.scatter(0, place, self.values.reshape(-1, area)).view(self.n_out, self.n_in, *self.kernel)

    def take_dense(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take over the values of a dense layer where connections exist."""
        with torch.no_grad():
            taken = weight.reshape(self.n_out * self.n_in, -1)[self._places()]
            self.values.copy_(taken.view(self.values.shape))
            if self.bias is not None and bias is not None:
                self.bias.copy_(bias)

    def _derive(self) -> None:
        """Recompute what follows from the index: the form, what to gather, where outputs and scattered values go."""
        pattern = self.pattern
        held = self.values.numel() // math.prod(self.kernel)
        if pattern.connections != held:
            raise PatternError(f"the pattern has {pattern.connections} connections, the layer holds {held}")
        shared = pattern.tile >= BATCHED_TILE or (pattern.tile > 1 and pattern.is_partition)
        self.form = "batched" if pattern.is_regular and shared else "scattered"
        device, order = self.index.device, pattern.out_order
        place = None if order is None else torch.from_numpy(np.argsort(order)).to(device)
        tiles, fan_in = pattern.index.shape
        self.dealt = tiles * fan_in == self.n_in and np.array_equal(pattern.index.T.ravel(), np.arange(self.n_in))
        self.register_buffer("_gather", self.index.reshape(-1).long(), persistent=False)
        self.register_buffer("_place", place, persistent=False)
        self.register_buffer("_where", None, persistent=False)
        if self.form == "scattered":
            self._where = self._places()

    def _places(self) -> Tensor:
        """int64 ``(connections,)``: each value's place in a flat dense weight; kept only if used every time."""
        if self._where is not None:
            return self._where
        pattern = self.pattern
        order = np.arange(pattern.n_out) if pattern.out_order is None else pattern.out_order
        flat = order.reshape(-1, pattern.tile, 1).astype(np.int64) * pattern.n_in + pattern.index[:, None, :]
        keep = np.broadcast_to(pattern.index[:, None, :] >= 0, flat.shape)
        return torch.from_numpy(flat[keep]).to(self.index.device)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        share = self.pattern.density
        return f"{self.n_in}, {self.n_out}, density={share:.4g}, tile={self.tile}, form={self.form}"


def _fit_index(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Make room for a saved index of other width: where degrees differ, the widest row depends on the seed."""
    assert isinstance(layer, SparseLayer)
    saved = state.get(f"{prefix}index")
    if saved is not None and saved.ndim == 2 and len(saved) == len(layer.index):
        layer.index = layer.index.new_empty(saved.shape)


class SparseLinear(SparseLayer):
    """A linear layer with predefined connections: ``(..., n_in)`` to ``(..., n_out)``.

    >>> from presplit.patterns import grouped
    >>> layer = SparseLinear(grouped(8, 4, density=0.5))
    >>> layer.values.shape, layer(torch.ones(3, 8)).shape
    (torch.Size([2, 2, 4]), torch.Size([3, 4]))
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(..., n_in)``."""
        if self.form == "scattered":
            return F.linear(x, self.dense_weight(), self.bias)
        rows = x if x.ndim == 2 else x.reshape(-1, self.n_in)
        tiles, tile, fan_in = self.values.shape
        bias = self.bias if self.bias is None or self.out_order is None else self.bias[self.out_order.long()]
        if not torch.compiler.is_exporting() and len(rows) == 1:  # no rows of features to move: row-major is faster
            taken, values = rows.index_select(1, self._gather).view(tiles, 1, fan_in), self.values.transpose(1, 2)
            bias = None if bias is None else bias.view(tiles, 1, tile)
        else:
            taken, values = self.values, rows.t().index_select(0, self._gather).view(tiles, fan_in, -1)
            bias = None if bias is None else bias.view(tiles, tile, 1)
        y = torch.bmm(taken, values) if bias is None else torch.baddbmm(bias, taken, values)
        y = y.reshape(self.n_out, -1)
        y = (y if self._place is None else y.index_select(0, self._place)).t()
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.n_out)

    def to_dense(self) -> nn.Linear:
        """The dense layer that computes the same."""
        dense = nn.Linear(self.n_in, self.n_out, bias=self.bias is not None)
        return _fill(dense, self)

    @classmethod
    def from_dense(cls, dense: nn.Linear, pattern: Pattern) -> SparseLinear:
        """``dense`` restricted to ``pattern``; raises `PatternError` if the sizes differ."""
        _same_size(pattern, dense.in_features, dense.out_features)
        layer = cls(pattern, bias=dense.bias is not None).to(dense.weight)
        layer.take_dense(dense.weight, dense.bias)
        return layer


class SparseConv2d(SparseLayer):
    """A 2-D convolution whose connections between channels are predefined; every kernel of a connection exists.

    >>> from presplit.patterns import grouped
    >>> layer = SparseConv2d(grouped(8, 4, density=0.5), kernel_size=(3, 3), padding=(1, 1))
    >>> layer.values.shape, layer(torch.ones(1, 8, 6, 6)).shape
    (torch.Size([4, 4, 3, 3]), torch.Size([1, 4, 6, 6]))
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        kernel_size: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] | str = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__(pattern, kernel=kernel_size, bias=bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, n_in, height, width)``."""
        if self.form == "scattered":
            return F.conv2d(x, self.dense_weight(), self.bias, self.stride, self.padding, self.dilation)
        bias = self.bias
        if bias is not None and self.out_order is not None:
            bias = bias[self.out_order.long()]
        tiles, fan_in = self.index.shape
        taken = F.channel_shuffle(x, fan_in) if self.dealt else x.index_select(1, self._gather)
        y = F.conv2d(taken, self.values, bias, self.stride, self.padding, self.dilation, groups=tiles)
        return y if self._place is None else y.index_select(1, self._place)

    def to_dense(self) -> nn.Conv2d:
        """The dense convolution that computes the same."""
        size = (self.kernel[0], self.kernel[1])
        dense = nn.Conv2d(
            self.n_in, self.n_out, size, self.stride, self.padding, self.dilation, bias=self.bias is not None
        )
        return _fill(dense, self)

    @classmethod
    def from_dense(cls, dense: nn.Conv2d, pattern: Pattern) -> SparseConv2d:
        """``dense`` restricted to ``pattern``; raises `GraphError` for a grouped, transposed or padded-by-mode one."""
        if dense.groups != 1 or dense.padding_mode != "zeros" or dense.transposed:
            raise GraphError(f"only plain convolutions become sparse, got {dense}")
        _same_size(pattern, dense.in_channels, dense.out_channels)
        layer = cls(
            pattern,
            kernel_size=(dense.kernel_size[0], dense.kernel_size[1]),
            stride=(dense.stride[0], dense.stride[1]),
            padding=dense.padding if isinstance(dense.padding, str) else (dense.padding[0], dense.padding[1]),
            dilation=(dense.dilation[0], dense.dilation[1]),
            bias=dense.bias is not None,
        ).to(dense.weight)
        layer.take_dense(dense.weight, dense.bias)
        return layer


def _fill(dense: Dense, layer: SparseLayer) -> Dense:
    """``dense`` with the weights of ``layer``, on its device and of its dtype."""
    dense.to(layer.values)
    with torch.no_grad():
        dense.weight.copy_(layer.dense_weight())
        if dense.bias is not None and layer.bias is not None:
            dense.bias.copy_(layer.bias)
    return dense


def _same_size(pattern: Pattern, n_in: int, n_out: int) -> None:
    if (pattern.n_in, pattern.n_out) != (n_in, n_out):
        raise PatternError(f"the layer is {n_in} -> {n_out}, the pattern {pattern.n_in} -> {pattern.n_out}")
