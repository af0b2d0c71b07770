"""Diagonal patterns: wrapped diagonals of the weight matrix.

Source: DynaDiag, arXiv 2506.11449, with fixed diagonals; for a matrix that is not square we let a
diagonal wrap on both sides until it closes. The ``g = gcd(n_in, n_out)`` diagonals, ``(i mod n_out,
(i + d) mod n_in)`` for all ``i``, part the matrix; each visits every output and every input equally
often, so any of them together are biregular. The offsets ``d`` are drawn without repetition.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.types import Pattern
from presplit.patterns.biregular import legal_densities as biregular_densities
from presplit.patterns.densities import check_sizes, legal_density


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``k / gcd(n_in, n_out)`` of ``k`` diagonals, rising.

    >>> legal_densities(8, 6)
    [0.5, 1.0]
    """
    return biregular_densities(n_in, n_out)


def diagonal(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """``density * gcd(n_in, n_out)`` wrapped diagonals.

    Raises `PatternError`, naming the nearest legal densities.

    >>> diagonal(4, 4, density=0.5, seed=0).mask().astype(int).tolist()
    [[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]]
    """
    check_sizes(n_in, n_out)
    common = math.gcd(n_in, n_out)
    legal = legal_densities(n_in, n_out)
    exact = legal_density(n_in, n_out, density, legal, family="diagonal", rule=f"k / {common}")
    offsets = np.random.default_rng(seed).choice(common, round(exact * common), replace=False)
    first = (np.arange(n_out)[:, None] + offsets) % common
    again = np.arange(0, n_in, common)
    index = np.sort((first[:, :, None] + again).reshape(n_out, -1), axis=1)
    return Pattern(n_in=n_in, tile=1, index=index.astype(np.int32))
