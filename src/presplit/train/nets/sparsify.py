"""Give any module predefined sparsity before it is trained.

Its linear layers and convolutions become sparse ones, as `presplit.train.decide` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from presplit.core.errors import GraphError, SpecError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.layers.convolution import SparseConv1d, SparseConv2d
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.layers.linear import SparseLinear
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.calling import answer, device_of, evaluating
from presplit.train.nets.chosen import choose
from presplit.train.nets.copying import bare_copy, twin
from presplit.train.nets.decide import SHARES, Decision, Wanted, carries, decide
from presplit.train.nets.fitted import fit_to

MOST = 512
"""Of the samples that choosing and fitting look at."""
Values = Literal["fresh", "taken", "fitted"]
"""Where a sparse layer's values come from.

They are drawn anew, or are the dense layer's where connections exist, or those with which the
sparse layer says best what the dense one says.
"""
Connections = Literal["drawn", "chosen"]
"""Whether connections are drawn knowing nothing, or chosen by what a trained net's are worth."""


def sparsify(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, Wanted] | None = None,
    kernels: Mapping[str, KernelSupports] | None = None,
    family: str | Family = "grouped",
    values: Values = "fresh",
    connections: Connections = "drawn",
    samples: Tensor | None = None,
    nearest: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A copy of ``model`` in which layers are sparse.

    ``values`` "fresh" are drawn for each layer's own fan-in (He initialisation). If ``model`` is a
    trained dense net, "taken" are its own where connections exist, and "fitted" the nearest to what
    each of its layers gives for ``samples`` (least squares); such a net still has to be trained,
    for fewer epochs. ``connections`` "chosen" keep the most of what a trained net's are worth on
    ``samples``: groups by putting the channels in the order that suits them, which costs nothing at
    run time, other families by choosing their patterns (`presplit.train.nets.chosen`).
    ``samples``: inputs ``(batch, ...)`` of training, of which 512 are used, evenly spread. All else
    of ``model`` stays.

    ``density`` (0..1] applies to every linear layer and convolution for which ``family`` has
    exactly this density and whose outputs would still read at least 8 features; the others,
    depthwise convolutions and the classifier at the end stay dense (`summary` shows which and why).
    ``layers`` maps name patterns (``"fc1"``, ``"layer1.*"``) to a density, a `Pattern`, or a family
    that draws one of ``density``, such as `local.over`; the first pattern that fits a name decides,
    and wins over ``density``; a density of 1 keeps a layer dense. `allocate` divides a budget into
    such densities. ``kernels`` maps name patterns to the entries that the kernels of these
    convolutions keep, whatever their density between channels. What is named and impossible is an
    error, unless ``nearest``: then each layer takes the nearest density, as a factor, that the
    family has for it, and `moved` tells which ones took another. A convolution with groups is
    sparse within each of its groups, and its density is a share of the weights that it has.

    Raises `GraphError` if a name matches no layer or nothing becomes sparse, `PatternError` for an
    illegal density, `SpecError` for ``values`` or ``connections`` of another name, or
    without the samples that they need, and for samples that are no tensor, fewer than 2 or not
    finite.

    >>> from presplit.train import summary
    >>> dense = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> model = sparsify(dense, density=0.25)
    >>> [(row.name, row.weights, row.form) for row in summary(model)]
    [('0', 1024, 'batched'), ('2', 640, 'dense')]
    """
    _refuse_unknown(values, connections, samples)
    few = None if samples is None else _some(samples)
    copied = bare_copy(model)
    if few is not None:
        few = few.to(device_of(copied))
        if values == "fitted" or connections == "chosen":
            with evaluating(copied):
                answer(copied, few[:2], data="samples=")
    decided = decide(
        copied,
        density=density,
        layers=layers,
        kernels=kernels,
        family=family,
        nearest=nearest,
        seed=seed,
    )
    if connections == "chosen" and few is not None:
        decided = choose(copied, decided, few, seed=seed)
    if values != "fitted" or few is None:
        return applied(copied, decided, values=values)
    dense = twin(copied)
    sparse = applied(copied, decided, values="taken")
    fit_to(sparse, dense, few)
    return sparse


def moved(model: nn.Module) -> dict[str, tuple[float, float]]:
    """The layers that `sparsify` gave the nearest density: what was asked, and what they have.

    >>> dense = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> moved(sparsify(dense, density=0.3, nearest=True))
    {'0': (0.3, 0.25)}
    """
    return {
        name: (layer.asked, layer.pattern.density)
        for name, layer in model.named_modules()
        if isinstance(layer, SparseLayer) and layer.asked is not None
    }


def _some(samples: object) -> Tensor:
    """At most `MOST` of the samples, evenly spread: they may be in the order of their classes.

    Raises `SpecError` unless there are 2 at least, in a tensor, and those looked at are finite.
    """
    wanted = "samples: expected a tensor (batch, ...) of at least 2 training inputs"
    if not isinstance(samples, Tensor):
        raise SpecError(
            f"{wanted}, got {type(samples).__name__}: make one with torch.as_tensor or torch.stack"
        )
    if samples.ndim == 0 or len(samples) < 2:
        raise SpecError(
            f"{wanted}, got one of shape {tuple(samples.shape)}: give a batch, some hundred suffice"
        )
    places = torch.linspace(0, len(samples) - 1, min(MOST, len(samples))).round().long()
    few = samples[places]
    bad = int((~few.isfinite()).reshape(len(few), -1).any(1).sum())
    if bad:
        raise SpecError(
            f"samples: expected finite numbers, got NaN or infinity in {bad} of {len(few)} "
            "samples: leave those out or mend them"
        )
    return few


def _refuse_unknown(values: str, connections: str, samples: Tensor | None) -> None:
    """Raise `SpecError` for a word that is none, or that needs samples."""
    for key, said, words in (
        ("values", values, get_args(Values)),
        ("connections", connections, get_args(Connections)),
    ):
        if said not in words:
            raise SpecError(f"{key}: expected one of {', '.join(words)}, got {said!r}")
        if said in ("fitted", "chosen") and samples is None:
            raise SpecError(f"{key}: {said!r} needs samples=, a batch of training inputs")


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
        sparse.asked = decision.asked
        model = _replaced(model, dense[name], sparse)
    return _feature_major(model)


def _sparse(layer: nn.Module, pattern: Pattern, supports: KernelSupports | None) -> SparseLayer:
    """A sparse layer of the same kind, device, dtype and mode, with the dense one's values.

    It is frozen if that is.
    """
    sparse: SparseLayer
    if isinstance(layer, nn.Conv2d):
        sparse = SparseConv2d.from_dense(layer, pattern, supports=supports)
    elif isinstance(layer, nn.Conv1d):
        sparse = SparseConv1d.from_dense(layer, pattern, supports=supports)
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
