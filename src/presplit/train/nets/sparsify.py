"""Give any module predefined sparsity before it is trained.

Its linear layers and convolutions become sparse ones.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import nn

from presplit.core.errors import GraphError, PatternError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS, grouped
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.layers.convolution import SparseConv2d
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.linear import SparseLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.exits import MultiExit
from presplit.train.nets.feeders import feeders

Value = TypeVar("Value")
Choice = tuple[Pattern, KernelSupports | None, str]
"""A layer's pattern, the entries that its kernels keep, the family that drew it."""
PLAIN = (nn.Linear, FeatureMajorLinear, nn.Conv2d)
"""What can become sparse.

Kinds of them do more, or are read by their parents (attention reads its projection).
"""
SHARES = "shares its weight with another module"
LEAST_FEATURES = 8
"""Without being named, a layer stays dense if its outputs would read fewer features.

Such groups run no faster.
"""


def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, float | Pattern | Family] | None = None,
    kernels: Mapping[str, KernelSupports] | None = None,
    family: str | Family = "grouped",
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` in which layers are sparse, with fresh values.

    The values are drawn for each layer's own fan-in (He initialisation).

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
    illegal density.

    >>> from presplit.train import summary
    >>> dense = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> model = sparsify(dense, density=0.25)
    >>> [(row.name, row.weights, row.form) for row in summary(model)]
    [('0', 1024, 'batched'), ('2', 640, 'dense')]
    """
    if isinstance(model, MultiExit) and density is not None:
        raise GraphError(
            "the model has exits already: call sparsify before add_exits, or name layers instead "
            "of density"
        )
    if density is not None and not 0 < density <= 1:
        raise PatternError(f"density must be in 0..1, got {density}")
    draw = PATTERNS.find(family) if isinstance(family, str) else family
    model = copy.deepcopy(model)
    dense = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    asked, supports = dict(layers or {}), dict(kernels or {})
    _refuse_idle(asked, dense)
    _refuse_idle(supports, dense)
    last = ([*(feeders(model, dense) or dense)] or [""])[-1]
    chosen: dict[str, Choice] = {}
    for number, (name, layer) in enumerate(dense.items()):
        wanted, kept = _named(asked, name), _named(supports, name)
        with context(f"layer {name}"):
            if (wanted is not None and wanted != 1) or kept is not None:
                _refuse_special(layer, model)
            if wanted is not None and not (
                callable(wanted) or isinstance(wanted, int | float | Pattern)
            ):
                kind = type(wanted).__name__
                raise PatternError(
                    f"expected a density, a Pattern or a family that draws one, got {kind}"
                )
            own = wanted if callable(wanted) else draw
            pattern = wanted if isinstance(wanted, Pattern) else None
            if callable(wanted):
                if density is None:
                    raise PatternError(
                        "a family draws patterns of a density: give sparsify density="
                    )
                pattern = draw_for(wanted, layer, density, seed + number)
            elif isinstance(wanted, int | float) and (wanted < 1 or kept is not None):
                pattern = draw_for(draw, layer, wanted, seed + number)
            elif wanted is None and density is not None:
                pattern = _fitting(draw, layer, density, seed + number, model, is_last=name == last)
            if pattern is None and kept is not None:
                pattern = draw_for(grouped, layer, 1.0, seed)
        if pattern is not None:
            chosen[name] = (
                pattern,
                kept,
                "" if isinstance(wanted, Pattern) or pattern.density == 1 else _called(own),
            )
    if not chosen and not (asked and all(wanted == 1 for wanted in asked.values())):
        share = "a density below 1" if density is None else f"density {density}"
        why = [
            f"{name}: {layer.left_dense}"
            for name, layer in dense.items()
            if getattr(layer, "left_dense", "")
        ]
        reasons = f" ({'; '.join(why[:3])}{'; ...' if why[3:] else ''})" if why else ""
        raise GraphError(
            f"no layer of {type(model).__name__} can have {share}{reasons}; name layers and "
            "densities"
        )
    straight = _straight(model, dense, chosen)
    for name, (pattern, kept, own) in chosen.items():
        with context(f"layer {name}"):
            sparse = _sparse(dense[name], straight.get(name, pattern), kept)
        sparse.family = own
        model = _replaced(model, dense[name], sparse)
    return _feature_major(model)


def _refuse_idle(asked: Mapping[str, object], dense: Mapping[str, nn.Module]) -> None:
    """Raise `GraphError` for a name pattern that fits no layer.

    One that fits only layers that patterns before it decide is refused too.
    """
    decided: set[str] = set()
    for glob in asked:
        fitting = fnmatch.filter(dense, glob)
        if not fitting:
            raise GraphError(
                f"no Linear or Conv2d is called {glob!r}; there are: {', '.join(dense)}"
            )
        if decided.issuperset(fitting):
            raise GraphError(
                f"{glob!r} decides nothing: name patterns before it fit the same layers; put it "
                "first"
            )
        decided.update(fitting)


def _called(draw: Family) -> str:
    """A family's name on the shelf, or its own."""
    return next(
        (name for name, each in PATTERNS.items() if each is draw), getattr(draw, "__name__", "")
    )


def _named(asked: Mapping[str, Value], name: str) -> Value | None:
    """What the first name pattern that fits says."""
    return next((value for glob, value in asked.items() if fnmatch.fnmatchcase(name, glob)), None)


def _straight(
    model: nn.Module, dense: Mapping[str, nn.Module], chosen: Mapping[str, Choice]
) -> dict[str, Pattern]:
    """The pattern of neighbouring inputs, for grouped ones that do better without dealing.

    Linear layers that read no sparse layer: neighbours belong together in most data, and the next
    layer mixes. And convolutions that read only layers that deal: two of them in a row need one
    shuffle between, and a shuffle of images costs a pass over them. Convolutions of 1x1 are left
    out: many are shortcuts beside a row. Where it cannot be told which layer reads which, all deal.
    """
    deals = {
        name: layer.order == "dealt"
        for name, layer in model.named_modules()
        if isinstance(layer, SparseLayer)
    }
    deals |= dict.fromkeys(chosen, False)
    mixing = [name for name, layer in dense.items() if not _is_depthwise(layer)]
    found: dict[str, Pattern] = {}
    for name, read in (feeders(model, [*mixing, *deals]) or {}).items():
        if name not in chosen or chosen[name][2] != "grouped":
            continue
        layer, pattern, sources = (
            dense[name],
            chosen[name][0],
            read & deals.keys(),
        )  # a dense layer between mixes all
        is_image = isinstance(layer, nn.Conv2d)
        fits = (
            all(deals[source] for source in sources) and layer.kernel_size != (1, 1)
            if is_image
            else not sources
        )
        if fits and pattern.tile >= len(pattern.index):
            found[name] = _neighbours_together(pattern)
        deals[name] = name not in found
    return found


def _neighbours_together(dealt: Pattern) -> Pattern:
    """The same groups, of inputs that lie side by side.

    Where the layer has groups of its own, this is within each.
    """
    return Pattern(dealt.n_in, dealt.tile, np.sort(dealt.index.ravel()).reshape(dealt.index.shape))


def draw_for(draw: Family, layer: nn.Module, density: float, seed: int) -> Pattern:
    """A pattern between all channels; within each group where the layer has groups."""
    n_out, n_in, groups = size_of(layer)
    parts = [
        draw(n_in // groups, n_out // groups, density=density, seed=seed + 1000 * k)
        for k in range(groups)
    ]
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
            np.where(part.index >= 0, part.index + start, -1),
            ((0, 0), (0, width - part.fan_in)),
            constant_values=-1,
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


def _fitting(
    draw: Family, layer: nn.Module, density: float, seed: int, model: nn.Module, *, is_last: bool
) -> Pattern | None:
    """A pattern for a layer that was not named, or None if it is better left dense.

    A layer left dense says why.
    """
    pattern, why = None, ""
    if is_last:
        why = "the classifier stays dense unless it is named"
    elif type(layer) not in PLAIN:
        why = f"{type(layer).__name__} is more than a linear layer or convolution"
    elif _is_depthwise(layer):
        why = "depthwise: each output reads one channel already"
    elif _is_frozen(layer):
        why = "frozen: the fresh values of a sparse layer would never be trained"
    elif strange := _carries(layer, model):
        why = f"it {strange}"
    else:
        try:
            pattern = draw_for(draw, layer, density, seed)
        except PatternError as error:
            why = str(error)
        if pattern is not None and pattern.fan_in < LEAST_FEATURES and pattern.density < 1:
            why, pattern = f"outputs would read only {pattern.fan_in} features", None
    layer.left_dense = why  # type: ignore[assignment]
    return pattern


def can_be_sparse(layer: nn.Module) -> bool:
    """True for plain linear layers and convolutions, depthwise and frozen ones excepted."""
    return type(layer) in PLAIN and not _is_depthwise(layer) and not _is_frozen(layer)


def _is_frozen(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.requires_grad


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _sparse(layer: nn.Module, pattern: Pattern, supports: KernelSupports | None) -> SparseLayer:
    """A sparse layer of the same kind, device, dtype and mode, with fresh values.

    It is frozen if the dense one is.
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
    sparse.reset_parameters()
    sparse.values.requires_grad_(layer.weight.requires_grad)
    if sparse.bias is not None and layer.bias is not None:
        sparse.bias.requires_grad_(layer.bias.requires_grad)
    return sparse.train(layer.training)


def _refuse_special(layer: nn.Module, model: nn.Module) -> None:
    if type(layer) not in PLAIN:
        raise GraphError(
            f"only a plain Linear or Conv2d becomes sparse, got {type(layer).__name__}"
        )
    if _is_depthwise(layer):
        raise GraphError(
            f"a depthwise convolution has no connections between channels to leave out, got {layer}"
        )
    if strange := _carries(layer, model):
        raise GraphError(f"it {strange}, which a sparse layer would lose: remove that first")


def _carries(layer: nn.Module, model: nn.Module) -> str:
    """What ties a layer to others than its parent, or nothing."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    if "weight" not in layer._parameters:
        return "has a weight that is computed from others"
    if any(
        other is not layer and layer.weight is own
        for other in model.modules()
        for own in other._parameters.values()
    ):
        return SHARES
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return "has hooks" if any(hooks) else ""


def _feature_major(model: nn.Module) -> nn.Module:
    """``model`` with dense linear layers that take activations as sparse ones leave them.

    Without sparse linear layers it stays as it is.
    """
    if not any(isinstance(layer, SparseLinear) for layer in model.modules()):
        return model
    for layer in list(model.modules()):
        if type(layer) is nn.Linear and _carries(layer, model) in ("", SHARES):
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
