"""Grouped patterns: permuted block-diagonal layers, the default family because stock dense kernels run them fast.

Inputs and outputs are divided into ``1 / density`` groups; each output group reads only its own input group. It runs as
one permutation and one batched matmul, or as a grouped convolution. Inputs are dealt to the groups in turn, like
cards (the channel shuffle of ShuffleNet, arXiv 1707.01083): if the layer before was grouped too, every group receives
an equal share of each of its groups, so two layers already connect every input with every output whenever a group
holds at least as many features as there are groups.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Pattern

SIX_DIGITS = 1e-5
"""A density written with six digits, as refusals name it, is taken for the legal one."""


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``1 / groups`` that a grouped pattern can have, rising; groups divide both sizes.

    >>> legal_densities(12, 8)
    [0.25, 0.5, 1.0]
    """
    g = math.gcd(n_in, n_out)
    return [1 / groups for groups in range(g, 0, -1) if g % groups == 0]


def grouped(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """A grouped pattern with ``1 / density`` groups; at least 16, better 64, features a group make it fast.

    There is one best way to mix, so every ``seed`` gives the same pattern. Raises `PatternError`, naming the nearest
    legal densities, unless ``1 / density`` is a whole number that divides both sizes.

    >>> grouped(6, 4, density=0.5).index.tolist()
    [[0, 2, 4], [1, 3, 5]]
    >>> grouped(6, 4, density=0.3)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 6 -> 4 has no grouped pattern of density 0.3: legal are 1 / groups with groups \
dividing 2; nearest: 0.5
    """
    if n_in < 1 or n_out < 1:
        raise PatternError(f"a layer needs at least one input and one output, got {n_in} -> {n_out}")
    common = math.gcd(n_in, n_out)
    groups = round(1 / density) if density * common > 0.5 else 0
    if groups < 1 or abs(groups * density - 1) > SIX_DIGITS or common % groups:
        legal = legal_densities(n_in, n_out)
        near = {
            max((d for d in legal if d <= density), default=legal[0]),
            min((d for d in legal if d >= density), default=1),
        }
        raise PatternError(
            f"{n_in} -> {n_out} has no grouped pattern of density {density:.6g}: legal are 1 / groups with groups "
            f"dividing {common}; nearest: {', '.join(f'{d:.6g}' for d in sorted(near))}"
        )
    index = np.arange(n_in, dtype=np.int32).reshape(n_in // groups, groups).T
    return Pattern(n_in=n_in, tile=n_out // groups, index=index)
