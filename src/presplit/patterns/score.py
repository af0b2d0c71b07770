"""Scores without data: what a pattern promises before anything is trained.

Source: scatter and path counts, arXiv 1812.01164 and its authors' code. A low value marks a bad
pattern; a high one promises little: scores that see data predict better (arXiv 2305.16886).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from presplit.core.errors import PatternError
from presplit.core.types import Pattern

Windows = npt.NDArray[np.bool_]


def paths(patterns: Sequence[Pattern]) -> npt.NDArray[np.float64]:
    """How many paths lead from each input of the first to each output of the last layer.

    The result is float64 ``(n_out, n_in)``.

    Exact below 2**53. Raises `PatternError` if a layer does not fit the one before.

    >>> diagonal = Pattern(2, 1, np.array([[0], [1]]))
    >>> full = Pattern(2, 2, np.array([[0, 1]]))
    >>> paths([full, full, diagonal]).tolist()
    [[2.0, 2.0], [2.0, 2.0]]
    """
    if not patterns:
        raise PatternError("paths need at least one layer, got none")
    for number, (before, after) in enumerate(itertools.pairwise(patterns), start=1):
        if before.n_out != after.n_in:
            raise PatternError(
                f"layer {number} has {before.n_out} outputs, layer {number + 1} reads {after.n_in}"
            )
    counts = patterns[0].mask().astype(np.float64)
    for pattern in patterns[1:]:
        counts = pattern.mask().astype(np.float64) @ counts
    return counts


def reach(patterns: Sequence[Pattern]) -> float:
    """The share of all pairs of input and output that at least one path joins; 1 if all are.

    >>> reach([Pattern(4, 2, np.array([[0, 1], [2, 3]]))])
    0.5
    """
    return float((paths(patterns) > 0).mean())


def windows(layout: tuple[int, ...], width: int, stride: int | None = None) -> Windows:
    """All windows of ``width`` in each direction of a 1-D or 2-D layout, in steps.

    The result is bool ``(windows, size)``.

    ``stride`` is ``width`` if not given. A last window that would leave the layout is moved back
    inside. A third, first size is a number of channels, which a window takes whole. Raises
    `PatternError` for a window that does not fit.

    >>> windows((5,), 2).astype(int).tolist()
    [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    """
    sides, step = layout[-2:], width if stride is None else stride
    if not 1 <= len(layout) <= 3 or not 1 <= width <= min(sides) or step < 1:
        raise PatternError(f"windows of {width} in steps of {step} do not fit {layout}")
    starts = [sorted({*range(0, side - width, step), side - width}) for side in sides]
    result: list[Windows] = []
    for corner in itertools.product(*starts):
        window = np.zeros(layout, dtype=bool)
        window[(..., *(slice(start, start + width) for start in corner))] = True
        result.append(window.reshape(-1))
    return np.stack(result)


def scatter(counts: npt.ArrayLike, windows: Windows) -> float:
    """How evenly each neuron's connections lie over the windows of the other side, 0..1; 1 is even.

    ``counts`` ``(neurons, n)``: a mask or path counts; ``windows`` ``(windows, n)``. With ``E`` the
    connections of a neuron to a window and ``E* = |window| degree / n`` their fair number it is the
    mean of ``min(1, E / E*)``; a neuron without connections counts 0. For the other direction pass
    ``counts.T``. Leave padding out of both arguments.

    >>> scatter([[1, 0, 1, 0]], windows((4,), 2)), scatter([[1, 1, 0, 0]], windows((4,), 2))
    (1.0, 0.5)
    """
    edges = np.asarray(counts, dtype=np.float64)
    if edges.ndim != 2 or windows.ndim != 2 or edges.shape[1] != windows.shape[1]:
        raise PatternError(
            f"counts (neurons, n) and windows (windows, n) differ in n: {edges.shape}, "
            f"{windows.shape}"
        )
    fair = edges.sum(axis=1, keepdims=True) * windows.sum(axis=1) / edges.shape[1]
    found = edges @ windows.T
    return float(
        np.divide(np.minimum(found, fair), fair, out=np.zeros_like(fair), where=fair > 0).mean()
    )


def scatters(
    patterns: Sequence[Pattern], layouts: Sequence[tuple[int, ...]], *, width: int
) -> dict[str, float]:
    """The scatter of every layer in both directions, and of the whole net's path counts.

    The least one judges the net.

    ``layouts``: one for the input and for the outputs of each layer; a layout smaller than its
    layer leaves the rest out as padding, a window wider than a layout takes all of it.

    >>> from presplit.patterns import grouped
    >>> pair = [grouped(16, 16, density=0.25)] * 2
    >>> min(scatters(pair, [(16,)] * 3, width=4).values())
    0.25
    """
    if len(layouts) != len(patterns) + 1:
        raise PatternError(
            f"{len(patterns)} layers need {len(patterns) + 1} layouts, got {len(layouts)}"
        )
    seen = [windows(layout, min(width, *layout[-2:])) for layout in layouts]
    parts = {f"layer {k + 1}": (pattern.mask(), k, k + 1) for k, pattern in enumerate(patterns)}
    result: dict[str, float] = {}
    for name, (counts, first, last) in (
        parts | {"net": (paths(patterns), 0, len(patterns))}
    ).items():
        real = np.asarray(counts)[: seen[last].shape[1], : seen[first].shape[1]]
        result[f"{name} over inputs"] = scatter(real, seen[first])
        result[f"{name} over outputs"] = scatter(real.T, seen[last])
    return result


def tile_balance(pattern: Pattern) -> float:
    """Mean over largest number of inputs that a tile reads, 0..1.

    It is the share of a padded batched matmul that is useful.

    >>> tile_balance(Pattern(4, 1, np.array([[0, 1, 2], [3, -1, -1]])))
    0.6666666666666666
    """
    return float((pattern.index >= 0).sum(axis=1).mean() / (pattern.index >= 0).sum(axis=1).max())


def input_balance(pattern: Pattern) -> float:
    """Mean over largest fan-out of the inputs, 0..1; 1 if every input feeds equally many outputs.

    >>> input_balance(Pattern(4, 1, np.array([[0, 1], [0, 2]])))
    0.5
    """
    return float(pattern.fan_out.mean() / pattern.fan_out.max())
