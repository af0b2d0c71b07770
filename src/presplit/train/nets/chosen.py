"""Connections chosen by what those of a trained dense net are worth, layer by layer or for all.

Where it can be traced which channels of a net are one, groups stay as they were drawn and the
channels are put in order, which costs nothing at run time. Where a layer's channels must stay in
their order, on both of its sides, its groups are chosen by themselves, at the cost of a gather
before and after it. Other families choose their patterns layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from presplit.patterns import CHOSEN
from presplit.patterns.chosen import kernels
from presplit.train.nets.axes import Axis, axes_of
from presplit.train.nets.decide import Decision
from presplit.train.nets.orders import put_in_order
from presplit.train.nets.worth import worth


def choose(
    model: nn.Module, decided: Mapping[str, Decision], samples: Tensor, *, seed: int = 0
) -> Mapping[str, Decision]:
    """``decided`` with the connections that keep the most of the trained ``model``.

    Channels of ``model`` are reordered in place, so that it computes the same. Patterns that were
    given as such, and convolutions with groups, keep the connections that they have; families that
    cannot be chosen (`presplit.patterns.CHOSEN`) are served by the order of channels alone.
    """
    sparse = {name: each for name, each in decided.items() if each.pattern is not None}
    axes = axes_of(model, samples)
    if axes is not None:
        ordered = {
            name: each.pattern
            for name, each in sparse.items()
            if each.pattern is not None and (each.family == "grouped" or each.family not in CHOSEN)
        }
        put_in_order(model, ordered, worth(model, ordered, samples), axes, samples, seed=seed)
    free = [
        name
        for name, each in sparse.items()
        if each.family in CHOSEN
        and (each.family != "grouped" or _is_fixed(axes, name))
        and getattr(model.get_submodule(name), "groups", 1) == 1
    ]
    found = dict(decided)
    for name, scores in worth(model, free, samples).items():
        if not scores.any():  # a layer of zeros loses nothing, whatever it keeps
            continue
        each = sparse[name]
        assert each.pattern is not None
        pattern = CHOSEN.find(each.family)(scores, density=each.pattern.density, seed=seed)
        found[name] = replace(each, pattern=pattern)
    return {name: _with_best_entries(each, model, name) for name, each in found.items()}


def _is_fixed(axes: Mapping[tuple[str, int], Axis] | None, name: str) -> bool:
    """Whether neither side of a layer can be reordered."""
    sides = [None if axes is None else axes.get((f"{name}.weight", side)) for side in (0, 1)]
    return all(axis is None or axis.fixed for axis in sides)


def _with_best_entries(decision: Decision, model: nn.Module, name: str) -> Decision:
    """A convolution whose kernels keep some entries, with those that its weights say most with."""
    kept, pattern, layer = decision.kernels, decision.pattern, model.get_submodule(name)
    if kept is None or pattern is None or getattr(layer, "groups", 1) != 1:
        return decision
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    squares = layer.weight.detach().double().square().cpu().numpy()
    best = kernels(squares, pattern, support=kept.support, period=kept.period)
    return replace(decision, kernels=best)
