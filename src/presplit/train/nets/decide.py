"""Which layers of a net become sparse, by which pattern, and why the others stay dense.

Nothing is changed here: `decide` looks and says, `presplit.train.sparsify` does.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from presplit.core.errors import GraphError, PatternError, context
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns import LEGAL, PATTERNS, grouped
from presplit.patterns.densities import SIX_DIGITS
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.train.layers.convolution import Convolution
from presplit.train.layers.feature_major import FeatureMajorLinear
from presplit.train.nets.calling import AnswersAtExits, unwrapped
from presplit.train.nets.copying import is_lazy
from presplit.train.nets.drawing import draw_for, nearest_density
from presplit.train.nets.feeders import feeders
from presplit.train.nets.stay_dense import SPARSE_KINDS, stays_dense
from presplit.train.nets.straight import is_depthwise, straight

Value = TypeVar("Value")
Wanted = float | Pattern | Family
PLAIN = (nn.Linear, FeatureMajorLinear, nn.Conv1d, nn.Conv2d)
"""What can become sparse.

Kinds of them do more, or are read by their parents (attention reads its projection).
"""
NEAREST = "; --nearest (sparsity.nearest = true, nearest=True) takes the nearest of each layer"
SHARES = "shares its weight with another module"
LEAST_FEATURES = 8
"""Without being named, a layer stays dense if its outputs would read fewer features.

Such groups run no faster.
"""


@dataclass(frozen=True)
class Decision:
    """What becomes of one layer with weights.

    ``pattern``: its connections, None if it stays dense; ``kernels``: the entries that its kernels
    keep, None if they are whole; ``family``: the name of the family that drew the pattern, if one
    did; ``why``: why it stays dense, if it does; ``asked``: the density that was asked for, where
    the pattern has the nearest one that the family can have for the layer.
    """

    pattern: Pattern | None = None
    kernels: KernelSupports | None = None
    family: str = ""
    why: str = ""
    asked: float | None = None


@dataclass(frozen=True)
class _Asked:
    """What was asked of all layers, and of some by name."""

    density: float | None
    layers: Mapping[str, Wanted]
    kernels: Mapping[str, KernelSupports]
    draw: Family
    nearest: bool


def decide(
    model: nn.Module,
    *,
    density: float | None = None,
    layers: Mapping[str, Wanted] | None = None,
    kernels: Mapping[str, KernelSupports] | None = None,
    family: str | Family = "grouped",
    nearest: bool = False,
    seed: int = 0,
) -> Mapping[str, Decision]:
    """What `presplit.train.sparsify` makes of each linear layer and convolution of ``model``.

    Recurrent layers, and others that never become sparse, are listed first with the reason. The
    arguments are those of `sparsify`, and so are the errors; ``model`` stays as it is.

    >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> found = decide(net, density=0.25)
    >>> found["0"].pattern.density, found["2"].why
    (0.25, 'the classifier stays dense unless it is named')
    """
    model = unwrapped(model)
    if isinstance(model, AnswersAtExits) and density is not None:
        raise GraphError(
            "the model has exits already: call sparsify before add_exits, or name layers instead "
            "of density"
        )
    if density is not None and not 0 < density <= 1:
        raise PatternError(f"density must be in 0..1, got {density}")
    draw = PATTERNS.find(family) if isinstance(family, str) else family
    asked = _Asked(density, dict(layers or {}), dict(kernels or {}), draw, nearest)
    found = _decisions(model, asked, seed)
    _refuse_all_dense(model, asked, found, seed)
    return _straightened(model, found)


def _dense(model: nn.Module) -> dict[str, nn.Linear | Convolution]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Convolution)
    }


def _decisions(model: nn.Module, asked: _Asked, seed: int) -> dict[str, Decision]:
    """What becomes of each layer, though all may stay dense."""
    dense = _dense(model)
    never = {name: why for name, each in model.named_modules() if (why := stays_dense(each))}
    _refuse_idle(asked.layers, dense, never)
    _refuse_idle(asked.kernels, dense, never)
    _refuse_never(asked, never)
    last = ([*(feeders(model, dense) or dense)] or [""])[-1]
    found = {name: Decision(why=why) for name, why in never.items()}
    for number, (name, layer) in enumerate(dense.items()):
        with context(f"layer {name}"):
            found[name] = _decision(
                asked, name, layer, model, seed=seed + number, is_last=name == last
            )
    return found


def _straightened(model: nn.Module, found: dict[str, Decision]) -> Mapping[str, Decision]:
    """The decisions, with neighbouring inputs in the patterns that do better so."""
    dense = _dense(model)
    chosen = {name: each for name, each in found.items() if each.pattern is not None}
    for name, pattern in straight(model, dense, chosen).items():
        found[name] = replace(found[name], pattern=pattern)
    return MappingProxyType(found)


def _decision(
    asked: _Asked, name: str, layer: nn.Module, model: nn.Module, *, seed: int, is_last: bool
) -> Decision:
    """What becomes of one layer; raises `PatternError` or `GraphError` if it was named in vain."""
    wanted, kept = _named(asked.layers, name), _named(asked.kernels, name)
    if wanted is None:
        found = _unnamed(asked, layer, model, seed=seed, is_last=is_last)
    elif wanted == 1:
        found = Decision(why="named to stay dense")
    else:
        _refuse_special(layer, model)
        found = _as_named(asked, wanted, layer, seed)
    if found.pattern is not None and found.pattern.density == 1 and found.asked is not None:
        found = Decision(why=f"density {found.asked:g}: the nearest that it can have is 1")
    if kept is None:
        return found
    _refuse_special(layer, model)
    if found.pattern is None:
        found = Decision(draw_for(grouped, layer, 1.0, seed))
    return replace(found, kernels=kept)


def _as_named(asked: _Asked, wanted: Wanted, layer: nn.Module, seed: int) -> Decision:
    """A named layer with the density, pattern or family that it was named with."""
    if isinstance(wanted, Pattern):
        return Decision(wanted)
    if callable(wanted):
        if asked.density is None:
            raise PatternError("a family draws patterns of a density: give sparsify density=")
        return _drawn(asked, wanted, layer, asked.density, seed)
    if isinstance(wanted, int | float):
        try:
            return _drawn(asked, asked.draw, layer, wanted, seed)
        except PatternError as error:
            raise PatternError(f"{error}{_offer(asked, layer, wanted)}") from error
    raise PatternError(
        f"expected a density, a Pattern or a family that draws one, got {type(wanted).__name__}"
    )


def _unnamed(
    asked: _Asked, layer: nn.Module, model: nn.Module, *, seed: int, is_last: bool
) -> Decision:
    """A layer that was not named: sparse if that pays, else dense with the reason."""
    if asked.density is None:
        return Decision(why="not named")
    why = _better_dense(layer, model, is_last=is_last)
    if why:
        return Decision(why=why)
    try:
        found = _drawn(asked, asked.draw, layer, asked.density, seed, least=LEAST_FEATURES)
    except PatternError as error:
        return Decision(why=str(error))
    pattern = found.pattern
    if pattern is not None and pattern.fan_in < LEAST_FEATURES and pattern.density < 1:
        return Decision(why=f"outputs would read only {pattern.fan_in} features")
    return found


def _better_dense(layer: nn.Module, model: nn.Module, *, is_last: bool) -> str:
    """Why a layer that was not named is no candidate, or nothing."""
    if is_lazy(layer):
        return "has no size yet: run an example through the model first"
    if is_last:
        return "the classifier stays dense unless it is named"
    if type(layer) not in PLAIN:
        return f"{type(layer).__name__} is more than a linear layer or convolution"
    if is_depthwise(layer):
        return "depthwise: each output reads one channel already"
    if _is_frozen(layer):
        return "frozen: the fresh values of a sparse layer would never be trained"
    strange = carries(layer, model)
    return f"it {strange}" if strange else ""


def _refuse_all_dense(
    model: nn.Module, asked: _Asked, found: Mapping[str, Decision], seed: int
) -> None:
    """Raise `GraphError` if nothing becomes sparse, unless every name says so."""
    if any(decision.pattern is not None for decision in found.values()):
        return
    if asked.layers and all(wanted == 1 for wanted in asked.layers.values()):
        return
    share, reasons = "a density below 1", ""
    if asked.density is not None:
        share = f"density {asked.density}"
        why = [f"{name}: {decision.why}" for name, decision in found.items()]
        more = "; ..." if len(why) > 3 else ""
        reasons = f" ({'; '.join(why[:3])}{more})" if why else ""
    raise GraphError(
        f"no layer of {type(model).__name__} can have {share}{reasons}; name layers and densities"
        f"{_offer_of_all(model, asked, seed) if asked.density is not None else ''}"
    )


def _drawn(
    asked: _Asked, draw: Family, layer: nn.Module, density: float, seed: int, *, least: int = 1
) -> Decision:
    """A layer with the pattern that a family draws for it.

    Where the nearest density is asked for, it is one with which outputs read ``least`` features.
    """
    taken = density
    if asked.nearest:
        taken = nearest_density(_called(draw), layer, density, least)
    pattern = draw_for(draw, layer, taken, seed)
    moved = None if math.isclose(taken, density, rel_tol=SIX_DIGITS) else density
    return Decision(pattern, family="" if pattern.density == 1 else _called(draw), asked=moved)


def _offer(asked: _Asked, layer: nn.Module, density: float) -> str:
    """The cure for a density that a named layer cannot have, where the nearest one is sparse."""
    family = _called(asked.draw)
    if asked.nearest or family not in LEGAL:
        return ""
    return NEAREST if nearest_density(family, layer, density, 1) < 1 else ""


def _offer_of_all(model: nn.Module, asked: _Asked, seed: int) -> str:
    """The cure for a density that no layer can have: the nearest one, or other families."""
    own = _called(asked.draw)
    if own in LEGAL and not asked.nearest and _makes_sparse(model, asked, own, seed):
        return NEAREST
    able = [name for name in LEGAL if name != own and _makes_sparse(model, asked, name, seed)]
    if not able:
        return ""
    return f"; --nearest with --family {' or '.join(able[:3])} makes some of them sparse"


def _makes_sparse(model: nn.Module, asked: _Asked, family: str, seed: int) -> bool:
    """Whether any layer becomes sparse where the nearest densities of ``family`` are taken."""
    try:
        tried = replace(asked, draw=PATTERNS[family], nearest=True)
        return any(each.pattern is not None for each in _decisions(model, tried, seed).values())
    except (PatternError, GraphError):
        return False


def _refuse_never(asked: _Asked, never: Mapping[str, str]) -> None:
    """Raise `GraphError` if a layer that is never sparse was named to be."""
    for name, why in never.items():
        is_named = _named(asked.layers, name) not in (None, 1)
        if is_named or _named(asked.kernels, name) is not None:
            raise GraphError(f"layer {name}: {why}; name the others, or {name!r} first with 1")


def _refuse_idle(
    asked: Mapping[str, object], dense: Mapping[str, nn.Module], never: Mapping[str, str]
) -> None:
    """Raise `GraphError` for a name pattern that fits no layer.

    One that fits only layers that patterns before it decide is refused too.
    """
    decided: set[str] = set()
    for glob in asked:
        fitting = fnmatch.filter([*dense, *never], glob)
        if not fitting:
            kinds = SPARSE_KINDS.replace("and", "or")
            raise GraphError(f"no {kinds} is called {glob!r}; there are: {', '.join(dense)}")
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


def can_be_sparse(layer: nn.Module) -> bool:
    """True for plain linear layers and convolutions, depthwise and frozen ones excepted."""
    return type(layer) in PLAIN and not is_depthwise(layer) and not _is_frozen(layer)


def _is_frozen(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | Convolution) and not layer.weight.requires_grad


def _refuse_special(layer: nn.Module, model: nn.Module) -> None:
    """Raise `GraphError` for a layer that cannot be sparse."""
    if is_lazy(layer):
        raise GraphError("it has no size yet: run an example through the model first")
    if type(layer) not in PLAIN:
        raise GraphError(
            f"only a plain {SPARSE_KINDS.replace('and', 'or')} becomes sparse, got "
            f"{type(layer).__name__}"
        )
    if is_depthwise(layer):
        raise GraphError(
            f"a depthwise convolution has no connections between channels to leave out, got {layer}"
        )
    if strange := carries(layer, model):
        raise GraphError(f"it {strange}, which a sparse layer would lose: remove that first")


def carries(layer: nn.Module, model: nn.Module) -> str:
    """What ties a layer to others than its parent, or nothing."""
    assert isinstance(layer, nn.Linear | Convolution)
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
