"""Sparse layers: only the connections that exist have a value, a gradient and an optimiser state.

Execution follows from the pattern. Tiles that partition the inputs, or tiles of at least
`BATCHED_TILE` outputs, run as one batched matmul over gathered features (a grouped convolution for
images); where the inputs are dealt to the tiles in turn, the gather is a view and costs nothing.
Finer patterns scatter their values into a dense weight for the multiply: exact, and no faster than
dense. Here is what both kinds share; `presplit.train.layers.linear` and
`presplit.train.layers.convolution` have the kinds. Activations are feature-major inside
``(features, batch)``: the layer works on ``x.t()`` and returns ``y.t()``, so between sparse layers
the transposes are strides, not copies.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from presplit.core.errors import PatternError
from presplit.core.types import Ints, Pattern
from presplit.patterns.periodic_kernel import KernelSupports

BATCHED_TILE = 16
"""From this many outputs a tile on, gathering a shared fan-in pays (KERNELS: between 8 and 64)."""
SMALL = 2**17
"""ONNX Runtime multiplies a dense weight of up to this size faster than it starts sparse steps."""

Form = Literal["batched", "scattered"]
Order = Literal["straight", "dealt", "any"]
Dense = TypeVar("Dense", nn.Linear, nn.Conv1d, nn.Conv2d)


class SparseLayer(nn.Module):
    """What both sparse layers hold: ``values``, an optional ``bias`` and the pattern's index.

    ``values``: float ``(tiles, tile, fan_in)``, for a convolution ``(n_out, fan_in, *kernel)`` in
    tile order, or ``(connections, *kernel)`` if the outputs' fan-in differs; where
    kernels keep some entries only, ``(n_out, fan_in, support)``, or ``(entries,)`` if supports
    differ in size. ``index``: int32 buffer as in `Pattern`, saved with the values, so that a
    checkpoint needs no seed to be read; so is ``kept``, int32 ``(period, support)``, the index of
    `KernelSupports`, or None if kernels are whole.
    """

    form: Form
    """How the layer runs: "batched" is faster than dense, "scattered" is exact only."""
    order: Order
    """How inputs go to the tiles.

    Neighbours together, dealt in turn like cards (both are views), or any other way.
    """
    dense_groups: int = 1
    """Groups of the convolution that this was made of: its outputs read one of so many parts."""
    family: str = ""
    """The name of the pattern's family, if it has one: for summaries only."""
    asked: float | None = None
    """The density that was asked for, where the pattern has the nearest one there is."""
    bias: Tensor | None
    index: Tensor
    kept: Tensor | None
    out_order: Tensor | None
    _place: Tensor | None
    _where: Tensor | None
    _entries: Tensor | None

    def __init__(
        self,
        pattern: Pattern,
        *,
        kernel: tuple[int, ...] = (),
        supports: KernelSupports | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.tile = pattern.tile
        self.n_in, self.n_out, self.kernel = pattern.n_in, pattern.n_out, kernel
        self.register_buffer("index", torch.from_numpy(pattern.index.copy()))
        self.register_buffer("out_order", _tensor(pattern.out_order))
        self.register_buffer("kept", None if supports is None else _kept(supports, pattern, kernel))
        self.values = nn.Parameter(torch.empty(self._derive()))
        self.register_parameter("bias", nn.Parameter(torch.empty(self.n_out)) if bias else None)
        self.register_load_state_dict_pre_hook(_fit_index)
        self.register_load_state_dict_post_hook(_derive_again)
        self.reset_parameters()

    @property
    def pattern(self) -> Pattern:
        """The pattern, rebuilt from what is stored."""
        order = None if self.out_order is None else self.out_order.cpu().numpy()
        return Pattern(
            n_in=self.n_in, tile=self.tile, index=self.index.cpu().numpy(), out_order=order
        )

    @property
    def density(self) -> float:
        """Weights that exist, as a share of the dense layer's."""
        return self.values.numel() / (self.n_in * self.n_out * math.prod(self.kernel))

    @property
    def weight(self) -> Tensor:
        """`dense_weight`, for modules that look at their layers' weights.

        It is made anew each time and is not a parameter.
        """
        return self.dense_weight()

    def reset_parameters(
        self, *, fan_in: Literal["sparse", "dense"] = "sparse", bias: float = 0.0
    ) -> None:
        """He initialisation (arXiv 1502.01852) scaled by the connections that exist.

        With ``fan_in`` "dense" it is scaled as if all did.
        """
        degree = (self.index >= 0).sum(1)
        area = self.values.numel() / (
            self.tile * int(degree.sum())
        )  # entries of a kernel, on average
        per_tile = (
            degree.clamp(min=1) * area
            if fan_in == "sparse"
            else degree * 0 + self.n_in * math.prod(self.kernel)
        )
        std = (2.0 / per_tile).sqrt()
        scale = std[0] if self._where is None else std.repeat_interleave(self.tile * degree)
        with torch.no_grad():
            self.values.normal_().mul_(scale.view(-1, *(1,) * (self.values.ndim - 1)))
            if self.bias is not None:
                self.bias.fill_(bias)

    def dense_weight(self) -> Tensor:
        """The weight as a dense layer would hold it, with zeros where nothing exists.

        Its shape is ``(n_out, n_in, *kernel)``.
        """
        kernels, area = self.kernels(), math.prod(self.kernel)
        shared = (
            self.tile > 1 and torch.compiler.is_exporting()
        )  # one index for many values: a small file
        if self._where is not None and not shared:
            place = self._where.long().view(-1, 1).expand(-1, area)
            flat = kernels.new_zeros(self.n_out * self.n_in, area).scatter(
                0, place, kernels.reshape(-1, area)
            )
            return flat.view(self.n_out, self.n_in, *self.kernel)
        if self._where is not None:
            rows = (
                self.index.view(-1, 1, self.index.shape[1]).expand(-1, self.tile, -1).flatten(0, 1)
            )
            weight = _placed(kernels.reshape(-1, area), rows, self.n_in)
        else:
            place = self._inputs(area)
            empty = kernels.new_zeros(*place.shape[:2], self.n_in, area)
            weight = empty.scatter(2, place, kernels.reshape(place.shape))
        weight = weight.reshape(self.n_out, self.n_in, *self.kernel)
        return weight if self._place is None else weight.index_select(0, self._place)

    def take_dense(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take over the values of a dense layer where connections exist."""
        area = math.prod(self.kernel)
        with torch.no_grad():
            if self._where is not None:
                taken = weight.reshape(self.n_out * self.n_in, area)[self._where.long()]
            else:
                rows = weight if self.out_order is None else weight.index_select(0, self.out_order)
                place = self._inputs(area)
                taken = rows.reshape(*place.shape[:2], self.n_in, area).gather(2, place)
            if self._entries is not None:
                taken = taken.reshape(-1)[self._entries.long()]
            elif self.kept is not None:
                taken = taken.reshape(self.n_out, -1, area).gather(2, self._supports(self.kept))
            self.values.copy_(taken.reshape(self.values.shape))
            if self.bias is not None and bias is not None:
                self.bias.copy_(bias)

    def kernels(self) -> Tensor:
        """One whole kernel for each connection.

        These are ``values`` with zeros where kernels keep nothing.
        """
        if self.kept is None:
            return self.values
        area, fan_in = math.prod(self.kernel), self.index.shape[1]
        if self._entries is not None and torch.compiler.is_exporting():
            whole = _placed(self.values.view(-1, 1), self._supports(self.kept).flatten(0, 1), area)
        elif self._entries is not None:
            empty = self.values.new_zeros(self.n_out * fan_in * area)
            whole = empty.scatter(0, self._entries.long(), self.values)
        else:
            whole = self.values.new_zeros(self.n_out, fan_in, area).scatter(
                2, self._supports(self.kept), self.values
            )
        return whole.view(self.n_out, fan_in, *self.kernel)

    def _bias(self) -> Tensor | None:
        """The bias in tile order."""
        return (
            self.bias
            if self.bias is None or self.out_order is None
            else self.bias.index_select(0, self.out_order)
        )

    def _inputs(self, area: int) -> Tensor:
        """The input that each value multiplies: int64 ``(tiles, tile, fan_in, area)``.

        It has no memory of its own.
        """
        tiles, fan_in = self.index.shape
        return self.index.long().view(tiles, 1, fan_in, 1).expand(tiles, self.tile, fan_in, area)

    def _supports(self, kept: Tensor) -> Tensor:
        """int64 ``(n_out, fan_in, support)``: the entries of each connection's kernel."""
        tiles, fan_in = self.index.shape
        outputs = (
            torch.arange(self.n_out, device=kept.device)
            if self.out_order is None
            else self.out_order.long()
        )
        ranks = torch.arange(fan_in, device=kept.device).expand(tiles, 1, fan_in)
        numbers = (outputs.view(tiles, self.tile, 1) + ranks) % len(kept)
        return kept.long()[numbers.view(self.n_out, fan_in)]

    def _derive(self) -> tuple[int, ...]:
        """The shape of ``values``.

        Recomputes what follows from the index: form, order, places of unequal rows.
        """
        pattern = self.pattern
        shared = pattern.tile >= BATCHED_TILE or (pattern.tile > 1 and pattern.is_partition)
        self.form = "batched" if pattern.is_regular and shared else "scattered"
        self.order = _order(pattern)
        entries, shape = None, _shape(pattern, self.kernel)
        if self.kept is not None:
            held = self._supports(self.kept)
            shape = tuple(held.shape)
            if bool((held < 0).any()):
                flat = held + math.prod(self.kernel) * torch.arange(
                    held[..., 0].numel(), device=held.device
                ).view(*held.shape[:2], 1)
                entries = flat[held >= 0].int()
                shape = (entries.numel(),)
        place = None if pattern.out_order is None else np.argsort(pattern.out_order)
        where = None if pattern.is_regular else _places(pattern)
        for name, found in (
            ("_place", _tensor(place)),
            ("_where", _tensor(where)),
            ("_entries", entries),
        ):
            self.register_buffer(
                name, None if found is None else found.to(self.index.device), persistent=False
            )
        if "values" in self._parameters and shape != tuple(self.values.shape):
            raise PatternError(
                f"the pattern's connections need values of shape {shape}, the layer holds "
                f"{tuple(self.values.shape)}"
            )
        return shape

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return (
            f"{self.n_in}, {self.n_out}, density={self.density:.4g}, "
            f"tile={self.tile}, form={self.form}"
        )


def _order(pattern: Pattern) -> Order:
    """Whether the gather of all tiles' inputs is a view of the inputs."""
    inputs = np.arange(pattern.n_in)
    if np.array_equal(pattern.index.ravel(), inputs):
        return "straight"
    return "dealt" if np.array_equal(pattern.index.T.ravel(), inputs) else "any"


def _shape(pattern: Pattern, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of values with whole kernels."""
    if not pattern.is_regular:
        return (pattern.connections, *kernel)
    return (
        (pattern.n_out, pattern.fan_in, *kernel)
        if kernel
        else (*pattern.index.shape[:1], pattern.tile, pattern.fan_in)
    )


def _places(pattern: Pattern) -> Ints:
    """int32 ``(connections,)``: each connection's place in a flat dense weight."""
    if pattern.n_out * pattern.n_in >= 2**31:
        raise PatternError(
            f"{pattern.n_in} -> {pattern.n_out} is too large for outputs of unequal fan-in"
        )
    order = np.arange(pattern.n_out) if pattern.out_order is None else pattern.out_order
    flat = (
        order.reshape(-1, pattern.tile, 1).astype(np.int64) * pattern.n_in
        + pattern.index[:, None, :]
    )
    return flat[np.broadcast_to(pattern.index[:, None, :] >= 0, flat.shape)].astype(np.int32)


def _placed(values: Tensor, places: Tensor, size: int) -> Tensor:
    """``values`` ``(entries, area)`` of rows of unequal length, in ``(rows, size, area)``.

    ``places`` ``(rows, longest)`` are -1 where a row is shorter. For ONNX: no place is stored for
    each value.
    """
    there = places >= 0
    number = (there.view(-1).long().cumsum(0) - 1).clamp(
        min=0
    )  # a row's unused places read some value, and drop it
    padded = values.index_select(0, number).view(*places.shape, -1)
    empty = values.new_zeros(len(places), size + 1, values.shape[1])
    return empty.scatter(1, places.long().where(there, size)[..., None].expand_as(padded), padded)[
        :, :size
    ]


def _kept(supports: KernelSupports, pattern: Pattern, kernel: tuple[int, ...]) -> Tensor:
    """The index of ``supports``.

    Raises `PatternError` if it does not go along with pattern and kernel.
    """
    if supports.kernel != kernel:
        raise PatternError(
            f"the layer's kernels are {kernel}, the supports are of {supports.kernel}"
        )
    if not pattern.is_regular:
        raise PatternError(
            "kernels that keep some entries need outputs that read equally many channels"
        )
    return torch.from_numpy(supports.index.copy())


def _tensor(array: npt.NDArray[Any] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array.copy())


def _fit_index(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Make room for a saved index of other width.

    Where degrees differ, the widest row depends on the seed.
    """
    assert isinstance(layer, SparseLayer)
    saved, values = state.get(f"{prefix}index"), state.get(f"{prefix}values")
    fits = values is not None and values.shape == layer.values.shape
    if fits and saved is not None and saved.ndim == 2 and len(saved) == len(layer.index):
        layer.index = layer.index.new_empty(saved.shape)


def _derive_again(layer: nn.Module, _: object) -> None:
    assert isinstance(layer, SparseLayer)
    layer._derive()


def fill(dense: Dense, layer: SparseLayer) -> Dense:
    """``dense`` with the weights of ``layer``, on its device and of its dtype."""
    dense.to(layer.values)
    with torch.no_grad():
        dense.weight.copy_(layer.dense_weight())
        if dense.bias is not None and layer.bias is not None:
            dense.bias.copy_(layer.bias)
    return dense


def check_size(pattern: Pattern, n_in: int, n_out: int) -> None:
    """Raise `PatternError` unless ``pattern`` is of a layer's size."""
    if (pattern.n_in, pattern.n_out) != (n_in, n_out):
        raise PatternError(
            f"the layer is {n_in} -> {n_out}, the pattern {pattern.n_in} -> {pattern.n_out}"
        )
