"""Give any module predefined sparsity before it is trained: its linear layers and convolutions become sparse ones."""

from __future__ import annotations

import copy
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import nn

from presplit.core.errors import GraphError, PatternError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS, grouped
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.convolution import SparseConv2d
from presplit.train.exits import MultiExit
from presplit.train.layers import FeatureMajorLinear, SparseLayer, SparseLinear

Value = TypeVar("Value")
PLAIN = (nn.Linear, FeatureMajorLinear, nn.Conv2d)
"""What can become sparse. Kinds of them do more, or are read by their parents (attention reads its projection)."""
LEAST_FEATURES = 8
"""Without being named, a layer stays dense if its outputs would read fewer features: such groups run no faster."""


def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, float | Pattern] | None = None,
    kernels: Mapping[str, KernelSupports] | None = None,
    family: str | Family = "grouped",
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` in which layers are sparse, with fresh values drawn for their own fan-in.

    ``density`` (0..1] applies to every linear layer and convolution for which ``family`` has exactly this density and
    whose outputs would still read at least 8 features; the others, depthwise convolutions and the classifier at the
    end stay dense (`summary` shows which and why). ``layers`` maps name patterns (``"fc1"``, ``"layer1.*"``) to a
    density or a `Pattern`, and wins over ``density``; a density of 1 keeps a layer dense. `allocate` divides a budget
    into such densities. ``kernels`` maps name patterns to the entries that the kernels of these convolutions keep,
    whatever their density between channels. What is named and impossible is an error. A convolution with groups is
    sparse within each of its groups, and its density is a share of the weights that it has.

    Raises `GraphError` if a name matches no layer or nothing becomes sparse, `PatternError` for an illegal density.

    >>> from presplit.train import summary
    >>> model = sparsify(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), density=0.25)
    >>> [(row.name, row.weights, row.form) for row in summary(model)]
    [('0', 1024, 'batched'), ('2', 640, 'dense')]
    """
    if isinstance(model, MultiExit) and density is not None:
        raise GraphError(
            "the model has exits already: call sparsify before add_exits, or name layers instead of density"
        )
    draw = PATTERNS.find(family) if isinstance(family, str) else family
    label = family if isinstance(family, str) else getattr(family, "__name__", "")
    model = copy.deepcopy(model)
    dense = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    classifier = list(dense)[-1] if dense else ""
    asked, supports = dict(layers or {}), dict(kernels or {})
    for glob in (*asked, *supports):
        if not fnmatch.filter(dense, glob):
            raise GraphError(f"no linear layer or convolution is called {glob!r}; there are: {', '.join(dense)}")
    changed: Counter[str] = Counter()
    for number, (name, layer) in enumerate(dense.items()):
        wanted, kept = _named(asked, name), _named(supports, name)
        drawn = _straight if draw is grouped and _neighbours_together(layer, changed) else draw
        with context(f"layer {name}"):
            pattern = None
            if wanted == 1 and kept is None:
                continue
            if wanted is not None or kept is not None:
                _refuse_special(layer)
            if wanted is not None:
                pattern = wanted if isinstance(wanted, Pattern) else _draw(drawn, layer, wanted, seed + number)
            elif density is not None:
                pattern = _fitting(drawn, layer, density, seed + number, is_classifier=name == classifier)
            if pattern is None and kept is not None:
                pattern = _draw(grouped, layer, 1.0, seed)
            if pattern is None:
                continue
            sparse = _sparse(layer, pattern, kept)
        sparse.family = "" if isinstance(wanted, Pattern) or pattern.density == 1 else label
        model = _replaced(model, layer, sparse)
        changed[_kind(layer)] += 1
    if not changed:
        share = "a density below 1" if density is None else f"density {density}"
        raise GraphError(f"no layer of {type(model).__name__} can have {share}; name layers and densities")
    return _feature_major(model)


def _named(asked: Mapping[str, Value], name: str) -> Value | None:
    """What the first name pattern that fits says."""
    return next((value for glob, value in asked.items() if fnmatch.fnmatchcase(name, glob)), None)


def _kind(layer: nn.Module) -> str:
    """Layers of one kind stand in a row; not so convolutions of 1x1, which often stand beside it, as shortcuts do."""
    if not isinstance(layer, nn.Conv2d):
        return "linear"
    return "pointwise" if layer.kernel_size == (1, 1) else "spatial"


def _neighbours_together(layer: nn.Module, before: Mapping[str, int]) -> bool:
    """Whether groups read neighbouring inputs, given how many layers of each kind are sparse ``before`` this one.

    The first linear layer's do: neighbours belong together in most data, and the next layer mixes. Of convolutions in
    a row every other one's do: two need one shuffle between them, and a shuffle of images costs a pass over them.
    """
    kind = _kind(layer)
    return kind != "pointwise" and (before[kind] == 0 if kind == "linear" else before[kind] % 2 == 0)


def _straight(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """A grouped pattern that leaves the channels where they are, if one shuffle after it mixes all."""
    dealt = grouped(n_in, n_out, density=density, seed=seed)
    groups = len(dealt.index)
    if dealt.tile < groups:
        return dealt
    return Pattern(n_in, dealt.tile, np.arange(n_in, dtype=np.int32).reshape(groups, -1))


def _draw(draw: Family, layer: nn.Module, density: float, seed: int) -> Pattern:
    """A pattern between all channels; within each group where the layer has groups."""
    n_out, n_in, groups = size_of(layer)
    parts = [draw(n_in // groups, n_out // groups, density=density, seed=seed + 1000 * k) for k in range(groups)]
    return _side_by_side(parts)


def _side_by_side(parts: Sequence[Pattern]) -> Pattern:
    """One pattern in which each of ``parts`` has inputs and outputs of its own."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.fan_in for part in parts)
    starts = np.cumsum([0, *(part.n_in for part in parts)])
    made = np.cumsum([0, *(part.n_out for part in parts)])
    rows = [
        np.pad(
            np.where(part.index >= 0, part.index + start, -1), ((0, 0), (0, width - part.fan_in)), constant_values=-1
        )
        for part, start in zip(parts, starts, strict=False)
    ]
    orders = [np.arange(p.n_out) if p.out_order is None else p.out_order for p in parts]
    order = np.concatenate([o + start for o, start in zip(orders, made, strict=False)])
    kept = None if np.array_equal(order, np.arange(len(order))) else order
    return Pattern(int(starts[-1]), parts[0].tile, np.concatenate(rows), kept)


def size_of(layer: nn.Module) -> tuple[int, int, int]:
    """(outputs, inputs, groups) of a dense layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, layer.in_channels, layer.groups
    assert isinstance(layer, nn.Linear)
    return layer.out_features, layer.in_features, 1


def _fitting(draw: Family, layer: nn.Module, density: float, seed: int, *, is_classifier: bool) -> Pattern | None:
    """A pattern for a layer that was not named, or None if it is better left dense; then the layer says why."""
    pattern, why = None, ""
    if is_classifier:
        why = "the classifier stays dense unless it is named"
    elif type(layer) not in PLAIN:
        why = f"{type(layer).__name__} is more than a linear layer or convolution"
    elif _is_depthwise(layer):
        why = "depthwise: each output reads one channel already"
    else:
        try:
            pattern = _draw(draw, layer, density, seed)
        except PatternError as error:
            why = str(error)
        if pattern is not None and pattern.fan_in < LEAST_FEATURES and pattern.density < 1:
            why, pattern = f"outputs would read only {pattern.fan_in} features", None
    layer.left_dense = why  # type: ignore[assignment]
    return pattern


def can_be_sparse(layer: nn.Module) -> bool:
    """True for linear layers and convolutions that are not more than that, depthwise ones excepted."""
    return type(layer) in PLAIN and not _is_depthwise(layer)


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _sparse(layer: nn.Module, pattern: Pattern, supports: KernelSupports | None) -> SparseLayer:
    """A sparse layer of the same kind, device and dtype, with fresh values."""
    sparse: SparseLayer
    if isinstance(layer, nn.Conv2d):
        sparse = SparseConv2d.from_dense(layer, pattern, supports=supports)
    elif supports is not None:
        raise GraphError("only convolutions have kernels of which entries can be kept, this is a linear layer")
    else:
        assert isinstance(layer, nn.Linear)
        sparse = SparseLinear.from_dense(layer, pattern)
    sparse.reset_parameters()
    return sparse


def _refuse_special(layer: nn.Module) -> None:
    if type(layer) not in PLAIN:
        raise GraphError(f"only a plain Linear or Conv2d becomes sparse, got {type(layer).__name__}")
    if _is_depthwise(layer):
        raise GraphError(f"a depthwise convolution has no connections between channels to leave out, got {layer}")


def _feature_major(model: nn.Module) -> nn.Module:
    """``model`` with dense linear layers that take activations as sparse linear layers leave them, if it has such."""
    if not any(isinstance(layer, SparseLinear) for layer in model.modules()):
        return model
    for layer in list(model.modules()):
        if type(layer) is nn.Linear:
            other = FeatureMajorLinear(
                layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
            )
            other.weight, other.bias = layer.weight, layer.bias
            other.left_dense = getattr(layer, "left_dense", "")  # type: ignore[assignment]
            model = _replaced(model, layer, other.train(layer.training))
    return model


def _replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """``model`` with ``new`` wherever ``old`` stood, under each of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and name:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)
    return new if model is old else model
