"""Chosen connections: those of a family that keep the most of a trained dense layer.

``scores`` say what each connection is worth: float ``(n_out, n_in)``, at least 0, for example the
squared weights (summed over a convolution's kernel) times the mean square of the inputs (Wanda,
arXiv 2306.11695, squared), or SNIP's ``|weight * gradient|`` (arXiv 1810.02340). A function here
takes them where its family takes sizes, and gives a pattern with the degrees of the family's own
draw: storage and kernels stay the same, only the places are chosen. After that the pattern is as
fixed as any.

`expander`, `n_of_m`, `bernoulli` and `kernels` keep the most that is possible. `biregular` and
`block` must serve every input equally often: an input that too many want becomes dearer, as in an
auction, which comes near the best. `tiled` and `grouped` also choose which outputs stand together,
by turns with what they read, each turn a balanced assignment; that climbs to a local best, and the
best of a few random starts is kept. Their outputs then stand in another order
(`Pattern.out_order`), which costs one gather; to order the channels of a whole net once, so that it
costs nothing, is the work of `presplit.train.sparsify`. Of equal scores the first input wins.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from presplit.core.errors import PatternError, library
from presplit.core.types import Ints, Pattern
from presplit.patterns.bernoulli import bernoulli as drawn_bernoulli
from presplit.patterns.biregular import biregular as drawn_biregular
from presplit.patterns.block import adjacent, largest_block
from presplit.patterns.block import block as drawn_block
from presplit.patterns.degrees import Reals
from presplit.patterns.expander import expander as drawn_expander
from presplit.patterns.grouped import grouped as drawn_grouped
from presplit.patterns.n_of_m import n_of_m as drawn_n_of_m
from presplit.patterns.periodic_kernel import KernelSupports
from presplit.patterns.tiled import tiled as drawn_tiled

STARTS, SWEEPS = 4, 20
PRICES = 200
"""Rounds of the auction; its steps shrink as one over the round."""


class Chooser(Protocol):
    """A family of which connections are chosen by ``scores``, float ``(n_out, n_in)``."""

    def __call__(self, scores: npt.ArrayLike, *, density: float, seed: int = 0) -> Pattern:
        """A pattern of exactly this density that keeps much of ``scores``; same seed, same pattern.

        Raises `PatternError` for scores that are none, and for a density the family has not.
        """
        ...


def expander(scores: npt.ArrayLike, *, density: float, seed: int = 0) -> Pattern:
    """Every output reads its ``density * n_in`` best inputs: the most that equal fan-in can keep.

    >>> expander([[3, 1, 2], [0, 5, 4]], density=2 / 3).index.tolist()
    [[0, 2], [1, 2]]
    """
    worth = _checked(scores)
    fan_in = drawn_expander(worth.shape[1], worth.shape[0], density=density, seed=seed).fan_in
    return Pattern(worth.shape[1], 1, _best(worth, fan_in))


def bernoulli(scores: npt.ArrayLike, *, density: float, seed: int = 0) -> Pattern:
    """The best connections of the whole layer; outputs read as many inputs as come to them.

    An output may come to none. No pattern of this density keeps more.

    >>> bernoulli([[9, 1, 8], [0, 7, 0]], density=0.5).index.tolist()
    [[0, 2], [1, -1]]
    """
    worth = _checked(scores)
    n_out, n_in = worth.shape
    connections = drawn_bernoulli(n_in, n_out, density=density, seed=seed).connections
    kept = np.zeros(worth.size, dtype=bool)
    kept[np.argsort(-worth, axis=None, kind="stable")[:connections]] = True
    rows = [np.flatnonzero(row) for row in kept.reshape(worth.shape)]
    index = np.full((n_out, max(len(row) for row in rows)), -1, dtype=np.int32)
    for place, row in zip(index, rows, strict=True):
        place[: len(row)] = row
    return Pattern(n_in, 1, index)


def n_of_m(
    scores: npt.ArrayLike, *, density: float, m: int | None = None, seed: int = 0
) -> Pattern:
    """Every output reads the best N of every ``m`` consecutive inputs, as magnitude pruning does.

    ``m`` as for the family; how often an input is read is free.

    >>> n_of_m([[3, 1, 2, 0], [0, 5, 4, 4]], density=0.5, m=2).index.tolist()
    [[0, 2], [1, 2]]
    """
    worth = _checked(scores)
    n_out, n_in = worth.shape
    fan_in = drawn_n_of_m(n_in, n_out, density=density, m=m, seed=seed).fan_in
    run = m or n_in // math.gcd(n_in, fan_in)
    runs = n_in // run
    within = _best(worth.reshape(n_out * runs, run), fan_in // runs).reshape(n_out, runs, -1)
    index = within + run * np.arange(runs, dtype=np.int32)[:, None]
    return Pattern(n_in, 1, index.reshape(n_out, fan_in))


def biregular(scores: npt.ArrayLike, *, density: float, seed: int = 0) -> Pattern:
    """Every output reads equally many inputs and every input feeds equally many outputs.

    >>> biregular([[3, 2], [9, 4]], density=0.5).index.tolist()
    [[1], [0]]
    """
    worth = _checked(scores)
    drawn = drawn_biregular(worth.shape[1], worth.shape[0], density=density, seed=seed)
    return Pattern(drawn.n_in, 1, _regular(worth, drawn.fan_in))


def block(
    scores: npt.ArrayLike, *, density: float, block: tuple[int, int] | None = None, seed: int = 0
) -> Pattern:
    """Blocks ``(inputs, outputs)`` of adjacent features, as many in each row and column of blocks.

    >>> scores = np.kron([[3, 1], [1, 3]], np.ones((4, 2)))
    >>> block(scores, density=0.5, block=(2, 4)).index.tolist()
    [[0, 1], [2, 3]]
    """
    worth = _checked(scores)
    n_out, n_in = worth.shape
    drawn = drawn_block(n_in, n_out, density=density, block=block, seed=seed)
    inputs, outputs = block or largest_block(n_in, n_out, density=drawn.density)
    blocks = worth.reshape(n_out // outputs, outputs, n_in // inputs, inputs).sum(axis=(1, 3))
    return Pattern(n_in, outputs, adjacent(_regular(blocks, drawn.fan_in // inputs), inputs))


def tiled(
    scores: npt.ArrayLike, *, density: float, tile: int | None = None, seed: int = 0
) -> Pattern:
    """Tiles of outputs that want the same inputs; every input feeds equally many tiles.

    ``tile`` as for the family.

    >>> pattern = tiled([[9, 8, 0, 1], [0, 1, 9, 9], [7, 7, 1, 0], [1, 0, 8, 9]], density=0.5,
    ...                 tile=2)
    >>> pattern.index.tolist(), pattern.out_order.tolist()
    ([[0, 1], [2, 3]], [0, 2, 1, 3])
    """
    worth = _checked(scores)
    drawn = drawn_tiled(worth.shape[1], worth.shape[0], density=density, tile=tile, seed=seed)
    return _by_turns(worth, drawn, seed)


def grouped(scores: npt.ArrayLike, *, density: float, seed: int = 0) -> Pattern:
    """``1 / density`` groups of inputs and outputs in any order, for one layer by itself.

    >>> pattern = grouped([[9, 0, 8, 1], [0, 9, 1, 9], [7, 1, 7, 0], [1, 8, 0, 9]], density=0.5)
    >>> pattern.index.tolist(), pattern.out_order.tolist(), pattern.is_partition
    ([[0, 2], [1, 3]], [0, 2, 1, 3], True)
    """
    worth = _checked(scores)
    drawn = drawn_grouped(worth.shape[1], worth.shape[0], density=density, seed=seed)
    return _by_turns(worth, drawn, seed)


def kernels(
    scores: npt.ArrayLike, pattern: Pattern, *, support: int, period: int = 4
) -> KernelSupports:
    """The ``support`` best entries for each position of the ``period``, of all kernels in it.

    ``scores``: float ``(n_out, n_in, *kernel)``; only those of ``pattern``'s connections count.
    Entries that no position wants are left out. The most that such supports can keep.

    >>> scores = np.zeros((2, 1, 1, 3))
    >>> scores[0, 0, 0, 2] = scores[1, 0, 0, 1] = 1
    >>> kernels(scores, Pattern(1, 2, np.array([[0]])), support=1, period=2).index.tolist()
    [[2], [1]]
    """
    worth = np.asarray(scores, dtype=np.float64)
    if worth.ndim not in (3, 4) or worth.shape[:2] != (pattern.n_out, pattern.n_in):
        raise PatternError(
            f"scores of kernels must be ({pattern.n_out}, {pattern.n_in}, *kernel), as the "
            f"pattern, got {worth.shape}"
        )
    kernel = worth.shape[2:]
    area = math.prod(kernel)
    worth = _checked(worth.reshape(-1, area))
    if not 1 <= support <= area or period < 1:
        raise PatternError(
            f"support must be in 1..{area} and period at least 1, got {support} and {period}"
        )
    shape = KernelSupports(kernel, np.zeros((period, 1), dtype=np.int32))
    number = shape.number(pattern).reshape(-1)
    wanted = np.stack([worth[number == position].sum(axis=0) for position in range(period)])
    return KernelSupports(kernel, _best(wanted, support))


def _checked(scores: npt.ArrayLike) -> Reals:
    """Scores as float64 whose sum is 1; what is 0 stays 0."""
    worth = np.asarray(scores, dtype=np.float64)
    if worth.ndim != 2 or 0 in worth.shape:
        raise PatternError(f"scores must be (n_out, n_in), one or more of each, got {worth.shape}")
    wrong = ~np.isfinite(worth) | (worth < 0)
    if wrong.any():
        raise PatternError(
            f"scores must be finite and at least 0, got {worth[wrong][0]:.6g} at output and input "
            f"{np.argwhere(wrong)[0].tolist()}"
        )
    if not worth.any():
        raise PatternError(
            "scores are all 0, nothing can be chosen by them: take those of a trained layer"
        )
    worth = worth / worth.max()
    return worth / worth.sum()


def _best(scores: Reals, count: int) -> Ints:
    """int32 ``(rows, count)``, rising: the columns of each row's highest scores."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.sort(order, axis=1).astype(np.int32)


def _total(scores: Reals, index: Ints) -> float:
    return float(np.take_along_axis(scores, index, axis=1).sum())


def _regular(scores: Reals, fan_in: int) -> Ints:
    """int32 ``(rows, fan_in)``: every column in equally many rows, and much of ``scores`` kept.

    ``rows * fan_in`` is a multiple of the columns.
    """
    rows, columns = scores.shape
    fan_out = rows * fan_in // columns
    if fan_out == rows:
        return np.tile(np.arange(columns, dtype=np.int32), (rows, 1))
    if fan_out == 1:
        return _partition(scores)
    prices, best = np.zeros(columns), np.empty((rows, 0), dtype=np.int32)
    step = float(scores.max()) / fan_out
    for turn in range(1, PRICES + 1):
        best_now = np.argpartition(prices - scores, fan_in - 1, axis=1)[:, :fan_in]
        wanted = np.bincount(best_now.reshape(-1), minlength=columns)
        if (wanted == fan_out).all():
            break
        prices += step / turn * (wanted - fan_out)
        if turn % (PRICES // 4) == 0:
            best = _better(scores, best, _filled(scores, prices, fan_in, fan_out))
    return _better(scores, best, _filled(scores, prices, fan_in, fan_out))


def _better(scores: Reals, one: Ints, other: Ints) -> Ints:
    """Of two choices the one that keeps more; the first may be of nothing."""
    return other if _total(scores, other) > _total(scores, one) else one


def _filled(scores: Reals, prices: Reals, fan_in: int, fan_out: int) -> Ints:
    """Rows of exactly these degrees: the best connections after prices first, then exchanges."""
    kept = np.zeros(scores.shape, dtype=bool)
    row_lacks, column_lacks = [fan_in] * len(scores), [fan_out] * len(prices)
    order = np.argsort(-(scores - prices), axis=None, kind="stable").tolist()
    for place in order:  # lists, for this is a long loop
        row, column = divmod(place, len(prices))
        if row_lacks[row] and column_lacks[column]:
            kept[row, column] = True
            row_lacks[row] -= 1
            column_lacks[column] -= 1
    for row, lacking in enumerate(row_lacks):
        for _ in range(lacking):
            _exchange(kept, scores, row, int(np.argmax(kept.sum(axis=0) < fan_out)))
    return np.nonzero(kept)[1].reshape(len(scores), fan_in).astype(np.int32)


def _exchange(kept: npt.NDArray[np.bool_], scores: Reals, row: int, column: int) -> None:
    """Give ``row`` one connection more, and ``column`` too, though the two are joined already.

    Another row gives one of its columns to ``row`` and takes ``column`` for it. There is one: a
    full row without ``column`` reads more columns than the others of ``row``.
    """
    gives = kept & ~kept[row] & ~kept[:, [column]]
    gain = np.where(gives, scores[row] + scores[:, [column]] - scores, -np.inf)
    other, given = np.unravel_index(np.argmax(gain), gain.shape)
    kept[other, given] = False
    kept[other, column] = kept[row, given] = True


def _partition(scores: Reals) -> Ints:
    """int32 ``(rows, columns / rows)``: every column given to one row, as many to each."""
    rows, columns = scores.shape
    each = columns // rows
    places = _assigned(scores.T.repeat(each, axis=1))
    return np.argsort(places, kind="stable").reshape(rows, each).astype(np.int32)


def _assigned(gain: Reals) -> Ints:
    """int32 ``(n,)``: a place of its own for each row, so that ``gain`` ``(n, n)`` is most."""
    optimize: Any = library("scipy.optimize", need="choosing connections", extra="train")
    return optimize.linear_sum_assignment(gain, maximize=True)[1].astype(np.int32)


def _by_turns(scores: Reals, drawn: Pattern, seed: int) -> Pattern:
    """Outputs to the tiles of ``drawn`` and inputs to tiles, by turns, from a few starts.

    The first start has neighbours in tiles.
    """
    if drawn.tile == 1:  # who stands with whom makes no difference
        return Pattern(drawn.n_in, 1, _regular(scores, drawn.fan_in))
    tiles, random = len(drawn.index), np.random.default_rng(seed)
    best = np.array([], dtype=np.int32), np.array([[]], dtype=np.int32), -1.0
    for start in range(STARTS):
        order = np.arange(drawn.n_out, dtype=np.int32)
        if start:
            order = random.permutation(order)
        found = _climbed(scores, order.reshape(tiles, drawn.tile), drawn.fan_in)
        if found[2] > best[2] * (1 + 1e-9):
            best = found
    members, index, _ = best
    members = np.sort(members, axis=1)
    first = np.argsort(members[:, 0])
    return Pattern(
        drawn.n_in, drawn.tile, np.sort(index[first], axis=1), _order(members[first].reshape(-1))
    )


def _order(order: Ints) -> Ints | None:
    """The order, or None if it changes nothing."""
    return None if np.array_equal(order, np.arange(len(order))) else order


def _climbed(scores: Reals, members: Ints, fan_in: int) -> tuple[Ints, Ints, float]:
    """Outputs ``(tiles, tile)``, inputs ``(tiles, fan_in)`` that no turn betters, and the sum."""
    tiles, tile = members.shape
    index, kept = np.empty((tiles, 0), dtype=np.int32), -1.0
    for _ in range(SWEEPS):
        read = _regular(scores[members].sum(axis=1), fan_in)
        gain = scores[:, read].sum(axis=2)  # (n_out, tiles)
        places = _assigned(gain.repeat(tile, axis=1))
        placed = np.argsort(places, kind="stable").reshape(tiles, tile).astype(np.int32)
        found = float(np.take_along_axis(gain, placed.T, axis=0).sum())
        if found <= kept * (1 + 1e-9):
            break
        members, index, kept = placed, read, found
    return members, index, kept
