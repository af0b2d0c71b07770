"""Tiled patterns: neighbouring outputs share one fan-in set.

The sets of different tiles overlap at random.

Source: constant fan-in (arXiv 2305.02299), one set for several outputs; degrees as in arXiv
1812.01164, with a tile in the place of an output. Every tile reads equally many inputs, every input
feeds equally many tiles. Runs as one gather of whole features and one batched matmul; tiles of 16
to 128 outputs pay for the gather, 64 or more are best.
"""

from __future__ import annotations

import math

from presplit.core.types import Pattern
from presplit.patterns.biregular import biregular
from presplit.patterns.biregular import legal_densities as biregular_densities
from presplit.patterns.densities import check_divides, check_sizes, divisors, legal_density

FAST_TILE = 16
"""From this many outputs a tile on, a shared fan-in set runs faster than dense."""
LARGEST_TILE = 64
"""The largest tile that is chosen when none is asked for."""


def legal_densities(n_in: int, n_out: int, *, tile: int = 1) -> list[float]:
    """The densities ``k / gcd(n_in, n_out / tile)``, rising.

    Without a tile, they are all for which some tile is found.

    >>> legal_densities(64, 64, tile=16)
    [0.25, 0.5, 0.75, 1.0]
    """
    check_divides(tile, n_out, what="tile must divide n_out")
    return biregular_densities(n_in, n_out // tile)


def tiled(
    n_in: int, n_out: int, *, density: float, tile: int | None = None, seed: int = 0
) -> Pattern:
    """A biregular pattern between inputs and tiles of ``tile`` neighbouring outputs.

    A tile of 16..128 makes it fast.

    Without ``tile``: the largest of 16..64 with which every input feeds at least two tiles; if
    there is none, the largest up to 64 that has this density, though it may be too small to be fast
    or its sets may not overlap. Raises `PatternError`, naming the nearest legal values, if the tile
    or the density is impossible.

    >>> pattern = tiled(1024, 1024, density=0.25)
    >>> pattern.tile, pattern.index.shape, set(pattern.fan_out.tolist())
    (64, (16, 256), {256})
    >>> tiled(64, 64, density=0.1, tile=16)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 64 -> 64 has no tiled pattern of density 0.1: \
legal are k / 4 with tiles of 16; nearest: 0.25
    """
    check_sizes(n_in, n_out)
    legal = legal_densities(n_in, n_out, tile=1 if tile is None else tile)
    rule = f"k / {len(legal)}" + (f" with tiles of {tile}" if tile else "")
    exact = legal_density(n_in, n_out, density, legal, family="tiled", rule=rule)
    tile = tile or largest_tile(n_in, n_out, density=exact)
    return Pattern(n_in, tile, biregular(n_in, n_out // tile, density=exact, seed=seed).index)


def largest_tile(n_in: int, n_out: int, *, density: float) -> int:
    """The tile that `tiled` takes when none is asked for; ``density`` is legal.

    >>> largest_tile(1024, 1024, density=1 / 8), largest_tile(256, 256, density=1 / 8)
    (64, 16)
    """
    common = math.gcd(n_in, n_out)
    steps = round(density * common)  # density = steps / common
    tiles = [
        tile
        for tile in divisors(n_out)
        if tile <= LARGEST_TILE and steps * math.gcd(n_in, n_out // tile) % common == 0
    ]
    fast = [tile for tile in tiles if tile >= FAST_TILE and round(n_out // tile * density) >= 2]
    return (fast or tiles)[-1]
