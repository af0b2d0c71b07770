"""Expander patterns: every output reads D random inputs.

Source: X-Nets, Deep Expander Networks, arXiv 1711.08757 (convolutions: D input channels for each
output channel). A random graph of this kind is an expander with high probability, so few layers
connect everything. Fan-in is equal, fan-out is not: an input is read by ``density * n_out`` outputs
on average and by none with probability ``(1 - density) ** n_out``. Where that matters, `biregular`
has the same cost and no such input.
"""

from __future__ import annotations

import numpy as np

from presplit.core.types import Pattern
from presplit.patterns.densities import check_sizes, legal_density


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``D / n_in``, rising; any ``n_out`` has them all.

    >>> legal_densities(4, 7)
    [0.25, 0.5, 0.75, 1.0]
    """
    return [degree / n_in for degree in range(1, n_in + 1)]


def expander(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
    """Every output reads ``density * n_in`` inputs, drawn uniformly.

    Raises `PatternError` unless that is whole.

    >>> pattern = expander(784, 100, density=1 / 28)
    >>> pattern.fan_in, pattern.is_regular
    (28, True)
    >>> expander(10, 4, density=0.25)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 10 -> 4 has no expander pattern of density 0.25: \
legal are D / 10; nearest: 0.2, 0.3
    """
    check_sizes(n_in, n_out)
    legal = legal_densities(n_in, n_out)
    fan_in = round(
        n_in * legal_density(n_in, n_out, density, legal, family="expander", rule=f"D / {n_in}")
    )
    rng = np.random.default_rng(seed)
    index = np.stack([np.sort(rng.choice(n_in, fan_in, replace=False)) for _ in range(n_out)])
    return Pattern(n_in=n_in, tile=1, index=index.astype(np.int32))
