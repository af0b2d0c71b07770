"""Butterfly patterns: two block-diagonal layers with a permutation between.

The product of the two connects everything.

Source: Monarch, arXiv 2204.00595, the two-factor form of butterfly matrices, which stock batched
matmuls run. A dense layer becomes two grouped ones with nothing between them but a shuffle of the
hidden features (a learned map of rank ``hidden / groups**2`` between each pair of groups), so this
replaces a layer by two and is not a `Pattern`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from presplit.core.types import Ints, Pattern
from presplit.patterns.densities import check_divides, check_sizes
from presplit.patterns.grouped import grouped


@dataclass(frozen=True)
class Butterfly:
    """Two patterns, to be run one after the other without a nonlinearity between."""

    first: Pattern
    """Contiguous blocks: it needs no permutation of the inputs."""
    second: Pattern
    """Blocks after the permutation `between`."""

    @property
    def between(self) -> Ints:
        """int32 ``(hidden,)``: the hidden feature that stands at each place after the shuffle."""
        return self.second.index.reshape(-1)

    @property
    def density(self) -> float:
        """Weights of both layers, as a share of the one dense layer that they replace."""
        connections = self.first.connections + self.second.connections
        return connections / (self.first.n_in * self.second.n_out)


def butterfly(n_in: int, n_out: int, *, groups: int, hidden: int | None = None) -> Butterfly:
    """Two layers ``n_in -> hidden -> n_out`` of ``groups`` groups.

    Every output depends on every input.

    ``hidden``: a multiple of ``groups**2``, by default the least that is not below the smaller
    size. For square layers ``2 / groups`` of the dense weights remain. Monarch takes ``groups``
    near the square root of the size; groups of at least 16 features run fast. There is one best way
    to mix, hence no seed. Raises `PatternError` naming the nearest legal numbers.

    >>> pair = butterfly(16, 16, groups=4)
    >>> pair.density, pair.between.tolist()[:8]
    (0.5, [0, 4, 8, 12, 1, 5, 9, 13])
    >>> bool((pair.second.mask().astype(int) @ pair.first.mask().astype(int) == 1).all())
    True
    """
    check_sizes(n_in, n_out)
    check_divides(
        groups,
        math.gcd(n_in, n_out),
        what="groups must divide the greatest common divisor of the sizes",
    )
    least = groups * groups
    hidden = -(-min(n_in, n_out) // least) * least if hidden is None else hidden
    check_sizes(n_in, hidden)
    check_divides(least, hidden, what="groups ** 2 must divide hidden")
    blocks = np.arange(n_in, dtype=np.int32).reshape(groups, n_in // groups)
    first = Pattern(n_in=n_in, tile=hidden // groups, index=blocks)
    return Butterfly(first, grouped(hidden, n_out, density=1 / groups))
