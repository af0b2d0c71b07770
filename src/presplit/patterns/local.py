"""Local patterns: receptive fields over the layout of the input.

Their centre, direction and stretch are random.

Source: local receptive fields (LeCun 1989) with the recipe that was measured for this project: a
centre drawn with probability proportional to a weight map, such as the variance of each input over
the training inputs, less where fields lie already; a random direction and a stretch of 0.6..1.6;
the ``fan_in`` live inputs nearest in the stretched metric plus exponential jitter. Fan-in is equal;
fan-out is larger where the weight is. Outputs of one ``tile`` share a field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from presplit.core.errors import PatternError
from presplit.core.protocols import Family
from presplit.core.types import Pattern
from presplit.patterns.degrees import Reals
from presplit.patterns.densities import check_divides, check_sizes, legal_density

STRETCH = (0.6, 1.6)
"""The range of the stretch along the field's direction; it is divided by as much across."""

Layout = tuple[int] | tuple[int, int] | tuple[int, int, int]
"""How the inputs lie, as they are flattened.

It is (length,), (height, width) or (channels, height, width).
"""


def local(
    layout: Layout,
    n_out: int,
    *,
    fan_in: int,
    n_in: int | None = None,
    tile: int = 1,
    weights: npt.ArrayLike | None = None,
    jitter: float = 1.0,
    seed: int = 0,
) -> Pattern:
    """``n_out / tile`` receptive fields of ``fan_in`` inputs each.

    ``weights``: one for each input of ``layout``, at least 0; a dead input, of weight 0, is never
    read. Without them all inputs are alike. ``jitter``: mean of the exponential that is added to
    distances, in steps between neighbours; 0 gives smooth fields, 1 is usual, above 3 little
    locality is left. ``n_in`` may exceed the layout: the rest is padding that nobody reads.
    Sensible tiles are 1, and 16..40 for speed. All channels of a place are equally near. Raises
    `PatternError` if fewer than ``fan_in`` inputs are alive.

    >>> local((10,), 3, fan_in=4, jitter=0.0, seed=1).index.tolist()
    [[3, 4, 5, 6], [6, 7, 8, 9], [1, 2, 3, 4]]
    """
    n_in = math.prod(layout) if n_in is None else n_in
    check_sizes(n_in, n_out)
    check_divides(tile, n_out, what="tile must divide n_out")
    weight = _weights(layout, n_in, weights)
    live = np.flatnonzero(weight)
    if not 1 <= fan_in <= live.size:
        raise PatternError(
            f"fan_in must be in 1..{live.size}, the inputs that are alive, got {fan_in}"
        )
    if not 0 <= jitter < math.inf:
        raise PatternError(f"jitter must be at least 0 and finite, got {jitter}")
    rng, places = np.random.default_rng(seed), _places(layout)[live]
    chance, reads = weight[live] / weight[live].sum(), np.zeros(live.size)
    index = np.empty((n_out // tile, fan_in), dtype=np.int32)
    for row in range(len(index)):
        wanted = chance / (1 + reads)
        centre = rng.choice(live.size, p=wanted / wanted.sum())
        distance = _stretched(places - places[centre], rng) + jitter * rng.exponential(
            size=live.size
        )
        field = np.sort(np.argsort(distance, kind="stable")[:fan_in])
        index[row] = live[field]
        reads[field] += 1
    return Pattern(n_in=n_in, tile=tile, index=index)


def over(
    layout: Layout, *, tile: int = 1, weights: npt.ArrayLike | None = None, jitter: float = 1.0
) -> Family:
    """The family of `local` patterns over this layout, for the first layer of a net.

    The density is ``fan_in / n_in``.

    >>> family = over(layout=(28, 28), tile=20)
    >>> pattern = family(784, 100, density=1 / 28, seed=3)
    >>> pattern.index.shape, pattern.tile
    ((5, 28), 20)
    """

    def family(n_in: int, n_out: int, *, density: float, seed: int = 0) -> Pattern:
        check_sizes(n_in, n_out)
        alive = int(np.count_nonzero(_weights(layout, n_in, weights)))
        legal, rule = (
            [k / n_in for k in range(1, alive + 1)],
            f"fan_in / {n_in} with fan_in in 1..{alive}",
        )
        fan_in = round(n_in * legal_density(n_in, n_out, density, legal, family="local", rule=rule))
        return local(
            layout,
            n_out,
            fan_in=fan_in,
            n_in=n_in,
            tile=tile,
            weights=weights,
            jitter=jitter,
            seed=seed,
        )

    family.__name__ = "local"
    return family


def _weights(layout: Sequence[int], n_in: int, weights: npt.ArrayLike | None) -> Reals:
    """float64 ``(inputs of the layout,)``, checked."""
    size = math.prod(layout)
    if not 1 <= len(layout) <= 3 or min(layout) < 1 or size > n_in:
        raise PatternError(
            f"a layout is 1 to 3 sizes whose product is at most n_in = {n_in}, got {tuple(layout)}"
        )
    weight = np.ones(size) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
    if weight.size != size or not np.isfinite(weight).all() or weight.min() < 0 or not weight.any():
        raise PatternError(
            f"weights must be {size} finite numbers >= 0, not all 0, got {weight.size}"
        )
    return weight


def _places(layout: Sequence[int]) -> Reals:
    """float64 ``(inputs, 2)``: row and column of each input.

    Channels of a place lie on each other.
    """
    rows, columns = (1, *layout)[-2:]
    grid = np.stack(
        np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    return np.tile(grid.astype(np.float64), (math.prod(layout) // len(grid), 1))


def _stretched(offsets: Reals, rng: np.random.Generator) -> Reals:
    """Distances in a metric stretched along a random direction."""
    angle, stretch = rng.uniform(0, math.pi), rng.uniform(*STRETCH)
    along = offsets @ (math.cos(angle), math.sin(angle)) / stretch
    across = offsets @ (-math.sin(angle), math.cos(angle)) * stretch
    return np.hypot(along, across)
