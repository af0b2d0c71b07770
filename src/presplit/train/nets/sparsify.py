"""Give any module predefined sparsity before it is trained.

Its linear layers and convolutions become sparse ones, as `presplit.train.decide` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import nn

from presplit.core.errors import GraphError, SpecError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.layers.convolution import SparseConv2d
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.linear import SparseLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.copying import bare_copy
from presplit.train.nets.decide import SHARES, Decision, Wanted, carries, decide

Values = Literal["fresh", "taken"]
"""Where a sparse layer's values come from: drawn anew, or the dense layer's where they exist."""


def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, Wanted] | None = None,
    kernels: Mapping[str, KernelSupports] | None = None,
    family: str | Family = "grouped",
    values: Values = "fresh",
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` in which layers are sparse.

    ``values`` "fresh" are drawn for each layer's own fan-in (He initialisation); "taken" are those
    of ``model``, a trained dense net, where connections exist: such a net still has to be trained,
    for fewer epochs. All else of ``model`` stays.

    ``density`` (0..1] applies to every linear layer and convolution for which ``family`` has
    exactly this density and whose outputs would still read at least 8 features; the others,
    depthwise convolutions and the classifier at the end stay dense (`summary` shows which and why).
    ``layers`` maps name patterns (``"fc1"``, ``"layer1.*"``) to a density, a `Pattern`, or a family
    that draws one of ``density``, such as `local.over`; the first pattern that fits a name decides,
    and wins over ``density``; a density of 1 keeps a layer dense. `allocate` divides a budget into
    such densities. ``kernels`` maps name patterns to the entries that the kernels of these
    convolutions keep, whatever their density between channels. What is named and impossible is an
    error. A convolution with groups is sparse within each of its groups, and its density is a share
    of the weights that it has.

    Raises `GraphError` if a name matches no layer or nothing becomes sparse, `PatternError` for an
    illegal density, `SpecError` for ``values`` of another name.

    >>> from presplit.train import summary
    >>> dense = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> model = sparsify(dense, density=0.25)
    >>> [(row.name, row.weights, row.form) for row in summary(model)]
    [('0', 1024, 'batched'), ('2', 640, 'dense')]
    """
    if values not in get_args(Values):
        raise SpecError(f"values: expected one of {', '.join(get_args(Values))}, got {values!r}")
    copied = bare_copy(model)
    decided = decide(
        copied, density=density, layers=layers, kernels=kernels, family=family, seed=seed
    )
    return applied(copied, decided, values=values)


def applied(
    model: nn.Module, decided: Mapping[str, Decision], *, values: Values = "fresh"
) -> nn.Module:
    """``model`` itself with the layers sparse that `decide` found for it or for its like."""
    dense = dict(model.named_modules())
    for name, decision in decided.items():
        if decision.pattern is None:
            continue
        with context(f"layer {name}"):
            sparse = _sparse(dense[name], decision.pattern, decision.kernels)
        if values == "fresh":
            sparse.reset_parameters()
        sparse.family = decision.family
        model = _replaced(model, dense[name], sparse)
    return _feature_major(model)


def _sparse(layer: nn.Module, pattern: Pattern, supports: KernelSupports | None) -> SparseLayer:
    """A sparse layer of the same kind, device, dtype and mode, with the dense one's values.

    It is frozen if that is.
    """
    sparse: SparseLayer
    if isinstance(layer, nn.Conv2d):
        sparse = SparseConv2d.from_dense(layer, pattern, supports=supports)
    elif supports is not None:
        raise GraphError(
            "only convolutions have kernels of which entries can be kept, this is a linear layer"
        )
    else:
        assert isinstance(layer, nn.Linear)
        sparse = SparseLinear.from_dense(layer, pattern)
    sparse.values.requires_grad_(layer.weight.requires_grad)
    if sparse.bias is not None and layer.bias is not None:
        sparse.bias.requires_grad_(layer.bias.requires_grad)
    return sparse.train(layer.training)


def _feature_major(model: nn.Module) -> nn.Module:
    """``model`` with dense linear layers that take activations as sparse ones leave them.

    Without sparse linear layers it stays as it is.
    """
    if not any(isinstance(layer, SparseLinear) for layer in model.modules()):
        return model
    for layer in list(model.modules()):
        if type(layer) is nn.Linear and carries(layer, model) in ("", SHARES):
            other = FeatureMajorLinear(
                layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
            )
            other.weight, other.bias = layer.weight, layer.bias
            model = _replaced(model, layer, other.train(layer.training))
    return model


def _replaced(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """``model`` with ``new`` wherever ``old`` stood, under each of its names."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and name:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, new)
    return new if model is old else model
