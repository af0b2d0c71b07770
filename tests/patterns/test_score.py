"""Scores without data: paths and scatter.

Paths are products of masks; scatter is 1 for even patterns and low for those that cluster.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.patterns.score import (
    input_balance,
    paths,
    reach,
    scatter,
    scatters,
    tile_balance,
    windows,
)


def contiguous(n: int, groups: int) -> Pattern:
    return Pattern(n, n // groups, np.arange(n, dtype=np.int32).reshape(groups, -1))


@pytest.mark.parametrize("family", PATTERNS)
def test_paths_are_counted_one_by_one(family: str) -> None:
    patterns = [PATTERNS[family](8, 8, density=0.5, seed=seed) for seed in range(3)]
    counts, masks = paths(patterns), [pattern.mask() for pattern in patterns]
    for o, i in itertools.product(range(8), range(8)):
        middle = itertools.product(range(8), range(8))
        assert counts[o, i] == sum(
            bool(masks[0][a, i] and masks[1][b, a] and masks[2][o, b]) for a, b in middle
        )


def test_contiguous_groups_never_meet() -> None:
    assert reach([contiguous(16, 4)] * 5) == 0.25


@settings(max_examples=30)
@given(side=st.integers(1, 9), other=st.integers(1, 9), channels=st.integers(1, 3), data=st.data())
def test_windows_are_of_one_size_and_cover_everything(
    side: int, other: int, channels: int, data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, min(side, other)))
    stride = data.draw(st.integers(1, width))
    for layout, size in (
        ((side,), width),
        ((side, other), width**2),
        ((channels, side, other), width**2 * channels),
    ):
        found = windows(layout, width, stride)
        assert set(found.sum(axis=1).tolist()) == {size} and found.any(axis=0).all()


def test_a_pattern_that_reads_every_window_alike_scores_1() -> None:
    mask = PATTERNS["n_of_m"](32, 32, density=0.25, m=4).mask()
    assert scatter(mask, windows((32,), 4)) == 1
    assert scatter(PATTERNS["bernoulli"](32, 32, density=1.0).mask(), windows((32,), 5)) == 1


def test_a_pattern_that_clusters_scores_its_density() -> None:
    pattern = contiguous(32, 4)
    assert scatter(pattern.mask(), windows((32,), 8)) == 0.25
    assert scatter(pattern.mask().T, windows((32,), 8)) == 0.25


def test_a_neuron_that_is_cut_off_counts_0() -> None:
    assert scatter([[1, 1, 1, 1], [0, 0, 0, 0]], windows((4,), 2)) == 0.5


def test_scatter_is_that_of_its_definition() -> None:
    counts = np.random.default_rng(0).integers(0, 4, size=(6, 12))
    sets = windows((3, 4), 2, 1)
    terms = []
    for row, window in itertools.product(counts, sets):
        fair = window.sum() * row.sum() / 12
        terms.append(min(1.0, row[window].sum() / fair))
    assert scatter(counts, sets) == pytest.approx(np.mean(terms))


def test_a_net_is_scored_in_both_directions_and_whole() -> None:
    good = [PATTERNS["grouped"](16, 16, density=0.25)] * 2
    bad = [contiguous(16, 4)] * 2
    layouts: list[tuple[int, ...]] = [(4, 4), (16,), (16,)]
    names = [
        f"{part} over {side}"
        for part in ("layer 1", "layer 2", "net")
        for side in ("inputs", "outputs")
    ]
    assert list(scatters(good, layouts, width=2)) == names
    assert scatters(good, layouts, width=2)["net over inputs"] == 1
    assert scatters(bad, layouts, width=2)["net over outputs"] < 1


def test_padding_is_left_out() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, :4] = True
    index = np.tile(np.arange(4, dtype=np.int32), (4, 1))
    assert scatters([Pattern(6, 1, index)], [(2, 2), (4,)], width=1)["layer 1 over inputs"] == 1


def test_balance_is_1_where_all_do_equal_work() -> None:
    for family in ("grouped", "biregular", "block", "clash_free"):
        pattern = PATTERNS[family](32, 16, density=0.25)
        assert tile_balance(pattern) == input_balance(pattern) == 1
    uneven = PATTERNS["bernoulli"](32, 16, density=0.25)
    assert tile_balance(uneven) < 1 and input_balance(uneven) < 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PatternError, match="layer 1 has 16 outputs, layer 2 reads 8"):
        paths([contiguous(16, 4), contiguous(8, 4)])
    with pytest.raises(PatternError, match="at least one layer"):
        paths([])
    with pytest.raises(PatternError, match=r"windows of 5 in steps of 5 do not fit \(4, 9\)"):
        windows((4, 9), 5)
    with pytest.raises(PatternError, match="differ in n"):
        scatter(np.ones((2, 3)), windows((4,), 2))
    with pytest.raises(PatternError, match="1 layers need 2 layouts, got 1"):
        scatters([contiguous(8, 2)], [(8,)], width=2)
