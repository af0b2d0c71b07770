"""Clash-free patterns are clash-free for their z and never lose an edge.

There are as many as the paper counts.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns.clash_free import Kind, clash_free, count_patterns, is_clash_free
from presplit.patterns.densities import divisors

KINDS: tuple[Kind, ...] = (1, 2, 3)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(n_in, n_out, fan_out, z) that is legal.

    Fan-out divides n_out, the fan-in is whole, z divides n_in.
    """
    fan_out, groups, per_group = (
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
    )
    n_in = groups * per_group
    return n_in, fan_out * groups, fan_out, draw(st.sampled_from(divisors(n_in)))


laws = given(
    shape=shapes(),
    kind=st.sampled_from(KINDS),
    dither=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=30)
@laws
def test_every_cycle_reads_every_memory_once(
    shape: tuple[int, int, int, int], kind: Kind, dither: bool, seed: int
) -> None:
    n_in, n_out, fan_out, z = shape
    pattern = clash_free(n_in, n_out, fan_out=fan_out, z=z, kind=kind, dither=dither, seed=seed)
    assert is_clash_free(pattern, z)
    again = Pattern(
        n_in, pattern.tile, np.array(pattern.index.tolist(), np.int32), pattern.out_order
    )
    assert is_clash_free(again, z), "what is stored keeps the order of the edges"


@settings(max_examples=30)
@laws
def test_degrees_are_exact_and_no_edge_is_lost(
    shape: tuple[int, int, int, int], kind: Kind, dither: bool, seed: int
) -> None:
    n_in, n_out, fan_out, z = shape
    mask = clash_free(n_in, n_out, fan_out=fan_out, z=z, kind=kind, dither=dither, seed=seed).mask()
    assert set(mask.sum(axis=0).tolist()) == {fan_out}
    assert set(mask.sum(axis=1).tolist()) == {n_in * fan_out // n_out}


@settings(max_examples=30)
@given(shape=shapes(), dither=st.booleans(), seed=st.integers(0, 99))
def test_kind_3_is_a_grouped_pattern_in_another_order(
    shape: tuple[int, int, int, int], dither: bool, seed: int
) -> None:
    n_in, n_out, fan_out, z = shape
    pattern = clash_free(n_in, n_out, fan_out=fan_out, z=z, kind=3, dither=dither, seed=seed)
    assert pattern.is_partition and pattern.tile == fan_out
    mask = pattern.mask()
    np.testing.assert_array_equal(mask[: n_out // fan_out], mask[-(n_out // fan_out) :])


@pytest.mark.parametrize("kind", [2, 3])
def test_kinds_2_and_3_read_addresses_upwards_from_a_start(kind: Kind) -> None:
    n_in, n_out, fan_out, z = 24, 12, 4, 4
    pattern = clash_free(n_in, n_out, fan_out=fan_out, z=z, kind=kind, seed=5)
    rows = np.repeat(pattern.index, pattern.tile, axis=0)
    rows = rows if pattern.out_order is None else rows[np.argsort(pattern.out_order)]
    addresses = rows.reshape(fan_out, n_in // z, z) // z
    np.testing.assert_array_equal(np.diff(addresses, axis=1) % (n_in // z), 1)


COUNTS = [
    ((9, 6, 2, 3), False, (46_656, 729, 27)),
    ((9, 6, 2, 3), True, (46_656, 729, 27)),
    ((12, 12, 2, 4), True, (60_466_176, 236_196, 486)),
    ((12, 12, 2, 4), False, (1_679_616, 6_561, 81)),
]


@pytest.mark.parametrize(("shape", "dither", "counts"), COUNTS)
def test_counts_are_those_of_the_source(
    shape: tuple[int, int, int, int], dither: bool, counts: tuple[int, int, int]
) -> None:
    n_in, n_out, fan_out, z = shape
    found = tuple(
        count_patterns(n_in, n_out, fan_out=fan_out, z=z, kind=kind, dither=dither)
        for kind in KINDS
    )
    assert found == counts


@pytest.mark.parametrize(
    ("shape", "kind", "dither", "draws"),
    [
        ((9, 6, 2, 3), 3, False, 300),
        ((9, 6, 2, 3), 3, True, 300),
        ((12, 12, 2, 4), 3, False, 1_000),
        ((4, 4, 2, 2), 1, False, 400),
    ],
)
def test_drawing_often_gives_each_pattern_and_no_other(
    shape: tuple[int, int, int, int], kind: Kind, dither: bool, draws: int
) -> None:
    """Draws are at least ten times the patterns.

    Less than one in a hundred would miss one by chance.
    """
    n_in, n_out, fan_out, z = shape
    masks = {
        clash_free(n_in, n_out, fan_out=fan_out, z=z, kind=kind, dither=dither, seed=seed)
        .mask()
        .tobytes()
        for seed in range(draws)
    }
    assert len(masks) == count_patterns(n_in, n_out, fan_out=fan_out, z=z, kind=kind, dither=dither)


def test_no_count_is_invented_where_no_formula_is_known() -> None:
    with pytest.raises(PatternError, match="z = 4 and fan_in = 6 must divide one the other"):
        count_patterns(12, 4, fan_out=2, z=4, kind=1, dither=True)
    assert count_patterns(12, 4, fan_out=2, z=4, kind=3) == 81, "without dither it is known"


@pytest.mark.parametrize(("n_in", "n_out", "fan_out"), [(12, 4, 3), (12, 9, 6), (10, 4, 3)])
def test_a_shape_in_which_an_output_could_get_an_input_twice_is_refused(
    n_in: int, n_out: int, fan_out: int
) -> None:
    with pytest.raises(PatternError, match="legal are fan_out / .* and fan_in whole") as refusal:
        clash_free(n_in, n_out, fan_out=fan_out, z=2)
    for density in re.findall(r"[\d.]+", str(refusal.value).partition("nearest")[2]):
        assert is_clash_free(clash_free(n_in, n_out, density=float(density), z=2), 2)


def test_a_number_of_memories_that_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(PatternError, match="z must divide n_in = 800, got 7; nearest: 5, 8"):
        clash_free(800, 40, fan_out=2, z=7)
    with pytest.raises(PatternError, match="kind must be 1, 2 or 3, got 4"):
        clash_free(8, 8, fan_out=2, kind=4)  # type: ignore[arg-type]
    with pytest.raises(PatternError, match="either density or fan_out"):
        clash_free(8, 8)


def test_a_planted_clash_is_found() -> None:
    pattern = clash_free(12, 12, fan_out=2, z=4, seed=3)
    for one, other in itertools.combinations(range(4), 2):
        index = pattern.index.copy().reshape(-1)
        index[[one, other + 4]] = index[[other + 4, one]]  # swap two edges of neighbouring cycles
        if index[one] % 4 != pattern.index.reshape(-1)[one] % 4:
            try:
                swapped = Pattern(12, 1, index.reshape(pattern.index.shape))
            except PatternError:
                continue
            assert not is_clash_free(swapped, 4)


def test_what_no_memories_serve_is_not_clash_free() -> None:
    pattern = clash_free(12, 12, fan_out=2, z=4)
    assert not is_clash_free(pattern, 5) and not is_clash_free(pattern, 0)
    assert not is_clash_free(Pattern(4, 1, np.array([[0, 1], [2, -1]])), 1)


def test_by_default_one_output_is_computed_in_a_cycle() -> None:
    pattern = clash_free(800, 40, fan_out=2)
    assert pattern.fan_in == 40 and is_clash_free(pattern, 40)
