"""Butterflies connect everything through their shuffle.

Periodic kernels keep few supports that use every entry.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS
from presplit.patterns.butterfly import butterfly
from presplit.patterns.periodic_kernel import KernelSupports, periodic_kernel
from presplit.patterns.score import paths

few = st.integers(1, 5)


@settings(max_examples=30)
@given(groups=few, n_in=few, n_out=few, more=st.integers(0, 3))
def test_a_butterfly_joins_every_pair_by_equally_many_paths(
    groups: int, n_in: int, n_out: int, more: int
) -> None:
    hidden = None if more == 0 else more * groups**2
    pair = butterfly(n_in * groups, n_out * groups, groups=groups, hidden=hidden)
    assert pair.first.is_partition and pair.second.is_partition
    assert set(paths([pair.first, pair.second]).reshape(-1).tolist()) == {
        pair.first.n_out // groups**2
    }


@settings(max_examples=30)
@given(groups=few, width=few)
def test_the_shuffle_and_contiguous_blocks_are_the_second_layer(groups: int, width: int) -> None:
    pair = butterfly(groups * width, groups * width, groups=groups)
    hidden, tile = pair.first.n_out, width
    blocks = np.kron(np.eye(groups, dtype=bool), np.ones((tile, hidden // groups), dtype=bool))
    shuffle = np.eye(hidden, dtype=int)[pair.between]
    np.testing.assert_array_equal(pair.second.mask(), blocks.astype(int) @ shuffle > 0)


def test_a_square_butterfly_has_2_in_groups_of_the_weights() -> None:
    assert butterfly(1024, 1024, groups=32).density == 1 / 16
    assert butterfly(1024, 1024, groups=32).first.n_out == 1024, "Monarch's own size"


def test_groups_and_hidden_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        PatternError, match="groups must divide the greatest common divisor of the sizes = 4, got 3"
    ):
        butterfly(12, 8, groups=3)
    with pytest.raises(PatternError, match=r"groups \*\* 2 must divide hidden = 12, got 16"):
        butterfly(16, 16, groups=4, hidden=12)
    with pytest.raises(PatternError, match="at least one input"):
        butterfly(0, 16, groups=4)


@settings(max_examples=30)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 99), data=st.data()
)
def test_supports_are_of_one_size_and_use_every_entry_alike(
    kernel: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    area = kernel[0] * kernel[1]
    support = data.draw(st.integers(1, area))
    period = data.draw(st.integers(-(-area // support), area + 3))
    supports = periodic_kernel(kernel, support=support, period=period, seed=seed)
    assert supports.index.shape == (period, support) and supports.density == pytest.approx(
        support / area
    )
    uses = np.bincount(supports.index.reshape(-1), minlength=area)
    assert uses.min() >= 1 and np.ptp(uses) <= 1


def every(n_in: int, n_out: int) -> Pattern:
    return Pattern(n_in, 1, np.arange(n_in, dtype=np.int32)[None].repeat(n_out, 0))


@pytest.mark.parametrize("family", PATTERNS)
@pytest.mark.parametrize("period", [4, 6, 9])
def test_every_filter_has_all_supports_and_all_entries_whatever_its_inputs(
    family: str, period: int
) -> None:
    """Inputs that are dealt out in fours would else meet one support in four."""
    pattern = PATTERNS[family](64, 32, density=0.25, seed=1)
    supports = periodic_kernel(support=4, period=period)
    number = supports.number(pattern)
    np.testing.assert_array_equal(number >= 0, pattern.mask())
    for row, kept in zip(number, supports.mask(pattern), strict=True):
        if (row >= 0).sum() >= period:
            assert set(row[row >= 0]) == set(range(period)) and kept.any(axis=0).all()


@settings(max_examples=30)
@given(period=st.integers(1, 6), n_out=st.integers(1, 8), n_in=st.integers(1, 8))
def test_supports_repeat_within_a_filter_and_shift_from_filter_to_filter(
    period: int, n_out: int, n_in: int
) -> None:
    supports = periodic_kernel(support=4, period=max(3, period))
    mask, number = supports.mask(every(n_in, n_out)), supports.number(every(n_in, n_out))
    assert mask.shape == (n_out, n_in, 3, 3) and (mask.sum(axis=(2, 3)) == 4).all()
    for o in range(n_out):
        for i in range(n_in):
            assert number[o, i] == number[0, 0] + (o + i) % supports.period
            assert sorted(np.flatnonzero(mask[o, i])) == supports.index[number[o, i]].tolist()


def test_a_dense_kernel_once_a_period_is_kept_whole() -> None:
    supports = periodic_kernel(support=1, period=4, dense=1)
    assert (supports.index >= 0).sum(axis=1).tolist() == [9, 1, 1, 1]
    assert supports.mask(every(4, 4)).sum(axis=(2, 3)).sum(axis=1).tolist() == [12] * 4
    assert periodic_kernel(period=2, dense=2).density == 1


def test_the_seed_chooses_the_supports() -> None:
    one, same, other = (periodic_kernel(seed=seed).index for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_supports_are_read_only_and_checked() -> None:
    supports = periodic_kernel()
    with pytest.raises(ValueError, match="read-only"):
        supports.index[0, 0] = 1
    with pytest.raises(PatternError, match=r"entries must be in 0..8, got 0..9"):
        KernelSupports((3, 3), np.array([[0, 9]]))
    for index in ([[1, 1]], [[2, 1]], [[-1, 1]], [[-1, -1]]):
        with pytest.raises(
            PatternError, match="must rise; there is at least one, and -1 may only end a row"
        ):
            KernelSupports((3, 3), np.array(index))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"support": 10}, "support must be in 1..9 for a kernel of 3 x 3, got 10"),
        ({"support": 0}, "support must be in 1..9"),
        ({"support": 2, "period": 4}, "period must be at least 5"),
        ({"period": 0}, "period must be at least 1"),
        ({"dense": 10}, "dense in 0..period, got 9 and 10"),
        ({"kernel": (5,), "support": 6}, "support must be in 1..5 for a kernel of 5, got 6"),
        ({"kernel": (9,), "support": 1, "period": 2}, "leave entries of a 9 kernel out"),
        (
            {"kernel": ()},
            r"a kernel is \(length,\) or \(height, width\), each at least 1, got \(\)",
        ),
        ({"kernel": (3, 0)}, r"each at least 1, got \(3, 0\)"),
        ({"kernel": (3, 3, 3)}, r"\(length,\) or \(height, width\)"),
    ],
)
def test_supports_that_cannot_be_are_refused(asked: dict[str, object], match: str) -> None:
    with pytest.raises(PatternError, match=match):
        periodic_kernel(**asked)  # type: ignore[arg-type]
