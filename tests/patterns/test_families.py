"""Every pattern family has exact degrees and gives one pattern for one seed.

Its refusals name what is legal.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns import LEGAL, PATTERNS
from presplit.patterns.bernoulli import bernoulli
from presplit.patterns.biregular import biregular
from presplit.patterns.biregular import legal_densities as biregular_densities
from presplit.patterns.grouped import grouped
from presplit.patterns.grouped import legal_densities as grouped_densities

RANDOM = [family for family in PATTERNS if family not in ("grouped", "radix")]
"""Families in which the seed chooses.

There is one best grouped pattern, and as many RadiX patterns as digits.
"""
ROUNDING = "bernoulli"
"""The family that takes any density, rounded to whole connections."""
REGULAR = [family for family in PATTERNS if family not in ("bernoulli", "expander", "n_of_m")]
"""Families with equal degrees on both sides at every legal density."""

sizes = st.integers(1, 40)


@st.composite
def layers(draw: st.DrawFn) -> tuple[int, int]:
    """Sizes whose greatest common divisor is often more than 1."""
    common = draw(st.integers(1, 12))
    return common * draw(st.integers(1, 5)), common * draw(st.integers(1, 5))


@pytest.mark.parametrize("family", PATTERNS)
@settings(max_examples=30)
@given(layer=layers(), seed=st.integers(0, 2**32 - 1))
def test_one_seed_gives_one_pattern(family: str, layer: tuple[int, int], seed: int) -> None:
    for density in LEGAL[family](*layer):
        first, second = (PATTERNS[family](*layer, density=density, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(first.index, second.index)
        assert first.tile == second.tile and first.out_order is None and second.out_order is None


@pytest.mark.parametrize("family", RANDOM)
def test_another_seed_gives_another_pattern(family: str) -> None:
    masks = [PATTERNS[family](256, 128, density=0.25, seed=seed).mask() for seed in range(5)]
    assert all((one != other).any() for one, other in itertools.combinations(masks, 2))


def test_every_seed_gives_the_one_grouped_pattern() -> None:
    first, second = (grouped(32, 16, density=0.25, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(first.index, second.index)


@pytest.mark.parametrize("family", PATTERNS)
@settings(max_examples=30)
@given(layer=layers())
def test_the_density_asked_for_is_the_density_of_the_pattern(
    family: str, layer: tuple[int, int]
) -> None:
    for density in LEGAL[family](*layer):
        pattern = PATTERNS[family](*layer, density=density)
        assert (pattern.n_in, pattern.n_out) == layer
        assert pattern.connections == round(density * layer[0] * layer[1])


@pytest.mark.parametrize("family", PATTERNS)
@settings(max_examples=30)
@given(layer=layers())
def test_full_density_connects_everything(family: str, layer: tuple[int, int]) -> None:
    assert PATTERNS[family](*layer, density=1.0).mask().all()


@pytest.mark.parametrize("family", PATTERNS)
@settings(max_examples=30)
@given(layer=layers(), seed=st.integers(0, 9))
def test_a_pattern_is_whole_in_what_is_stored(
    family: str, layer: tuple[int, int], seed: int
) -> None:
    """The index alone, without the seed, gives the pattern back."""
    pattern = PATTERNS[family](*layer, density=1 / math.gcd(*layer), seed=seed)
    again = Pattern(
        pattern.n_in, pattern.tile, np.array(pattern.index.tolist(), np.int32), pattern.out_order
    )
    np.testing.assert_array_equal(again.mask(), pattern.mask())


@pytest.mark.parametrize("family", REGULAR)
@settings(max_examples=30)
@given(layer=layers(), seed=st.integers(0, 9))
def test_degrees_are_equal_on_both_sides(family: str, layer: tuple[int, int], seed: int) -> None:
    n_in, n_out = layer
    for density in LEGAL[family](n_in, n_out):
        mask = PATTERNS[family](n_in, n_out, density=density, seed=seed).mask()
        assert set(mask.sum(axis=0).tolist()) == {round(density * n_out)}
        assert set(mask.sum(axis=1).tolist()) == {round(density * n_in)}


@pytest.mark.parametrize("family", PATTERNS)
@settings(max_examples=30)
@given(layer=layers())
def test_legal_densities_rise_to_1(family: str, layer: tuple[int, int]) -> None:
    legal = LEGAL[family](*layer)
    assert legal == sorted(set(legal)) and legal[0] > 0 and legal[-1] == 1


def test_every_family_says_which_densities_are_legal() -> None:
    assert list(LEGAL) == list(PATTERNS)


@pytest.mark.parametrize("family", PATTERNS)
def test_a_family_takes_what_the_shelf_promises(family: str) -> None:
    parameters = inspect.signature(PATTERNS[family]).parameters
    assert list(parameters)[:2] == ["n_in", "n_out"]
    assert {"density", "seed"} <= set(parameters)


@settings(max_examples=30)
@given(layer=layers(), seed=st.integers(0, 2**32 - 1))
def test_biregular_degrees_are_exact_for_every_legal_density(
    layer: tuple[int, int], seed: int
) -> None:
    n_in, n_out = layer
    g = math.gcd(n_in, n_out)
    assert biregular_densities(n_in, n_out) == [k / g for k in range(1, g + 1)]
    for k in range(1, g + 1):
        mask = biregular(n_in, n_out, density=k / g, seed=seed).mask()
        assert set(mask.sum(axis=0).tolist()) == {k * n_out // g}
        assert set(mask.sum(axis=1).tolist()) == {k * n_in // g}


@settings(max_examples=30)
@given(n_in=sizes, n_out=sizes, fan_out=st.integers(0, 50))
def test_biregular_takes_exactly_the_legal_out_degrees(n_in: int, n_out: int, fan_out: int) -> None:
    if 1 <= fan_out <= n_out and n_in * fan_out % n_out == 0:
        assert set(biregular(n_in, n_out, fan_out=fan_out).fan_out.tolist()) == {fan_out}
    else:
        with pytest.raises(PatternError, match=f"no biregular pattern with fan_out {fan_out} "):
            biregular(n_in, n_out, fan_out=fan_out)


@settings(max_examples=30)
@given(n_in=sizes, n_out=sizes, fan_out=st.integers(1, 50))
def test_a_biregular_refusal_names_the_nearest_legal_out_degrees(
    n_in: int, n_out: int, fan_out: int
) -> None:
    legal = [degree for degree in range(1, n_out + 1) if n_in * degree % n_out == 0]
    try:
        biregular(n_in, n_out, fan_out=fan_out)
    except PatternError as error:
        named = [
            int(degree)
            for degree in re.findall(r"fan_out (\d+) \(density", str(error).partition("nearest")[2])
        ]
        below = [degree for degree in legal if degree < fan_out]
        above = [degree for degree in legal if degree > fan_out]
        assert named == [*below[-1:], *above[:1]]
    else:
        assert fan_out in legal


@pytest.mark.parametrize("family", [family for family in PATTERNS if family != ROUNDING])
@settings(max_examples=30)
@given(layer=layers(), density=st.floats(1e-4, 1.5))
def test_a_density_that_a_refusal_names_can_be_typed_in(
    family: str, layer: tuple[int, int], density: float
) -> None:
    try:
        PATTERNS[family](*layer, density=density)
    except PatternError as error:
        named = re.findall(
            r"\d+(?:\.\d+)?", re.sub(r"fan_out \d+|density", "", str(error).partition("nearest")[2])
        )
        assert named
        for text in named:
            assert PATTERNS[family](*layer, density=float(text)).density == pytest.approx(
                float(text), rel=1e-5
            )


@pytest.mark.parametrize(
    ("n_in", "n_out", "groups"), [(3000, 1500, 750), (768, 3072, 384), (784, 98, 49)]
)
def test_a_density_with_a_long_fraction_can_be_typed_in(n_in: int, n_out: int, groups: int) -> None:
    assert grouped(n_in, n_out, density=float(f"{1 / groups:.6g}")).index.shape[0] == groups
    assert biregular(n_in, n_out, density=float(f"{1 / groups:.6g}")).density == 1 / groups


@settings(max_examples=30)
@given(layer=layers())
def test_a_grouped_pattern_is_a_partition_of_equal_tiles(layer: tuple[int, int]) -> None:
    n_in, n_out = layer
    for density in grouped_densities(n_in, n_out):
        pattern = grouped(n_in, n_out, density=density)
        assert pattern.is_partition and pattern.is_regular
        assert pattern.index.shape == (round(1 / density), round(n_in * density))
        assert pattern.tile == round(n_out * density)


@settings(max_examples=30)
@given(
    groups=st.integers(1, 8),
    more=st.integers(0, 3),
    n_in=st.integers(1, 4),
    n_out=st.integers(1, 4),
)
def test_two_grouped_layers_connect_everything_if_tiles_are_no_fewer_than_groups(
    groups: int, more: int, n_in: int, n_out: int
) -> None:
    hidden = groups * (groups + more)
    first = grouped(n_in * groups, hidden, density=1 / groups)
    second = grouped(hidden, n_out * groups, density=1 / groups)
    assert first.tile >= groups
    assert (second.mask().astype(int) @ first.mask().astype(int) > 0).all()


@settings(max_examples=30)
@given(n_in=sizes, n_out=sizes, density=st.floats(0.001, 1), seed=st.integers(0, 2**32 - 1))
def test_bernoulli_has_exactly_the_rounded_number_of_connections(
    n_in: int, n_out: int, density: float, seed: int
) -> None:
    wanted = round(density * n_in * n_out)
    if wanted:
        pattern = bernoulli(n_in, n_out, density=density, seed=seed)
        assert pattern.connections == pattern.mask().sum() == wanted
    else:
        with pytest.raises(PatternError, match="has no connection"):
            bernoulli(n_in, n_out, density=density, seed=seed)


def test_bernoulli_places_are_uniform() -> None:
    """Each of 50 places is drawn in a quarter of 2,000 patterns.

    Five standard deviations are 0.048.
    """
    drawn = (
        sum(bernoulli(10, 5, density=0.25, seed=seed).mask().astype(int) for seed in range(2000))
        / 2000
    )
    assert np.abs(drawn - 12 / 50).max() < 0.048


def test_the_paper_s_vocabulary_gives_the_paper_s_weights() -> None:
    """arXiv 2407.11763: 800-40-40-10 with out-degrees 2, 9, 10."""
    layers = [800, 40, 40, 10]
    junctions = zip(layers, layers[1:], [2, 9, 10], strict=False)
    patterns = [biregular(n_in, n_out, fan_out=degree) for n_in, n_out, degree in junctions]
    assert [pattern.connections for pattern in patterns] == [1600, 360, 400]
    assert [pattern.fan_in for pattern in patterns] == [40, 9, 40]
    assert sum(pattern.connections for pattern in patterns) == 2360


def test_density_and_out_degree_are_two_words_for_one_pattern() -> None:
    by_degree, by_density = (
        biregular(800, 40, fan_out=2, seed=3),
        biregular(800, 40, density=0.05, seed=3),
    )
    np.testing.assert_array_equal(by_degree.index, by_density.index)


@pytest.mark.parametrize("family", PATTERNS)
@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, math.nan, math.inf, -math.inf, 5e-324])
def test_a_density_outside_0_to_1_is_refused(family: str, density: float) -> None:
    with pytest.raises(PatternError, match="8 -> 4"):
        PATTERNS[family](8, 4, density=density)


@pytest.mark.parametrize("family", PATTERNS)
@pytest.mark.parametrize("layer", [(0, 4), (4, 0), (-4, 4)])
def test_a_layer_without_inputs_or_outputs_is_refused(family: str, layer: tuple[int, int]) -> None:
    with pytest.raises(PatternError, match="at least one input|has no connection"):
        PATTERNS[family](*layer, density=0.5)


@pytest.mark.parametrize("asked", [{}, {"density": 0.5, "fan_out": 2}])
def test_biregular_wants_either_density_or_out_degree(asked: dict) -> None:
    with pytest.raises(PatternError, match="either density or fan_out"):
        biregular(8, 4, **asked)
