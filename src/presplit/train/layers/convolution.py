"""Sparse convolutions: predefined connections between channels, and predefined entries of kernels.

A partition of the channels runs as a grouped convolution, behind a channel shuffle (arXiv
1707.01083) if channels are dealt in turn; other tiles behind a gather of channels. See
`presplit.train.layers.sparse` for what all sparse layers share.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presplit.core.errors import GraphError, PatternError
from presplit.core.types import Pattern
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.layers.sparse import SparseLayer, check_size, fill

DENSE_ON_GPU = 256
"""Up to so many channels a GPU trains a dense kernel with zeros as fast as groups, or faster.

The times are in docs/results.md.
"""


class SparseConv2d(SparseLayer):
    """A 2-D convolution whose connections between channels are predefined.

    Every kernel of a connection exists whole, or has the entries that ``supports`` keep: those are
    stored and trained, and multiplied as whole kernels.

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
        padding_mode: str = "zeros",
        supports: KernelSupports | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(pattern, kernel=kernel_size, supports=supports, bias=bias)
        self.stride, self.padding, self.dilation, self.padding_mode = (
            stride,
            padding,
            dilation,
            padding_mode,
        )
        self.in_channels, self.out_channels, self.kernel_size = (
            self.n_in,
            self.n_out,
            kernel_size,
        )  # as nn.Conv2d has

    def forward(self, input: Tensor) -> Tensor:
        """``input``: float ``(batch, n_in, height, width)``, or one image without the batch."""
        x = input
        if x.ndim == 3:
            return self(x[None])[0]
        if x.ndim != 4 or x.shape[1] != self.n_in:
            raise ValueError(
                f"expected images of {self.n_in} channels, (batch, {self.n_in}, ...), got "
                f"{tuple(x.shape)}"
            )
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._around(), mode=self.padding_mode), (0, 0)
        if self.form == "scattered" or (x.is_cuda and max(self.n_in, self.n_out) <= DENSE_ON_GPU):
            return F.conv2d(x, self.dense_weight(), self.bias, self.stride, padding, self.dilation)
        tiles, fan_in = self.index.shape
        if self.order == "dealt" and not torch.compiler.is_exporting():
            x = F.channel_shuffle(x, fan_in)
        elif (
            self.order != "straight"
        ):  # ONNX Runtime gathers whole channels faster than it shuffles them
            x = _channels(x, self.index.view(-1))
        y = F.conv2d(
            x, self.kernels(), self._bias(), self.stride, padding, self.dilation, groups=tiles
        )
        return y if self._place is None else _channels(y, self._place)

    def _around(self) -> list[int]:
        """What is added left, right, above and below the image."""
        if isinstance(self.padding, str):
            whole = [
                d * (k - 1) if self.padding == "same" else 0
                for d, k in zip(self.dilation, self.kernel, strict=True)
            ]
            return [side for total in reversed(whole) for side in (total // 2, total - total // 2)]
        return [side for side in reversed(self.padding) for _ in range(2)]

    def to_dense(self) -> nn.Conv2d:
        """The dense convolution that computes the same."""
        dense = nn.Conv2d(
            self.n_in,
            self.n_out,
            (self.kernel[0], self.kernel[1]),
            self.stride,
            self.padding,
            self.dilation,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
        )
        return fill(dense, self)

    @classmethod
    def from_dense(
        cls, dense: nn.Conv2d, pattern: Pattern, *, supports: KernelSupports | None = None
    ) -> SparseConv2d:
        """``dense``, whatever its groups, restricted to ``pattern``, which is between all channels.

        Raises `PatternError` if the sizes differ or the pattern joins channels that ``dense`` keeps
        apart.
        """
        if dense.transposed:
            raise GraphError(f"only plain convolutions become sparse, got {dense}")
        check_size(pattern, dense.in_channels, dense.out_channels)
        weight = dense.weight
        if dense.groups > 1:
            rows, columns = dense.out_channels // dense.groups, dense.in_channels // dense.groups
            apart = np.kron(np.eye(dense.groups, dtype=bool), np.ones((rows, columns), dtype=bool))
            if bool((pattern.mask() & ~apart).any()):
                raise PatternError(
                    f"the pattern joins channels that the convolution's {dense.groups} groups keep "
                    "apart"
                )
            whole = weight.new_zeros(dense.out_channels, dense.in_channels, *weight.shape[2:])
            for k in range(dense.groups):
                made, read = slice(k * rows, (k + 1) * rows), slice(k * columns, (k + 1) * columns)
                whole[made, read] = weight.detach()[made]
            weight = whole
        layer = cls(
            pattern,
            kernel_size=(dense.kernel_size[0], dense.kernel_size[1]),
            stride=(dense.stride[0], dense.stride[1]),
            padding=dense.padding
            if isinstance(dense.padding, str)
            else (dense.padding[0], dense.padding[1]),
            dilation=(dense.dilation[0], dense.dilation[1]),
            padding_mode=dense.padding_mode,
            supports=supports,
            bias=dense.bias is not None,
        ).to(dense.weight)
        layer.take_dense(weight, dense.bias)
        return layer


def _channels(x: Tensor, places: Tensor) -> Tensor:
    """The channels of ``x`` at ``places``, lying in memory as those of ``x`` do."""
    if x.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_exporting():
        return x.movedim(1, 3).index_select(3, places).movedim(3, 1)
    return x.index_select(1, places)
