"""N:M patterns: every output reads N of every M consecutive inputs.

Source: arXiv 2102.04010 (N:M from scratch), arXiv 2104.08378 (2:4 in NVIDIA's sparse tensor cores);
places are random and fixed instead of learned. Each M outputs and M inputs hold a shuffled
circulant, so within them every input is read N times. Usual: 2 of 4 (the form that CUDA kernels
run), 1 of 4, 2 of 8; M from 2 to 16.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.types import Pattern
from presplit.patterns.densities import check_divides, check_sizes, legal_density


def legal_densities(n_in: int, n_out: int, *, m: int | None = None) -> list[float]:
    """The densities ``n / m``, rising; without ``m``, all for which one is found: ``k / n_in``.

    >>> legal_densities(16, 8, m=4)
    [0.25, 0.5, 0.75, 1.0]
    """
    check_divides(n_in if m is None else m, n_in, what="m must divide n_in")
    whole = m or n_in
    return [n / whole for n in range(1, whole + 1)]


def n_of_m(
    n_in: int, n_out: int, *, density: float, m: int | None = None, seed: int = 0
) -> Pattern:
    """``density * m`` of every ``m`` consecutive inputs.

    ``m`` divides ``n_in``, by default it is the least possible.

    Every input is read equally often if ``m`` divides ``n_out``. Raises `PatternError` naming the
    nearest legal values.

    >>> n_of_m(8, 2, density=0.5, m=4).index.tolist()
    [[1, 3, 4, 6], [1, 2, 4, 5]]
    >>> n_of_m(8, 2, density=0.3, m=4)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 8 -> 2 has no n-of-m pattern of density 0.3: \
legal are k / 4; nearest: 0.25, 0.5
    """
    check_sizes(n_in, n_out)
    legal = legal_densities(n_in, n_out, m=m)
    exact = legal_density(n_in, n_out, density, legal, family="n-of-m", rule=f"k / {len(legal)}")
    m = m or n_in // math.gcd(n_in, round(exact * n_in))
    n, runs, stacks = round(exact * m), n_in // m, -(-n_out // m)
    rng = np.random.default_rng(seed)
    rows, columns = (np.argsort(rng.random((stacks, runs, m)), axis=2) for _ in range(2))
    circulant = (rows[..., None] + np.arange(n)) % m
    places = (
        np.take_along_axis(columns[:, :, None, :], circulant, axis=3)
        + m * np.arange(runs)[:, None, None]
    )
    index = np.sort(places.transpose(0, 2, 1, 3).reshape(stacks * m, runs * n)[:n_out], axis=1)
    return Pattern(n_in=n_in, tile=1, index=index.astype(np.int32))
