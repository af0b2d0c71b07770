"""RadiX patterns: number the features in mixed radix.

Each output reads the inputs that differ from it in one digit.

Source: RadiX-Net, arXiv 1905.00416. With radices ``r_1 .. r_L``, product ``N``, and ``place_l`` the
product of the radices before ``r_l``, node ``j`` of layer ``l`` reads the nodes ``j + n * place_l
mod N``, ``n = 0 .. r_l - 1``. Each node stands for equally many adjacent features (the source's
Kronecker product with ones, in the order that gives tiles). After all digits every output depends
on every input, over equally many paths. Degrees are equal everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns.block import adjacent
from presplit.patterns.densities import check_divides, check_sizes, divisors, legal_density


def legal_densities(n_in: int, n_out: int, *, nodes: int | None = None) -> list[float]:
    """The densities ``radix / nodes`` with a radix that divides ``nodes``, rising.

    By default ``nodes`` is the common divisor of the sizes.

    >>> legal_densities(12, 8), legal_densities(64, 64, nodes=4)
    ([0.25, 0.5, 1.0], [0.25, 0.5, 1.0])
    """
    common = math.gcd(n_in, n_out)
    check_divides(
        common if nodes is None else nodes,
        common,
        what="nodes must divide the common divisor of the sizes",
    )
    return [1 / groups for groups in reversed(divisors(nodes or common))]


def radix(
    n_in: int,
    n_out: int,
    *,
    density: float,
    nodes: int | None = None,
    place: int | None = None,
    seed: int = 0,
) -> Pattern:
    """One RadiX layer over ``nodes``; ``place`` is the weight of the digit that is read.

    A node stands for ``n_in / nodes`` inputs and ``n_out / nodes`` outputs: few nodes make large
    tiles. Without ``nodes`` there are two digits of radix ``1 / density``, if so many nodes divide
    both sizes, else as many nodes as do. Without ``place``, ``seed`` counts through the digits, so
    layers drawn with seeds 0, 1, 2, .. read one after the other, as they should. Raises
    `PatternError`, naming the nearest legal densities or numbers of nodes, or the places there are.

    >>> radix(8, 8, density=0.25, place=2).index.tolist()[:3]
    [[0, 2], [1, 3], [2, 4]]
    >>> radix(1024, 1024, density=0.25).tile
    64
    """
    check_sizes(n_in, n_out)
    legal = legal_densities(n_in, n_out, nodes=nodes)
    rule = f"radix / {nodes or math.gcd(n_in, n_out)} with a radix that divides it"
    exact = legal_density(n_in, n_out, density, legal, family="radix", rule=rule)
    if nodes is None:
        common, square = math.gcd(n_in, n_out), round(1 / exact) ** 2
        nodes = square if common % square == 0 else common
    degree = round(exact * nodes)
    at: int = degree ** (seed % _digits(nodes, degree)) if place is None else place
    if not 1 <= at <= nodes // degree:
        raise PatternError(
            f"place must be in 1..{nodes // degree} for radix {degree} of {nodes} nodes, got {at}"
        )
    return _layer(n_in, n_out, nodes=nodes, radix=degree, place=at)


def radix_net(sizes: Sequence[int], radices: Sequence[int]) -> list[Pattern]:
    """The patterns of a whole RadiX-Net.

    Layer ``l`` from ``sizes[l]`` to ``sizes[l + 1]`` reads the digit ``l``.

    All ``sizes`` are multiples of the product of ``radices``, and one more than they. Raises
    `PatternError` otherwise.

    >>> [round(pattern.density, 3) for pattern in radix_net([24, 12, 48, 12], [2, 3, 2])]
    [0.167, 0.25, 0.167]
    """
    nodes = math.prod(radices)
    if len(sizes) != len(radices) + 1 or not radices:
        raise PatternError(
            f"{len(radices)} radices make a net of {len(radices) + 1} sizes, got {len(sizes)} sizes"
        )
    for size in sizes:
        check_sizes(size, size)
        check_divides(
            nodes,
            size,
            what=f"the product of the radices {list(radices)} must divide every size, here",
        )
    places = itertools.accumulate(radices, lambda product, radix: product * radix, initial=1)
    layers = zip(
        itertools.pairwise(sizes), radices, places, strict=False
    )  # the last place is the number of nodes
    return [_layer(*pair, nodes=nodes, radix=radix, place=place) for pair, radix, place in layers]


def _layer(n_in: int, n_out: int, *, nodes: int, radix: int, place: int) -> Pattern:
    """Node ``j`` reads the nodes ``j + n * place``, ``n = 0 .. radix - 1``.

    Nodes are widened to adjacent features.
    """
    read = (np.arange(nodes)[:, None] + place * np.arange(radix)) % nodes
    return Pattern(
        n_in, n_out // nodes, adjacent(np.sort(read, axis=1).astype(np.int32), n_in // nodes)
    )


def _digits(nodes: int, radix: int) -> int:
    """The least number of digits of the numbers below ``nodes``, 1 if the radix is 1."""
    digits = 1
    while 1 < radix ** (digits + 1) <= nodes:
        digits += 1
    return digits
