"""Biregular patterns: equal in-degrees and equal out-degrees.

Every output reads equally many inputs, every input feeds equally many outputs.

Source: arXiv 2407.11763 and arXiv 1812.01164 (the "basic" structured predefined sparsity), from the
formulas. For layer sizes ``n_in``, ``n_out`` and ``g = gcd(n_in, n_out)`` the legal densities are
``k / g``, ``k = 1..g``, with out-degree ``k * n_out / g`` and in-degree ``k * n_in / g``. Outputs
are filled one after another: an input that needs all remaining outputs is taken first, the rest are
drawn among the inputs that still need some. With legal degrees this cannot fail: the inputs that
must be taken never outnumber the places, nor the available ones fall short of them. Differs from
the paper's code in that illegal degrees are refused with the nearest legal ones named, and that
only the index is kept: there is no mask.
"""

from __future__ import annotations

import math

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Pattern

SIX_DIGITS = 1e-5
"""A density written with six digits, as refusals name it, is taken for the legal one.

A degree must be exact.
"""


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``k / gcd(n_in, n_out)`` that a biregular pattern can have, rising.

    >>> legal_densities(8, 6)
    [0.5, 1.0]
    """
    g = math.gcd(n_in, n_out)
    return [k / g for k in range(1, g + 1)]


def biregular(
    n_in: int,
    n_out: int,
    *,
    density: float | None = None,
    fan_out: int | None = None,
    seed: int = 0,
) -> Pattern:
    """A biregular pattern of exactly this ``density`` or out-degree (the paper's ``fo``).

    Give one of the two: ``fan_out`` is the number of outputs that each input feeds, ``density`` is
    ``fan_out / n_out``. Tile 1, so the pattern is exact and free, and no kernel runs it faster than
    dense. Raises `PatternError`, naming the nearest legal degrees, if there is no such pattern.

    >>> pattern = biregular(800, 40, fan_out=2, seed=0)
    >>> pattern.fan_in, set(pattern.fan_out.tolist()), pattern.connections
    (40, {2}, 1600)
    >>> biregular(784, 100, fan_out=30)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 784 -> 100 has no biregular pattern with fan_out 30 \
(density 0.3): legal are multiples of 25 up to 100; nearest: fan_out 25 (density 0.25), \
fan_out 50 (density 0.5)
    """
    if (density is None) == (fan_out is None):
        raise PatternError("give either density or fan_out")
    wanted = n_out * density if density is not None else float(fan_out or 0)
    out_degree = _legal_fan_out(n_in, n_out, wanted, slack=0.0 if density is None else SIX_DIGITS)
    fan_in = n_in * out_degree // n_out
    rng = np.random.default_rng(seed)
    need = np.full(n_in, out_degree)
    index = np.empty((n_out, fan_in), dtype=np.int32)
    for row in range(n_out):
        forced = np.flatnonzero(need == n_out - row)
        free = np.flatnonzero((need > 0) & (need < n_out - row))
        drawn = rng.choice(free, fan_in - forced.size, replace=False)
        index[row] = np.sort(np.concatenate([forced, drawn]))
        need[index[row]] -= 1
    return Pattern(n_in=n_in, tile=1, index=index)


def _legal_fan_out(n_in: int, n_out: int, wanted: float, *, slack: float) -> int:
    """``wanted`` as a legal out-degree, or `PatternError` naming the nearest ones."""
    if n_in < 1 or n_out < 1:
        raise PatternError(
            f"a layer needs at least one input and one output, got {n_in} -> {n_out}"
        )
    most = math.gcd(n_in, n_out)
    step = n_out // most
    steps = min(max(0.0, wanted / step), most + 1.0)  # 0 also for NaN
    if abs(steps - round(steps)) <= slack * steps and 1 <= round(steps) <= most:
        return round(steps) * step
    below, above = (min(max(round_(steps), 1), most) * step for round_ in (math.floor, math.ceil))
    nearest = ", ".join(
        f"fan_out {degree} (density {degree / n_out:.6g})" for degree in sorted({below, above})
    )
    raise PatternError(
        f"{n_in} -> {n_out} has no biregular pattern with fan_out {wanted:.6g} (density "
        f"{wanted / n_out:.6g}): "
        f"legal are multiples of {step} up to {n_out}; nearest: {nearest}"
    )
