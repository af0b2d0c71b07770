"""Give any module predefined sparsity before it is trained: its linear layers and convolutions become sparse ones."""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from presplit.core.errors import GraphError, PatternError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.train.exits import MultiExit
from presplit.train.layers import Form, SparseConv2d, SparseLayer, SparseLinear

PLAIN = (nn.Linear, nn.Conv2d)
"""What can become sparse. Kinds of them do more, or are read by their parents (attention reads its projection)."""
LEAST_FEATURES = 8
"""Without being named, a layer stays dense if its outputs would read fewer features: such groups run no faster."""


@dataclass(frozen=True)
class LayerSummary:
    """One layer with weights: sizes, connections, density and how it runs ("dense", "batched", "scattered")."""

    name: str
    n_in: int
    n_out: int
    weights: int
    density: float
    form: Form | str


def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, float | Pattern] | None = None,
    family: str | Family = "grouped",
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` in which layers are sparse, with fresh values drawn for their own fan-in.

    ``density`` (0..1] applies to every linear layer and plain convolution for which ``family`` has exactly this density
    and whose outputs would still read at least 8 features; the others, and the classifier at the end, stay dense
    (`summary` shows which). ``layers`` maps name patterns (``"fc1"``, ``"layer1.*"``) to a density or a `Pattern`,
    and wins over ``density``; what it names and what is impossible is an error.

    Raises `GraphError` if a name matches no layer or nothing becomes sparse, `PatternError` for an illegal density.

    >>> model = sparsify(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), density=0.25)
    >>> [(row.name, row.weights, row.form) for row in summary(model)]
    [('0', 1024, 'batched'), ('2', 640, 'dense')]
    """
    if isinstance(model, MultiExit) and density is not None:
        raise GraphError(
            "the model has exits already: call sparsify before add_exits, or name layers instead of density"
        )
    draw = PATTERNS.find(family) if isinstance(family, str) else family
    model = copy.deepcopy(model)
    dense = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    classifier = list(dense)[-1] if dense else ""
    asked = dict(layers or {})
    for glob in asked:
        if not fnmatch.filter(dense, glob):
            raise GraphError(f"no linear layer or convolution is called {glob!r}; there are: {', '.join(dense)}")
    changed = 0
    for number, (name, layer) in enumerate(dense.items()):
        glob = next((glob for glob in asked if fnmatch.fnmatchcase(name, glob)), None)
        if glob is not None:
            wanted = asked[glob]
            with context(f"layer {name}"):
                _refuse_special(layer)
                pattern = wanted if isinstance(wanted, Pattern) else _draw(draw, layer, wanted, seed + number)
        elif density is not None and name != classifier:
            pattern = _fitting(draw, layer, density, seed + number)
        else:
            pattern = None
        if pattern is not None:
            with context(f"layer {name}"):
                model = _replaced(model, layer, _sparse(layer, pattern))
            changed += 1
    if not changed:
        raise GraphError(f"no layer of {type(model).__name__} can have density {density}; name layers and densities")
    return model


def summary(model: nn.Module) -> list[LayerSummary]:
    """Every layer of ``model`` that has weights, in order; biases and normalisation are not counted."""
    rows: list[LayerSummary] = []
    for name, layer in model.named_modules():
        if isinstance(layer, SparseLayer):
            weights, n_in, n_out, form = layer.values.numel(), layer.n_in, layer.n_out, str(layer.form)
            full = n_in * n_out * math.prod(layer.kernel)
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            if isinstance(layer.weight, nn.UninitializedParameter):
                raise GraphError(f"layer {name} has no size yet: run an example through the model first")
            weights = full = layer.weight.numel()
            n_out, n_in, form = layer.weight.shape[0], layer.weight.shape[1], "dense"
        else:
            continue
        rows.append(LayerSummary(name, n_in, n_out, weights, weights / full, form))
    return rows


def count_weights(model: nn.Module) -> int:
    """Weights that exist in ``model``, without biases and normalisation."""
    return sum(row.weights for row in summary(model))


def _draw(draw: Family, layer: nn.Module, density: float, seed: int) -> Pattern:
    n_out, n_in = _size(layer)
    return draw(n_in, n_out, density=density, seed=seed)


def _size(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a dense layer."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.weight.shape[0], layer.weight.shape[1]


def _fitting(draw: Family, layer: nn.Module, density: float, seed: int) -> Pattern | None:
    """A pattern for a layer that was not named, or None if it is better left dense."""
    if type(layer) not in PLAIN:
        return None
    if isinstance(layer, nn.Conv2d) and (layer.groups != 1 or layer.padding_mode != "zeros"):
        return None
    try:
        pattern = _draw(draw, layer, density, seed)
    except PatternError:
        return None
    return pattern if pattern.fan_in >= LEAST_FEATURES else None


def _sparse(layer: nn.Module, pattern: Pattern) -> SparseLayer:
    """A sparse layer of the same kind, device and dtype, with fresh values."""
    sparse: SparseLayer
    if isinstance(layer, nn.Linear):
        sparse = SparseLinear.from_dense(layer, pattern)
    else:
        assert isinstance(layer, nn.Conv2d)
        sparse = SparseConv2d.from_dense(layer, pattern)
    sparse.reset_parameters()
    return sparse


def _refuse_special(layer: nn.Module) -> None:
    if type(layer) not in PLAIN:
        raise GraphError(f"only a plain Linear or Conv2d becomes sparse, got {type(layer).__name__}")


def _replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """``model`` with ``new`` wherever ``old`` stood, under each of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and name:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)
    return new if model is old else model
