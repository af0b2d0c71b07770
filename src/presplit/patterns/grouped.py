"""Grouped patterns: permuted block-diagonal layers.

They are the default family because stock dense kernels run them fast.

Inputs and outputs are divided into ``1 / density`` groups; each output group reads only its own
input group. It runs as one permutation and one batched matmul, or as a grouped convolution. Inputs
are dealt to the groups in turn, like cards (the channel shuffle of ShuffleNet, arXiv 1707.01083):
if the layer before was grouped too, every group receives an equal share of each of its groups, so
two layers already connect every input with every output whenever a group holds at least as many
features as there are groups.

No order mixes faster. Let ``f`` be the features of a group and ``G`` the groups. Group ``g`` reads
the inputs ``g + G k``, ``k = 0..f-1``, which the groups ``floor((g + G k) / f)`` of the layer
before made. Floors nest, so ``L`` layers further back the groups met are ``floor((g + G K) /
f**L)``, ``K = 0..f**L - 1``: steps of ``G / f**L``, from 0 to ``G - 1``, and no group is left out
as soon as ``f**L >= G``. One more layer reads all inputs of all groups. So ``f**layers >= G f`` is
enough; it is also needed, because ``f**layers`` is the number of paths that end in an output.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns.densities import check_sizes, divisors, legal_density


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``1 / groups`` that a grouped pattern can have, rising.

    The number of groups divides both sizes.

    >>> legal_densities(12, 8)
    [0.25, 0.5, 1.0]
    """
    return [1 / groups for groups in reversed(divisors(math.gcd(n_in, n_out)))]


def grouped(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """A grouped pattern with ``1 / density`` groups.

    At least 16, better 64, features a group make it fast.

    There is one best way to mix, so every ``seed`` gives the same pattern. Raises `PatternError`,
    naming the nearest legal densities, unless ``1 / density`` is a whole number that divides both
    sizes.

    >>> grouped(6, 4, density=0.5).index.tolist()
    [[0, 2, 4], [1, 3, 5]]
    >>> grouped(6, 4, density=0.3)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 6 -> 4 has no grouped pattern of density 0.3: \
legal are 1 / groups with groups dividing 2; nearest: 0.5
    """
    check_sizes(n_in, n_out)
    rule = f"1 / groups with groups dividing {math.gcd(n_in, n_out)}"
    groups = round(
        1
        / legal_density(
            n_in, n_out, density, legal_densities(n_in, n_out), family="grouped", rule=rule
        )
    )
    index = np.arange(n_in, dtype=np.int32).reshape(n_in // groups, groups).T
    return Pattern(n_in=n_in, tile=n_out // groups, index=index)


def layers_to_mix(width: int, *, density: float) -> int:
    """The fewest grouped layers in a row that let every output depend on every input.

    All of them have this ``width``.

    It is the least ``layers`` with ``(density * width) ** layers >= width``; the head of this file
    proves that the deal needs no more and that no pattern of this fan-in needs less. Raises
    `PatternError` for an illegal density, and for ``1 / width``, which mixes nothing.

    >>> layers_to_mix(1024, density=0.25), layers_to_mix(1024, density=1 / 64)
    (2, 3)
    """
    fan_in = grouped(width, width, density=density).fan_in
    if fan_in == 1 < width:
        raise PatternError(
            f"groups of one feature never mix: {width} -> {width} at density {density:.6g}"
        )
    layers = 1
    while fan_in**layers < width:
        layers += 1
    return layers
