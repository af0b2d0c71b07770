"""What a net is made of.

This is each layer's weights, multiplications and pattern, and which runtimes run it faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from presplit.core.errors import GraphError
from presplit.core.tables import Column, plain, table
from presplit.train.layers.convolution import Convolution
from presplit.train.layers.sparse import SMALL, Form, SparseLayer
from presplit.train.nets.calling import answer, device_of, evaluating, unwrapped
from presplit.train.nets.copying import bare_copy, is_lazy
from presplit.train.nets.decide import Decision
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.stay_dense import SPARSE_KINDS, stays_dense

LEAST_FAST = 16
"""Groups of fewer features are smaller than the dense layer and not faster."""
MOST_FAST = 0.5
"""What a denser pattern saves in multiplications is lost in moving inputs."""
FAST = ("PyTorch", "ONNX Runtime", "OpenVINO")
"""The runtimes whose stock kernels run a batched layer faster than a dense one."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer with weights.

    ``form``: how it runs, "dense", "batched" or "scattered"; ``macs``: multiplications of one
    sample that the weights stand for, 0 unless an example was given; ``faster_in``: the runtimes
    that run it faster than dense; ``note``: why it is dense, or why it is not faster; ``exit``: the
    submodule after which the early exit hangs that it belongs to, if it belongs to one.
    """

    name: str
    n_in: int
    n_out: int
    weights: int
    density: float
    form: Form | str
    pattern: str = "dense"
    macs: int = 0
    faster_in: tuple[str, ...] = ()
    note: str = ""
    exit: str = ""


COLUMNS = (
    Column("name", "layer", str, text=True),
    Column("size", "size", str, text=True),
    Column("pattern", "pattern", str, text=True),
    Column("density", "density", plain),
    Column("weights", "weights", "{:,}".format),
    Column("macs", "MACs", "{:,}".format),
    Column("faster_in", "faster in", str, text=True),
    Column("note", "", str, text=True),
)


class Summary(tuple[LayerSummary, ...]):
    """The layers of a net in order; printed, it is a table."""

    __slots__ = ()

    def __str__(self) -> str:
        """One line a layer, and the sums: of the early exits, if there are any, and of all."""
        weights, macs = _sums(self)
        rows = [_cells(row) for row in self]
        of_exits = [row for row in self if row.exit]
        if of_exits:
            own_weights, own_macs = _sums(of_exits)
            share = f"{100 * own_macs / macs:.1f} % of all MACs" if macs else ""
            sums = {"weights": own_weights, "macs": own_macs or None, "note": share}
            rows.append({"name": "exits", **sums})
        rows.append({"name": "all", "weights": weights, "macs": macs or None})
        return table(rows, COLUMNS)


def summary(
    model: nn.Module,
    example: Tensor | None = None,
    *,
    decided: Mapping[str, Decision] | None = None,
) -> Summary:
    """Every layer of ``model`` that has weights.

    Biases, normalisation and parameters of own modules are not counted.

    Layers of `torch.nn` that never become sparse, such as recurrent ones, are listed too, and their
    multiplications are not counted. ``example``: a batch of samples, with which multiplications are
    counted. ``decided``: what `decide` said of the net, whose reasons then stand at the layers that
    stayed dense. Raises `GraphError` if a layer has no size yet, or the net does not run the
    example.

    >>> import torch
    >>> print(summary(nn.Sequential(nn.Linear(8, 4)), torch.zeros(1, 8)))
    layer  size    pattern  density  weights  MACs  faster in
    -----  ------  -------  -------  -------  ----  ---------
    0      8 -> 4  dense          1       32    32
    all                                   32    32
    """
    model = unwrapped(model)
    seen = observe(model, example) if example is not None else {}
    rows: list[LayerSummary] = []
    counted: set[int] = set()
    for name, layer in model.named_modules():
        if isinstance(layer, SparseLayer):
            weights, n_in, n_out, form = (
                layer.values.numel(),
                layer.n_in,
                layer.n_out,
                str(layer.form),
            )
            density, pattern, (faster, note) = layer.density, _pattern(layer), _faster(layer)
        elif isinstance(layer, nn.Linear | Convolution):
            if is_lazy(layer):
                raise GraphError(
                    f"layer {name} has no size yet: run an example through the model first"
                )
            groups = layer.groups if isinstance(layer, Convolution) else 1
            weights = (
                0 if id(layer.weight) in counted else layer.weight.numel()
            )  # a shared one is there once
            form, density, pattern, faster = "dense", 1.0, "dense", ()
            n_out, n_in = layer.weight.shape[0], layer.weight.shape[1] * groups
            note = decided[name].why if decided and name in decided else ""
        elif other := _other(layer, counted):
            weights, form, density, pattern, faster = (
                sum(map(Tensor.numel, other)),
                "dense",
                1.0,
                "dense",
                (),
            )
            n_out, n_in = other[0].shape[:2]
            only = f"{type(layer).__name__}: only {SPARSE_KINDS} become sparse"
            note = stays_dense(layer) or only
        else:
            continue
        counted |= {id(value) for value in layer.parameters(recurse=False)}
        per_use = layer.weight.numel() if isinstance(layer, nn.Linear | Convolution) else weights
        macs = per_use * (seen[name].positions if name in seen else 0)
        rows.append(
            LayerSummary(name, n_in, n_out, weights, density, form, pattern, macs, faster, note)
        )
    return Summary(_with_exits(model, rows))


def count_weights(model: nn.Module) -> int:
    """Weights that exist in ``model``, without biases and normalisation."""
    return sum(row.weights for row in summary(model))


@dataclass(frozen=True)
class Seen:
    """What one layer met: its last inputs, and how often it uses its weights for one sample."""

    inputs: Tensor
    positions: int


def observe(model: nn.Module, example: Tensor) -> dict[str, Seen]:
    """What each layer with weights meets when ``model`` runs a batch in evaluation mode.

    ``example`` is the batch.
    """
    if not len(example):
        raise GraphError("an example is a batch of at least one sample, got none")
    if any(is_lazy(part) for part in model.modules()):
        model = bare_copy(
            model
        )  # the run gives lazy layers their sizes, and looking changes nothing
    found: dict[str, Seen] = {}

    def watch(name: str) -> Any:
        def hook(
            layer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor], out: Tensor
        ) -> None:
            is_linear = isinstance(layer, nn.Linear) or (
                isinstance(layer, SparseLayer) and not layer.kernel
            )
            channels = out.shape[-1] if is_linear else out.shape[1]
            before = found[name].positions if name in found else 0
            found[name] = Seen(
                given[0] if given else named["input"],
                before + out.numel() // (len(example) * channels),
            )

        return hook

    layers = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, SparseLayer | nn.Linear | Convolution)
    ]
    handles = [layer.register_forward_hook(watch(name), with_kwargs=True) for name, layer in layers]
    try:
        with evaluating(model):
            answer(model, example.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _with_exits(model: nn.Module, rows: Sequence[LayerSummary]) -> Sequence[LayerSummary]:
    """``rows``, each with the exit that it belongs to."""
    if not isinstance(model, MultiExit):
        return rows
    layers = {
        f"heads.{number}.{layer}": place
        for number, (place, head) in enumerate(zip(model.after, model.heads, strict=True))
        for layer, _ in head.named_modules()
    }
    return [replace(row, exit=layers.get(row.name, "")) for row in rows]


def _sums(rows: Iterable[LayerSummary]) -> tuple[int, int]:
    """Weights and multiplications of all ``rows``."""
    found = [(row.weights, row.macs) for row in rows]
    return sum(weights for weights, _ in found), sum(macs for _, macs in found)


def _other(layer: nn.Module, counted: set[int]) -> list[Tensor]:
    """The weights of another layer of torch.nn, unless counted already.

    Such a layer is neither linear nor a convolution that can be sparse.
    """
    if not type(layer).__module__.startswith("torch.nn.modules"):
        return []
    own = layer.parameters(recurse=False)
    return [
        v
        for v in own
        if not isinstance(v, nn.UninitializedParameter) and v.ndim > 1 and id(v) not in counted
    ]


def _pattern(layer: SparseLayer) -> str:
    tiles = len(layer.index)
    family = f"{layer.family}: " if layer.family else ""
    kernels = (
        ""
        if layer.kept is None
        else f", {layer.kept.shape[1]} of {math.prod(layer.kernel)} entries a kernel"
    )
    return f"{family}{tiles} tiles of {layer.tile} outputs x {layer.index.shape[1]} inputs{kernels}"


def _faster(layer: SparseLayer) -> tuple[tuple[str, ...], str]:
    """In which runtimes a layer is faster than dense, and why not in others."""
    share = layer.pattern.density
    whole = "" if layer.kept is None else "kernels are multiplied whole"
    if layer.form == "scattered":
        return (), "exact, as fast as dense"
    if layer.index.shape[1] < LEAST_FAST:
        return (), f"reads only {layer.index.shape[1]} features: smaller, not faster"
    if share > MOST_FAST:
        return (), whole or f"density {share:.3g}: smaller, not faster"
    if not layer.kernel and layer.n_in * layer.n_out <= SMALL:
        return (), "too small to gain; runs as dense where it is exported"
    return FAST, whole


def _cells(row: LayerSummary) -> dict[str, object]:
    return {
        "name": row.name,
        "size": f"{row.n_in} -> {row.n_out}",
        "pattern": row.pattern,
        "density": row.density,
        "weights": row.weights,
        "macs": row.macs or None,
        "faster_in": ", ".join(row.faster_in),
        "note": row.note,
    }
