"""Block patterns: blocks of adjacent inputs x adjacent outputs.

They are placed so that every row and column has equally many blocks.

Source: block sparsity as in Gray, Radford, Kingma, "GPU Kernels for Block-Sparse Weights" (2017)
and arXiv 1711.02782, with the random regular placement of arXiv 1812.01164 between blocks. Blocks 1
input wide and 16 or more outputs high are `tiled`; blocks of 8 inputs x 1 output are runs of
neighbouring inputs, which suit images. Sensible: 8..32 inputs, 16..64 outputs.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from presplit.core.types import Ints, Pattern
from presplit.patterns.biregular import biregular
from presplit.patterns.biregular import legal_densities as biregular_densities
from presplit.patterns.densities import check_divides, check_sizes, divisors, legal_density

LARGEST_SIDE = 16
"""The largest side of the block that is chosen when none is asked for."""


def legal_densities(n_in: int, n_out: int, *, block: tuple[int, int] = (1, 1)) -> list[float]:
    """The densities ``k / gcd(n_in / inputs, n_out / outputs)``, rising.

    Without a block, they are all for which one is found.

    >>> legal_densities(64, 32, block=(8, 16))
    [0.5, 1.0]
    """
    inputs, outputs = block
    check_divides(inputs, n_in, what="the inputs of a block must divide n_in")
    check_divides(outputs, n_out, what="the outputs of a block must divide n_out")
    return biregular_densities(n_in // inputs, n_out // outputs)


def block(
    n_in: int, n_out: int, *, density: float, block: tuple[int, int] | None = None, seed: int = 0
) -> Pattern:
    """Blocks of ``block = (inputs, outputs)`` adjacent features.

    Each row and each column of blocks has equally many.

    Without ``block``: the largest by area with sides up to 16 that has this density, the one with
    more outputs if two are alike. Raises `PatternError`, naming the nearest legal values, if the
    block or the density is impossible.

    >>> pattern = block(64, 64, density=0.5, block=(8, 16), seed=1)
    >>> pattern.tile, pattern.index[0, :9].tolist(), set(pattern.fan_out.tolist())
    (16, [16, 17, 18, 19, 20, 21, 22, 23, 24], {32})
    >>> block(64, 64, density=0.4, block=(8, 16))
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 64 -> 64 has no block pattern of density 0.4: \
legal are k / 4 with blocks of 8 x 16; nearest: 0.25, 0.5
    """
    check_sizes(n_in, n_out)
    legal = legal_densities(n_in, n_out, block=block or (1, 1))
    rule = f"k / {len(legal)}" + (f" with blocks of {block[0]} x {block[1]}" if block else "")
    exact = legal_density(n_in, n_out, density, legal, family="block", rule=rule)
    inputs, outputs = block or largest_block(n_in, n_out, density=exact)
    rows = biregular(n_in // inputs, n_out // outputs, density=exact, seed=seed).index
    return Pattern(n_in, outputs, adjacent(rows, inputs))


def adjacent(index: Ints, width: int) -> Ints:
    """Every entry of ``index`` replaced by the ``width`` adjacent features it stands for.

    ``index`` is ``(rows, k)``.

    >>> adjacent(np.array([[0, 2]], np.int32), 3).tolist()
    [[0, 1, 2, 6, 7, 8]]
    """
    return (index[:, :, None] * width + np.arange(width, dtype=np.int32)).reshape(len(index), -1)


def largest_block(n_in: int, n_out: int, *, density: float) -> tuple[int, int]:
    """The block (inputs, outputs) that `block` takes when none is asked for; ``density`` is legal.

    >>> largest_block(64, 64, density=0.5)
    (16, 16)
    """
    common = math.gcd(n_in, n_out)
    steps = round(density * common)  # density = steps / common
    sides = ([side for side in divisors(n) if side <= LARGEST_SIDE] for n in (n_in, n_out))
    fitting = [
        (inputs, outputs)
        for inputs, outputs in itertools.product(*sides)
        if steps * math.gcd(n_in // inputs, n_out // outputs) % common == 0
    ]
    return max(fitting, key=lambda sides: (sides[0] * sides[1], sides[1]))
