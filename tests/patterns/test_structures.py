"""What sets the structured families apart.

They are shared tiles, blocks, diagonals, N of M, digits, expanders, and mixing.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.patterns.block import block
from presplit.patterns.block import legal_densities as block_densities
from presplit.patterns.densities import divisors
from presplit.patterns.diagonal import diagonal
from presplit.patterns.expander import expander
from presplit.patterns.grouped import grouped, layers_to_mix
from presplit.patterns.n_of_m import n_of_m
from presplit.patterns.radix import radix, radix_net
from presplit.patterns.score import paths, reach
from presplit.patterns.tiled import legal_densities as tiled_densities
from presplit.patterns.tiled import tiled

few = st.integers(1, 5)


@settings(max_examples=30)
@given(n_in=st.integers(1, 24), tiles=st.integers(1, 8), tile=few, seed=st.integers(0, 99))
def test_a_tile_shares_its_inputs_and_tiles_are_biregular(
    n_in: int, tiles: int, tile: int, seed: int
) -> None:
    for density in tiled_densities(n_in, tiles * tile, tile=tile):
        pattern = tiled(n_in, tiles * tile, density=density, tile=tile, seed=seed)
        assert pattern.index.shape == (tiles, round(density * n_in)) and pattern.tile == tile
        assert set(pattern.fan_out.tolist()) == {round(density * tiles) * tile}


@pytest.mark.parametrize(
    ("n", "density"), [(512, 1 / 4), (1024, 1 / 8), (4096, 1 / 4), (256, 1 / 8)]
)
def test_a_tile_that_nobody_asked_for_is_fast_and_overlaps(n: int, density: float) -> None:
    pattern = tiled(n, n, density=density)
    assert 16 <= pattern.tile <= 64 and not pattern.is_partition


def test_a_tile_that_does_not_divide_the_outputs_is_refused() -> None:
    with pytest.raises(PatternError, match="tile must divide n_out = 100, got 16; nearest: 10, 20"):
        tiled(64, 100, density=0.5, tile=16)
    with pytest.raises(PatternError, match="tile must divide n_out = 100, got 0; nearest: 1"):
        tiled(64, 100, density=0.5, tile=0)


@settings(max_examples=30)
@given(rows=few, columns=few, inputs=few, outputs=few, seed=st.integers(0, 99))
def test_a_block_is_full_or_empty(
    rows: int, columns: int, inputs: int, outputs: int, seed: int
) -> None:
    n_in, n_out = columns * inputs, rows * outputs
    for density in block_densities(n_in, n_out, block=(inputs, outputs)):
        mask = block(n_in, n_out, density=density, block=(inputs, outputs), seed=seed).mask()
        blocks = mask.reshape(rows, outputs, columns, inputs).sum(axis=(1, 3))
        assert set(np.unique(blocks).tolist()) <= {0, inputs * outputs}


def test_a_block_that_nobody_asked_for_is_the_largest_that_fits() -> None:
    assert block(256, 256, density=1 / 8).tile == 16
    with pytest.raises(
        PatternError, match="the inputs of a block must divide n_in = 784, got 9; nearest: 8, 14"
    ):
        block(784, 100, density=0.5, block=(9, 1))


@settings(max_examples=30)
@given(n_in=st.integers(1, 30), n_out=st.integers(1, 30), seed=st.integers(0, 99))
def test_a_diagonal_is_full_or_empty(n_in: int, n_out: int, seed: int) -> None:
    common = math.gcd(n_in, n_out)
    for k in range(1, common + 1):
        mask = diagonal(n_in, n_out, density=k / common, seed=seed).mask()
        np.testing.assert_array_equal(mask, np.roll(mask, (1, 1), axis=(0, 1)))


@settings(max_examples=30)
@given(m=st.integers(1, 8), runs=few, n_out=st.integers(1, 20), seed=st.integers(0, 99))
def test_every_output_reads_n_of_every_m_inputs(m: int, runs: int, n_out: int, seed: int) -> None:
    for n in range(1, m + 1):
        mask = n_of_m(m * runs, n_out, density=n / m, m=m, seed=seed).mask()
        assert (mask.reshape(n_out, runs, m).sum(axis=2) == n).all()
        fan_out = mask.sum(axis=0)
        assert fan_out.max() - fan_out.min() <= min(n, m - n) * (n_out % m > 0)


def test_m_is_the_least_that_has_the_density() -> None:
    assert (n_of_m(64, 8, density=0.5).mask().reshape(8, 32, 2).sum(axis=2) == 1).all()
    with pytest.raises(PatternError, match="m must divide n_in = 10, got 4; nearest: 2, 5"):
        n_of_m(10, 4, density=0.5, m=4)


@settings(max_examples=30)
@given(radices=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_a_radix_net_joins_every_pair_by_equally_many_paths(
    radices: list[int], data: st.DataObject
) -> None:
    nodes = math.prod(radices)
    widths = data.draw(
        st.lists(st.integers(1, 3), min_size=len(radices) + 1, max_size=len(radices) + 1)
    )
    counts = paths(radix_net([nodes * width for width in widths], radices))
    assert set(counts.reshape(-1).tolist()) == {math.prod(widths[1:-1])}


def test_radix_layers_of_following_seeds_read_following_digits() -> None:
    assert reach([radix(64, 64, density=1 / 16, seed=seed) for seed in (0, 1, 2)]) == 1
    assert reach([radix(64, 64, density=1 / 16, seed=seed) for seed in (0, 0, 0)]) < 1


@pytest.mark.parametrize("density", [1 / 2, 1 / 4, 1 / 8])
def test_two_radix_layers_that_nobody_described_connect_everything_in_tiles(density: float) -> None:
    patterns = [radix(1024, 1024, density=density, seed=seed) for seed in (0, 1)]
    assert reach(patterns) == 1 and min(pattern.tile for pattern in patterns) >= 16


def test_a_place_or_a_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(PatternError, match="place must be in 1..4 for radix 2 of 8 nodes, got 5"):
        radix(8, 8, density=0.25, place=5)
    with pytest.raises(
        PatternError,
        match="nodes must divide the common divisor of the sizes = 8, got 3; nearest: 2, 4",
    ):
        radix(8, 16, density=0.5, nodes=3)
    with pytest.raises(
        PatternError, match=r"radices \[2, 3\] must divide every size, here = 8, got 6"
    ):
        radix_net([6, 8, 12], [2, 3])
    with pytest.raises(PatternError, match="2 radices make a net of 3 sizes, got 2 sizes"):
        radix_net([6, 6], [2, 3])


@settings(max_examples=30)
@given(n_in=st.integers(1, 30), n_out=st.integers(1, 30), data=st.data())
def test_every_output_of_an_expander_reads_equally_many(
    n_in: int, n_out: int, data: st.DataObject
) -> None:
    degree = data.draw(st.integers(1, n_in))
    pattern = expander(n_in, n_out, density=degree / n_in, seed=data.draw(st.integers(0, 99)))
    assert pattern.is_regular and pattern.fan_in == degree


def test_three_expander_layers_connect_what_three_contiguous_groups_do_not() -> None:
    assert reach([expander(256, 256, density=1 / 16, seed=seed) for seed in range(3)]) == 1


@settings(max_examples=30)
@given(fan_in=st.integers(2, 12), groups=st.integers(1, 20))
def test_grouped_layers_mix_in_the_fewest_layers_that_any_pattern_could(
    fan_in: int, groups: int
) -> None:
    width = fan_in * groups
    layer, layers = (
        grouped(width, width, density=1 / groups),
        layers_to_mix(width, density=1 / groups),
    )
    assert reach([layer] * layers) == 1
    assert fan_in ** (layers - 1) < width, (
        "with one layer less, an output ends fewer paths than there are inputs"
    )
    if layers > 1:
        assert reach([layer] * (layers - 1)) < 1


@pytest.mark.parametrize("width", [1024, 4096])
def test_two_layers_mix_whatever_runs_fast(width: int) -> None:
    """At least as many features in a group as groups, down to the square root of the width."""
    fast = [groups for groups in divisors(width) if 1 < groups <= width**0.5]
    assert {layers_to_mix(width, density=1 / groups) for groups in fast} == {2}


def test_groups_of_one_feature_never_mix() -> None:
    with pytest.raises(PatternError, match="groups of one feature never mix: 8 -> 8"):
        layers_to_mix(8, density=1 / 8)
    assert layers_to_mix(1, density=1) == 1
