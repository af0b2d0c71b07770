"""Clash-free patterns: biregular, with edges in an order that suits parallel memories.

The memories serve that order without waiting.

Source: Dey, Huang, Beerel, Chugg, "Pre-Defined Sparse Neural Networks with Hardware Acceleration",
arXiv 1812.01164, IEEE JETCAS 9(2) 2019; written from the formulas. The inputs lie in ``z``
memories, input ``j`` in memory ``j mod z`` at address ``j div z``. A cycle reads one word of each
memory: ``z`` edges. ``n_in / z`` cycles read every input once: a sweep; ``fan_out`` sweeps make the
layer. Edge ``e`` belongs to output ``e div fan_in``, so each row of the index stands in the order
in which hardware reads it.

* kind 1: in each sweep each memory is read in a random order of its addresses;
* kind 2: in each sweep each memory is read from a random start upwards, cyclically: only starts are
  stored;
* kind 3: as 2, the same starts in every sweep. So output ``o`` reads what output ``o + n_out /
  fan_out`` reads: it is a grouped pattern in another order, and runs as fast as one (the paper does
  not say so).

``dither`` also shuffles the order of the memories, once a sweep (kinds 1, 2) or once a layer (kind
3). Differs from the authors' code in that ``fan_out`` must divide ``n_out``: elsewhere an output
may lie across two sweeps and be given one input twice, and their code then loses an edge without a
word.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from presplit.core.errors import PatternError
from presplit.core.types import Ints, Pattern
from presplit.patterns.densities import check_divides, check_sizes, legal_density
from presplit.patterns.grouped import legal_densities as grouped_densities

Kind = Literal[1, 2, 3]


def legal_densities(n_in: int, n_out: int) -> list[float]:
    """The densities ``fan_out / n_out`` that a clash-free pattern can have, rising.

    ``fan_out`` divides ``n_out``, and the fan-in is whole.

    >>> legal_densities(12, 8)
    [0.25, 0.5, 1.0]
    """
    return grouped_densities(n_in, n_out)


def clash_free(
    n_in: int,
    n_out: int,
    *,
    density: float | None = None,
    fan_out: int | None = None,
    z: int | None = None,
    kind: Kind = 1,
    dither: bool = False,
    seed: int = 0,
) -> Pattern:
    """A pattern that ``z`` memories serve without a clash; give ``density`` or ``fan_out``.

    ``z``, the degree of parallelism, divides ``n_in``; by default it is the fan-in: one output a
    cycle. Raises `PatternError`, naming the nearest legal values, if ``z`` or the density is
    impossible.

    >>> pattern = clash_free(12, 12, fan_out=2, z=4, kind=2, dither=True, seed=1)
    >>> pattern.fan_in, set(pattern.fan_out.tolist()), is_clash_free(pattern, 4)
    (2, {2}, True)
    >>> clash_free(12, 4, fan_out=3, z=4)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 12 -> 4 has no clash-free pattern of density 0.75: \
legal are fan_out / 4 with fan_out dividing 4 and fan_in whole; nearest: 0.5, 1
    """
    out_degree, fan_in = _degrees(n_in, n_out, density, fan_out)
    z = fan_in if z is None else z
    check_divides(z, n_in, what="z must divide n_in")
    if kind not in (1, 2, 3):
        raise PatternError(f"kind must be 1, 2 or 3, got {kind}")
    rng, depth = np.random.default_rng(seed), n_in // z
    sweeps = 1 if kind == 3 else out_degree
    if kind == 1:
        addresses = np.argsort(rng.random((sweeps, depth, z)), axis=1)
    else:
        addresses = (rng.integers(depth, size=(sweeps, 1, z)) + np.arange(depth)[:, None]) % depth
    memories = np.tile(np.arange(z), (sweeps, 1, 1))
    if dither:
        memories = rng.permuted(memories, axis=2)
    index = (addresses * z + memories).astype(np.int32).reshape(-1, fan_in)
    if kind == 3 and out_degree > 1:
        order = np.arange(n_out, dtype=np.int32).reshape(out_degree, -1).T.reshape(-1)
        return Pattern(n_in=n_in, tile=out_degree, index=index, out_order=order)
    return Pattern(n_in=n_in, tile=1, index=index)


def is_clash_free(pattern: Pattern, z: int) -> bool:
    """True if every cycle of ``z`` edges reads each of ``z`` memories once.

    The edges are taken output after output, and each row as it stands.

    >>> is_clash_free(Pattern(4, 1, np.array([[0, 1], [3, 2]])), 2)
    True
    >>> is_clash_free(Pattern(2, 1, np.array([[1, 0]])), 2)
    True
    >>> is_clash_free(Pattern(4, 1, np.array([[0, 2], [1, 3]])), 2)
    False
    """
    if z < 1 or pattern.n_in % z or not pattern.is_regular or pattern.connections % z:
        return False
    memories = np.sort((_edges(pattern) % z).reshape(-1, z), axis=1)
    return bool((memories == np.arange(z)).all())


def count_patterns(
    n_in: int, n_out: int, *, fan_out: int, z: int, kind: Kind, dither: bool = False
) -> int:
    """How many orders of reading the memories a kind has.

    Where the fan-in is at most ``z``, it has as many patterns.

    With a larger fan-in an output reads whole cycles, in which the order makes no other pattern:
    there are fewer then. Raises `PatternError` for what `clash_free` refuses, and for dither where
    neither of ``z`` and fan-in divides the other: there no formula is known.

    >>> [count_patterns(12, 12, fan_out=2, z=4, kind=kind, dither=True) for kind in (1, 2, 3)]
    [60466176, 236196, 486]
    """
    out_degree, fan_in = _degrees(n_in, n_out, None, fan_out)
    check_divides(z, n_in, what="z must divide n_in")
    depth = n_in // z
    if not dither or fan_in % z == 0:
        orders = 1
    elif z % fan_in == 0:
        orders = math.factorial(z) // math.factorial(fan_in) ** (z // fan_in)
    else:
        raise PatternError(
            f"with dither, z = {z} and fan_in = {fan_in} must divide one the other: else none is "
            "known"
        )
    sweep = orders * (math.factorial(depth) if kind == 1 else depth) ** z
    return sweep if kind == 3 else sweep**out_degree


def _degrees(n_in: int, n_out: int, density: float | None, fan_out: int | None) -> tuple[int, int]:
    """Legal (fan_out, fan_in), or `PatternError` naming the nearest densities."""
    check_sizes(n_in, n_out)
    if (density is None) == (fan_out is None):
        raise PatternError("give either density or fan_out")
    wanted = density if density is not None else (fan_out or 0) / n_out
    rule = f"fan_out / {n_out} with fan_out dividing {n_out} and fan_in whole"
    legal = legal_density(
        n_in, n_out, wanted, legal_densities(n_in, n_out), family="clash-free", rule=rule
    )
    return round(n_out * legal), round(n_in * legal)


def _edges(pattern: Pattern) -> Ints:
    """The inputs of all edges, output after output."""
    rows = np.repeat(pattern.index, pattern.tile, axis=0)
    if pattern.out_order is not None:
        rows = rows[np.argsort(pattern.out_order)]
    return rows.reshape(-1)
