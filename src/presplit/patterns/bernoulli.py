"""Bernoulli patterns: connections at distinct uniform places, no degree guaranteed.

They are the baseline of every family.

Source: the "random" pattern of arXiv 1812.01164, section 2. The number of connections is exact,
their places are uniform, so degrees vary and at low densities a neuron may be cut off.
"""

from __future__ import annotations

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Pattern


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``k / n_in``, rising, for who must choose among some.

    `bernoulli` rounds any other.

    >>> legal_densities(4, 7)
    [0.25, 0.5, 0.75, 1.0]
    """
    return [k / n_in for k in range(1, n_in + 1)]


def bernoulli(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """``round(density * n_in * n_out)`` connections at uniform places.

    Raises `PatternError` if that is none.

    >>> pattern = bernoulli(10, 6, density=0.25, seed=1)
    >>> pattern.connections, pattern.is_regular
    (15, False)
    """
    if n_in < 1 or n_out < 1 or not 0 < density <= 1 or round(density * n_in * n_out) < 1:
        raise PatternError(
            f"{n_in} -> {n_out} at density {density:.4g} has no connection; density must be in 0..1"
        )
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(n_in * n_out, round(density * n_in * n_out), replace=False))
    rows = np.split(places % n_in, np.searchsorted(places, np.arange(1, n_out) * n_in))
    index = np.full((n_out, max(len(row) for row in rows)), -1, dtype=np.int32)
    for row, inputs in enumerate(rows):
        index[row, : len(inputs)] = inputs
    return Pattern(n_in=n_in, tile=1, index=index)
