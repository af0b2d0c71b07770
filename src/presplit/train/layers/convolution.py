"""Sparse convolutions over one or two dimensions.

Predefined are the connections between channels, and the entries of kernels. A partition of the
channels runs as a grouped convolution, behind a channel shuffle (arXiv 1707.01083) if channels are
dealt in turn; other tiles behind a gather of channels. See `presplit.train.layers.sparse` for what
all sparse layers share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Generic, Self, TypeVar

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

The times are in docs/results.md. A 1-D convolution is one of height 1 to cuDNN.
"""

Convolution = nn.Conv1d | nn.Conv2d
"""The dense convolutions that can become sparse."""
Plain = TypeVar("Plain", nn.Conv1d, nn.Conv2d)


class SparseConv(SparseLayer, Generic[Plain]):
    """What sparse convolutions of one and of two dimensions share; ``Plain`` is their dense kind.

    Every kernel of a connection exists whole, or has the entries that ``supports`` keep: those are
    stored and trained, and multiplied as whole kernels. Stride and dilation are 1 and padding is 0
    unless given, each as a tuple with a number for each axis.
    """

    _plain: type[Plain]
    _convolve: ClassVar[Callable[..., Tensor]]
    _samples: ClassVar[str]
    """What the input holds, for messages."""

    def __init__(
        self,
        pattern: Pattern,
        *,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] | str = (),
        dilation: tuple[int, ...] = (),
        padding_mode: str = "zeros",
        supports: KernelSupports | None = None,
        bias: bool = True,
    ) -> None:
        axes = 1 if issubclass(self._plain, nn.Conv1d) else 2
        if len(kernel_size) != axes:
            raise PatternError(
                f"{type(self).__name__}: kernel_size must have length {axes}, got {kernel_size}"
            )
        super().__init__(pattern, kernel=kernel_size, supports=supports, bias=bias)
        self.stride, self.dilation = stride or (1,) * axes, dilation or (1,) * axes
        self.padding, self.padding_mode = padding or (0,) * axes, padding_mode
        # as the dense kind has
        self.in_channels, self.out_channels, self.kernel_size = self.n_in, self.n_out, kernel_size

    def forward(self, input: Tensor) -> Tensor:
        """``input``: float ``(batch, n_in, *size)``, or one sample without the batch."""
        x, axes = input, 1 + len(self.kernel)
        if x.ndim == axes:
            return self.forward(x[None])[0]  # hooks see one call
        if x.ndim != axes + 1 or x.shape[1] != self.n_in:
            raise ValueError(
                f"expected {self._samples} of {self.n_in} channels, (batch, {self.n_in}, ...), got "
                f"{tuple(x.shape)}"
            )
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._around(), mode=self.padding_mode), 0
        if self.form == "scattered" or (x.is_cuda and max(self.n_in, self.n_out) <= DENSE_ON_GPU):
            weight = self.dense_weight()
            return self._convolve(x, weight, self.bias, self.stride, padding, self.dilation)
        tiles, fan_in = self.index.shape
        if self.order == "dealt" and not torch.compiler.is_exporting():
            x = F.channel_shuffle(x, fan_in)
        elif (
            self.order != "straight"
        ):  # ONNX Runtime gathers whole channels faster than it shuffles them
            x = _channels(x, self.index.view(-1))
        y = self._convolve(
            x, self.kernels(), self._bias(), self.stride, padding, self.dilation, groups=tiles
        )
        return y if self._place is None else _channels(y, self._place)

    def _around(self) -> list[int]:
        """What is added before and after the sample, along its last axis first."""
        if isinstance(self.padding, str):
            whole = [
                d * (k - 1) if self.padding == "same" else 0
                for d, k in zip(self.dilation, self.kernel, strict=True)
            ]
            return [side for total in reversed(whole) for side in (total // 2, total - total // 2)]
        return [side for side in reversed(self.padding) for _ in range(2)]

    def to_dense(self) -> Plain:
        """The dense convolution that computes the same."""
        dense = self._plain(
            self.n_in,
            self.n_out,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            bias=self.bias is not None,
            padding_mode=self.padding_mode,
        )
        return fill(dense, self)

    @classmethod
    def from_dense(
        cls, dense: Plain, pattern: Pattern, *, supports: KernelSupports | None = None
    ) -> Self:
        """``dense``, whatever its groups, restricted to ``pattern``, which is between all channels.

        Raises `PatternError` if the sizes differ or the pattern joins channels that ``dense`` keeps
        apart, `GraphError` for another kind of convolution.
        """
        if dense.transposed or not isinstance(dense, cls._plain):
            raise GraphError(
                f"only plain convolutions become sparse, for {cls.__name__} a "
                f"{cls._plain.__name__}, got {dense}"
            )
        check_size(pattern, dense.in_channels, dense.out_channels)
        layer = cls(
            pattern,
            kernel_size=dense.kernel_size,
            stride=dense.stride,
            padding=dense.padding,
            dilation=dense.dilation,
            padding_mode=dense.padding_mode,
            supports=supports,
            bias=dense.bias is not None,
        ).to(dense.weight)
        layer.dense_groups = dense.groups
        layer.take_dense(_between_all(dense, pattern), dense.bias)
        return layer


class SparseConv1d(SparseConv[nn.Conv1d]):
    """A 1-D convolution, of waveforms or sequences, whose channel connections are predefined.

    Its input is float ``(batch, n_in, length)`` or ``(n_in, length)``. `SparseConv` has the rest.

    >>> from presplit.patterns import grouped
    >>> layer = SparseConv1d(grouped(8, 4, density=0.5), kernel_size=(3,), padding=(1,))
    >>> layer.values.shape, layer(torch.ones(1, 8, 6)).shape
    (torch.Size([4, 4, 3]), torch.Size([1, 4, 6]))
    """

    _plain, _samples = nn.Conv1d, "sequences"
    _convolve = staticmethod(F.conv1d)


class SparseConv2d(SparseConv[nn.Conv2d]):
    """A 2-D convolution whose connections between channels are predefined.

    Its input is float ``(batch, n_in, height, width)``, or one image without the batch.
    `SparseConv` has the rest.

    >>> from presplit.patterns import grouped
    >>> layer = SparseConv2d(grouped(8, 4, density=0.5), kernel_size=(3, 3), padding=(1, 1))
    >>> layer.values.shape, layer(torch.ones(1, 8, 6, 6)).shape
    (torch.Size([4, 4, 3, 3]), torch.Size([1, 4, 6, 6]))
    """

    _plain, _samples = nn.Conv2d, "images"
    _convolve = staticmethod(F.conv2d)


def _between_all(dense: Convolution, pattern: Pattern) -> Tensor:
    """The weight of ``dense`` between all channels, with zeros where its groups keep them apart."""
    weight = dense.weight.detach()
    if dense.groups == 1:
        return weight
    rows, columns = dense.out_channels // dense.groups, dense.in_channels // dense.groups
    apart = np.kron(np.eye(dense.groups, dtype=bool), np.ones((rows, columns), dtype=bool))
    if bool((pattern.mask() & ~apart).any()):
        raise PatternError(
            f"the pattern joins channels that the convolution's {dense.groups} groups keep apart"
        )
    whole = weight.new_zeros(dense.out_channels, dense.in_channels, *weight.shape[2:])
    for k in range(dense.groups):
        made, read = slice(k * rows, (k + 1) * rows), slice(k * columns, (k + 1) * columns)
        whole[made, read] = weight[made]
    return whole


def _channels(x: Tensor, places: Tensor) -> Tensor:
    """The channels of ``x`` at ``places``, lying in memory as those of ``x`` do."""
    if x.is_contiguous(memory_format=torch.channels_last) and not torch.compiler.is_exporting():
        return x.movedim(1, 3).index_select(3, places).movedim(3, 1)
    return x.index_select(1, places)
