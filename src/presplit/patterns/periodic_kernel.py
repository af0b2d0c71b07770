"""Periodic kernels: every kernel of a convolution keeps a few entries.

Few supports repeat with a short period.

Source: Kundu et al., "Pre-defined Sparsity for Low-Complexity Convolutional Neural Networks", arXiv
2001.10710, IEEE TC 69(7) 2020. The kernel that joins the ``k``-th of its inputs to output ``o`` has
support number ``(o + k) mod period``: supports repeat within a filter and are shifted from filter
to filter. A layer stores only the supports. Differs from the source in that entries are used
equally often over a period (to within one). It goes along with any `Pattern` between channels:
inputs are numbered within an output's fan-in set, so that every filter that reads ``period`` of
them or more has all supports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core.errors import PatternError
from presplit.core.types import Ints, Pattern
from presplit.patterns.degrees import rows_of_degrees, whole_shares


@dataclass(frozen=True, eq=False)
class KernelSupports:
    """Which entries the kernels of a convolution keep.

    ``index``: int32 ``(period, support)``, entries ``row * width + column`` of a ``kernel`` of
    ``(height, width)``, or places in a kernel of ``(length,)``, rising; a row with fewer entries
    than others ends in -1. Raises `PatternError` for anything else.

    >>> supports = KernelSupports((2, 2), np.array([[0, 3], [1, 2]]))
    >>> supports.period, supports.support, supports.density
    (2, 2, 0.5)
    >>> supports.mask(Pattern(2, 1, np.array([[0, 1]]))).astype(int).tolist()
    [[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]]
    """

    kernel: tuple[int, ...]
    index: Ints

    def __post_init__(self) -> None:
        _check_kernel(self.kernel)
        index, area = np.ascontiguousarray(self.index, dtype=np.int32), math.prod(self.kernel)
        if index.ndim != 2 or 0 in index.shape:
            raise PatternError(f"supports need an index of rows and entries, got {index.shape}")
        if index.min() < -1 or index.max() >= area:
            raise PatternError(
                f"entries must be in 0..{area - 1}, got {index.min()}..{index.max()}"
            )
        rising = (index[:, 1:] > index[:, :-1]) | (index[:, 1:] == -1)
        if (
            not rising.all()
            or (index[:, 0] < 0).any()
            or ((index[:, :-1] < 0) & (index[:, 1:] >= 0)).any()
        ):
            raise PatternError(
                "the entries of a support must rise; there is at least one, and -1 may only end a "
                "row"
            )
        index.flags.writeable = False
        object.__setattr__(self, "index", index)

    @property
    def period(self) -> int:
        """How many supports there are before they repeat."""
        return self.index.shape[0]

    @property
    def support(self) -> int:
        """Entries that a kernel keeps; the most, if they differ."""
        return self.index.shape[1]

    @property
    def density(self) -> float:
        """Entries kept, as a share of all, over one period."""
        return int((self.index >= 0).sum()) / (self.period * math.prod(self.kernel))

    def number(self, pattern: Pattern) -> Ints:
        """int32 ``(n_out, n_in)``: which support the kernel of each connection has.

        It is -1 where there is none.
        """
        number = np.full((pattern.n_out, pattern.n_in), -1, dtype=np.int32)
        outputs = np.arange(pattern.n_out) if pattern.out_order is None else pattern.out_order
        for output, inputs in zip(outputs, pattern.index.repeat(pattern.tile, axis=0), strict=True):
            taken = inputs[inputs >= 0]
            number[output, taken] = (output + np.arange(len(taken))) % self.period
        return number

    def mask(self, pattern: Pattern) -> npt.NDArray[np.bool_]:
        """bool ``(n_out, n_in, *kernel)``: True where a weight exists."""
        kept = np.zeros(
            (self.period + 1, math.prod(self.kernel)), dtype=bool
        )  # the last row is for no connection
        rows, columns = np.nonzero(self.index >= 0)
        kept[rows, self.index[rows, columns]] = True
        return kept[self.number(pattern)].reshape(pattern.n_out, pattern.n_in, *self.kernel)


def periodic_kernel(
    kernel: tuple[int, ...] = (3, 3),
    *,
    support: int = 4,
    period: int = 9,
    dense: int = 0,
    seed: int = 0,
) -> KernelSupports:
    """``period`` random supports of ``support`` entries each.

    Of these, ``dense`` keep all entries (the source's boosting).

    ``kernel``: ``(height, width)``, or ``(length,)`` for a convolution over time. For 3 x 3 the
    source uses 4, 2 or 1 of 9. A ``period`` of 4..9 is short and still uses every
    entry; raises `PatternError` for values out of range, and if entries would be left out: ``period
    * support < area`` without a dense kernel.

    >>> supports = periodic_kernel((3, 3), support=4, period=9)
    >>> supports.index.shape, np.bincount(supports.index.reshape(-1)).tolist()
    ((9, 4), [4, 4, 4, 4, 4, 4, 4, 4, 4])
    >>> periodic_kernel((3, 3), support=1, period=4)
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: 4 supports of 1 leave entries of a 3 x 3 kernel out: \
period must be at least 9
    """
    _check_kernel(kernel)
    area, size = math.prod(kernel), " x ".join(map(str, kernel))
    if not 1 <= support <= area:
        raise PatternError(f"support must be in 1..{area} for a kernel of {size}, got {support}")
    if period < 1 or not 0 <= dense <= period:
        raise PatternError(
            f"period must be at least 1 and dense in 0..period, got {period} and {dense}"
        )
    sparse = period - dense
    if dense == 0 and period * support < area:
        raise PatternError(
            f"{period} supports of {support} leave entries of a {size} kernel out: period must be "
            f"at least {-(-area // support)}"
        )
    index = np.full((period, area if dense else support), -1, dtype=np.int32)
    if dense:
        index[:dense] = np.arange(area)
    if sparse:
        rng = np.random.default_rng(seed)
        degrees = rng.permutation(whole_shares(sparse * support, np.ones(area), limit=sparse))
        index[dense:, :support] = rows_of_degrees(degrees, sparse, rng)
    return KernelSupports(kernel, index)


def _check_kernel(kernel: tuple[int, ...]) -> None:
    """Raise `PatternError` unless ``kernel`` is the size of a 1-D or 2-D convolution's kernel."""
    if len(kernel) not in (1, 2) or min(kernel) < 1:
        raise PatternError(
            f"a kernel is (length,) or (height, width), each at least 1, got {kernel}"
        )
