"""The values with which a sparse layer says what its dense one says, as well as it can.

Layer by layer, in running order: given what the sparse net so far makes of a batch, the values are
those whose outputs are nearest to the dense layer's (least squares, with a small ridge). Batch
norms then learn the means and variances of the sparse net. Source: the layer-wise reconstruction of
"Optimal Brain Compression" (arXiv 2208.11580), for connections that are fixed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from presplit.train.layers.convolution import SparseConv
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.calling import answer, evaluating
from presplit.train.nets.worth import parts_of, what_is_read

ROWS = 16384
"""At most so many places of a batch are looked at in a layer."""
RIDGE = 0.1
"""Of the mean square of the inputs: it keeps what the batch does not tell where it was."""


@torch.no_grad()
def fit_to(sparse: nn.Module, dense: nn.Module, samples: Tensor) -> None:
    """Give the sparse layers of ``sparse`` the values nearest to what ``dense`` computes, in place.

    ``dense`` is the net that ``sparse`` was made of, with layers of the same names. A layer that
    runs several times is fitted to all of its calls. Layers that the samples do not reach, and
    layers whose outputs read unequally many inputs or parts of kernels, keep the values that they
    have. Batch norms that run before the first sparse layer, or never, keep their statistics.
    Samples go through in parts, once for each layer: no more than one layer's places are held.
    """
    changed = {
        name
        for name, layer in sparse.named_modules()
        if isinstance(layer, SparseLayer) and not isinstance(dense.get_submodule(name), SparseLayer)
    }
    norms = {
        name
        for name, layer in sparse.named_modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    }
    calls = _calls(sparse, changed | norms, parts_of(samples)[0])
    for name, times in Counter(calls).items():
        layer = sparse.get_submodule(name)
        if isinstance(layer, SparseLayer) and layer._where is None and layer.kept is None:
            rows, wanted = _places(layer, name, sparse, dense, samples, ROWS // times)
            _solve(layer, rows, wanted)
    first = next((place for place, name in enumerate(calls) if name in changed), len(calls))
    _norms(sparse, norms & set(calls[first:]), samples)


def _calls(model: nn.Module, names: Collection[str], samples: Tensor) -> list[str]:
    """Which of the named parts run, in running order, as often as they do."""
    calls: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *_: calls.append(name)

    hooks = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        with evaluating(model):
            answer(model, samples)
    finally:
        for each in hooks:
            each.remove()
    return calls


def _places(
    layer: SparseLayer,
    name: str,
    sparse: nn.Module,
    dense: nn.Module,
    samples: Tensor,
    most: int,
) -> tuple[Tensor, Tensor]:
    """What the layer reads at some places, and what it should give there without its bias.

    They are ``(places, n_in, entries of a kernel)`` and ``(places, n_out)``, ``most`` places a
    call.
    """
    rows, wanted = list[Tensor](), list[Tensor]()
    for part in parts_of(samples):
        some = max(1, most * len(part) // len(samples))
        read = _seen(sparse, name, part, lambda x, y, some=some: _inputs(layer, x, y, some))
        given = _seen(dense, name, part, lambda _, y, some=some: _outputs(layer, y, some))
        # of other lengths if the net's code decides by values how often a layer runs
        if len(read) and len(read) == len(given):
            rows.append(read)
            wanted.append(given)
    if not rows:
        return layer.values.new_zeros(0, layer.n_in, 1), layer.values.new_zeros(0, layer.n_out)
    target = torch.cat(wanted)
    return torch.cat(rows), target if layer.bias is None else target - layer.bias


def _seen(
    model: nn.Module, name: str, samples: Tensor, pick: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The rows that ``pick`` copies of what the named layer reads and gives, of all its calls.

    They are copied at once, since the net's code may change both in place.
    """
    rows: list[Tensor] = []

    def note(
        _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor
    ) -> None:
        rows.append(pick(what_is_read(given, named), output))

    hook = model.get_submodule(name).register_forward_hook(note, with_kwargs=True)
    try:
        with evaluating(model):
            answer(model, samples)
    finally:
        hook.remove()
    return torch.cat(rows) if rows else samples.new_zeros(0)


def _outputs(layer: SparseLayer, y: Tensor, most: int) -> Tensor:
    """``(places, n_out)``: a copy of what ``y`` holds at some places."""
    if not isinstance(layer, SparseConv):
        rows = y.reshape(-1, layer.n_out)
        return rows[_some(len(rows), most)]
    maps = y.reshape(-1, layer.n_out, y.shape[-len(layer.kernel) :].numel())
    some = _some(len(maps) * maps.shape[2], most)
    return maps[some // maps.shape[2], :, some % maps.shape[2]]


def _inputs(layer: SparseLayer, x: Tensor, y: Tensor, most: int) -> Tensor:
    """``(places, n_in, entries of a kernel)``: a copy of what is read for places of ``y``."""
    if not isinstance(layer, SparseConv):
        rows = x.reshape(-1, layer.n_in, 1)
        return rows[_some(len(rows), most)]
    axes = len(layer.kernel)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    batch = x.reshape(-1, layer.n_in, *x.shape[-axes:])  # one sample may come without the batch
    padded = F.pad(batch, layer._around(), mode=mode)
    flat = (1,) * (2 - axes)  # sequences are taken as images of height 1
    padded = padded.view(*padded.shape[:2], *flat, *padded.shape[2:])
    height, width = (*flat, *y.shape[-axes:])
    some = _some(len(batch) * height * width, most)
    sample, place = some // (height * width), some % (height * width)
    across: list[Tensor] = []
    steps = zip(layer.kernel, layer.dilation, layer.stride, strict=True)
    starts = (place // width, place % width)[2 - axes :]
    for start, (entries, dilation, stride) in zip(starts, steps, strict=True):
        across.append(start[:, None] * stride + torch.arange(entries) * dilation)
    if axes == 1:
        across.insert(0, torch.zeros(len(some), 1, dtype=torch.long))
    windows = padded[sample[:, None, None], :, across[0][:, :, None], across[1][:, None, :]]
    return windows.flatten(1, 2).transpose(1, 2)


def _some(count: int, most: int) -> Tensor:
    """At most ``most`` of ``count`` places, evenly spread."""
    if count <= most:
        return torch.arange(count)
    return torch.linspace(0, count - 1, most, dtype=torch.float64).round().long()


def _solve(layer: SparseLayer, rows: Tensor, wanted: Tensor) -> None:
    """Set the layer's values: for each tile a least-squares problem over the inputs it reads."""
    if not len(rows):
        return
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


def _norms(model: nn.Module, names: Collection[str], samples: Tensor) -> None:
    """Let the named batch norms see what the net makes of the samples now."""
    norms = [each for each in map(model.get_submodule, names) if isinstance(each, _BatchNorm)]
    if not norms:
        return
    held = [(norm, norm.momentum) for norm in norms]
    try:
        with evaluating(model):
            for norm in norms:
                norm.train()
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all parts
            for part in parts_of(samples):
                answer(model, part)
    finally:
        for norm, momentum in held:
            norm.momentum = momentum
