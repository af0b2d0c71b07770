"""The values with which a sparse layer says what its dense one says, as well as it can.

Layer by layer, in running order: given what the sparse net so far makes of a batch, the values are
those whose outputs are nearest to the dense layer's (least squares, with a small ridge). Batch
norms then learn the means and variances of the sparse net. Source: the layer-wise reconstruction of
"Optimal Brain Compression" (arXiv 2208.11580), for connections that are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from presplit.train.layers.convolution import SparseConv
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.calling import answer, evaluating

ROWS = 16384
"""At most so many places of a batch are looked at in a layer."""
RIDGE = 0.1
"""Of the mean square of the inputs: it keeps what the batch does not tell where it was."""


@torch.no_grad()
def fit_to(sparse: nn.Module, dense: nn.Module, samples: Tensor) -> None:
    """Give the sparse layers of ``sparse`` the values nearest to what ``dense`` computes, in place.

    ``dense`` is the net that ``sparse`` was made of, with layers of the same names. Layers that the
    batch does not reach, and layers whose outputs read unequally many inputs or parts of kernels,
    keep the values that they have.
    """
    names = [
        name
        for name, layer in sparse.named_modules()
        if isinstance(layer, SparseLayer) and layer._where is None and layer.kept is None
    ]
    inputs, wanted = _seen(dense, names, samples, whole=True)
    for name in [name for name in inputs if name in wanted]:
        layer = sparse.get_submodule(name)
        assert isinstance(layer, SparseLayer)
        reached, _ = _seen(sparse, [name], samples, whole=False)
        target = wanted[name]
        if layer.bias is not None:
            after = target.ndim - 2 if isinstance(layer, SparseConv) else 0
            target = target - layer.bias.view(-1, *(1,) * after)
        _solve(layer, reached[name], target)
    _norms(sparse, samples)


def _seen(
    model: nn.Module, names: list[str], samples: Tensor, *, whole: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the named layers read and, if ``whole``, gave for a batch, in running order."""
    read, given = dict[str, Tensor](), dict[str, Tensor]()

    def hook(name: str) -> Callable[..., None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            read[name] = inputs[0].detach()
            if whole:
                given[name] = output.detach()

        return note

    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with evaluating(model):
            answer(model, samples)
    finally:
        for each in hooks:
            each.remove()
    return read, given


def _solve(layer: SparseLayer, x: Tensor, target: Tensor) -> None:
    """Set the layer's values: for each tile a least-squares problem over the inputs it reads."""
    rows, wanted = _rows(layer, x, target)
    tiles, fan_in = layer.index.shape
    area = layer.values.numel() // (layer.n_out * fan_in)
    old = layer.values.reshape(tiles, layer.tile, fan_in * area).double()
    order = torch.arange(layer.n_out) if layer.out_order is None else layer.out_order.long()
    solved = torch.empty_like(old)
    for tile in range(tiles):
        taken = rows[:, layer.index[tile].long()].flatten(1).double()
        given = wanted[:, order[tile * layer.tile : (tile + 1) * layer.tile]].double()
        square = taken.T @ taken
        ridge = (
            RIDGE * square.diagonal().mean().clamp(min=1e-12) * torch.eye(len(square)).to(square)
        )
        right = taken.T @ given + ridge @ old[tile].T
        solved[tile] = torch.linalg.solve(square + ridge, right).T
    layer.values.copy_(solved.reshape(layer.values.shape).to(layer.values))


def _rows(layer: SparseLayer, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """``(places, n_in, entries of a kernel)`` of inputs and ``(places, n_out)`` of outputs."""
    if not isinstance(layer, SparseConv):
        rows, wanted = x.reshape(-1, layer.n_in, 1), target.reshape(-1, layer.n_out)
        some = _some(len(rows), ROWS)
        return rows[some], wanted[some]
    padded = F.pad(
        x, layer._around(), mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode
    )
    height = (1,) * (2 - len(layer.kernel))  # sequences are taken as images of height 1
    padded = padded.view(*padded.shape[:2], *height, *padded.shape[2:])
    sizes = [(*height, *size) for size in (layer.kernel, layer.dilation, layer.stride)]
    windows = F.unfold(padded, sizes[0], sizes[1], 0, sizes[2])
    wanted = target.flatten(2)
    some = _some(wanted.shape[2], max(1, ROWS // len(x)))
    rows = windows[:, :, some].transpose(1, 2).reshape(-1, layer.n_in, math.prod(layer.kernel))
    wanted = wanted[:, :, some].transpose(1, 2).reshape(-1, layer.n_out)
    return rows, wanted


def _some(count: int, most: int) -> Tensor:
    """At most ``most`` of ``count`` places, evenly spread."""
    if count <= most:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most).round().long()


def _norms(model: nn.Module, samples: Tensor) -> None:
    """Let batch norms see what the net makes of a batch now."""
    norms = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    if not norms:
        return
    held: Mapping[_BatchNorm, float | None] = {norm: norm.momentum for norm in norms}
    was = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None
        answer(model, samples)
    finally:
        for norm, momentum in held.items():
            norm.momentum = momentum
        for module, training in was.items():
            module.training = training
