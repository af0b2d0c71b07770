"""Chosen connections: the degrees of the family, and as much of a trained layer as they can keep.

What is best is found here by trying every pattern of a tiny layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.core.types import Pattern
from presplit.patterns import CHOSEN, PATTERNS, chosen
from presplit.patterns.degrees import Reals
from presplit.patterns.periodic_kernel import KernelSupports

NEAR = 0.98
"""Where prices or turns find a choice, it keeps at least this share of the best, on the mean."""

names = pytest.mark.parametrize("family", list(CHOSEN))


def scores(n_out: int, n_in: int, seed: int) -> Reals:
    """Like squared weights: a few are large."""
    return np.random.default_rng(seed).normal(size=(n_out, n_in)) ** 4


def kept(worth: Reals, pattern: Pattern) -> float:
    return float(worth[pattern.mask()].sum())


@names
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 32), (32, 64), (48, 48)])
@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_a_choice_has_the_degrees_of_a_draw_and_keeps_more(
    family: str, n_in: int, n_out: int, density: float
) -> None:
    worth = scores(n_out, n_in, seed=1)
    choice = CHOSEN[family](worth, density=density, seed=3)
    draw = PATTERNS[family](n_in, n_out, density=density, seed=3)
    assert (choice.n_in, choice.n_out, choice.tile) == (n_in, n_out, draw.tile)
    assert choice.connections == draw.connections
    assert choice.is_partition == draw.is_partition
    if family != "bernoulli":
        assert choice.index.shape == draw.index.shape
        assert choice.is_regular
    if family in ("grouped", "tiled", "block", "biregular"):
        assert (choice.fan_out == draw.fan_out).all()
    if density < 1:
        draws = (PATTERNS[family](n_in, n_out, density=density, seed=seed) for seed in range(4))
        shuffled = np.random.default_rng(0).permutation(n_in)
        assert kept(worth, choice) > np.mean([kept(worth[:, shuffled], each) for each in draws])


@names
def test_a_choice_is_the_same_again_and_for_scores_of_any_size(family: str) -> None:
    worth = scores(16, 32, seed=2)
    once, again, *sized = (
        CHOSEN[family](each, density=0.25, seed=5)
        for each in (worth, worth.tolist(), worth * 2.0**60, worth * 2.0**-400)
    )
    for other in (again, *sized):
        assert (once.mask() == other.mask()).all()


@names
def test_equal_scores_give_a_pattern_too(family: str) -> None:
    even = CHOSEN[family](np.ones((8, 16)), density=0.25)
    assert even.density == 0.25
    few = np.zeros((8, 16))
    few[3, 7] = 1  # fewer connections are worth anything than there must be
    assert CHOSEN[family](few, density=0.25).mask()[3, 7]


@names
@pytest.mark.parametrize(
    ("worth", "said"),
    [
        (np.ones(4), r"must be \(n_out, n_in\).* got \(4,\)"),
        (np.ones((0, 4)), r"got \(0, 4\)"),
        (np.full((4, 4), np.nan), r"finite and at least 0, got nan at output and input \[0, 0\]"),
        (np.eye(4) - 0.5, r"got -0.5 at output and input \[0, 1\]"),
        (np.zeros((4, 4)), "all 0.*trained layer"),
    ],
)
def test_what_are_no_scores_is_refused(family: str, worth: Reals, said: str) -> None:
    with pytest.raises(PatternError, match=said):
        CHOSEN[family](worth, density=0.5)


@pytest.mark.parametrize("family", ["grouped", "tiled", "block", "n_of_m", "expander", "biregular"])
def test_a_density_that_the_family_has_not_is_refused_as_for_a_draw(family: str) -> None:
    with pytest.raises(PatternError, match=r"8 -> 8 has no .*0\.3.*nearest"):
        CHOSEN[family](np.ones((8, 8)), density=0.3)


def patterns(n_out: int, n_in: int, fan_in: int, tile: int = 1) -> Iterator[Pattern]:
    """Every pattern whose neighbours in tiles share their inputs."""
    sets = list(itertools.combinations(range(n_in), fan_in))
    for rows in itertools.product(sets, repeat=n_out // tile):
        yield Pattern(n_in, tile, np.array(rows, dtype=np.int32))


def most(worth: Reals, fan_in: int, *, may: Callable[[Pattern], bool] = lambda _: True) -> float:
    """The most that any pattern of this fan-in keeps, of those that ``may`` be."""
    n_out, n_in = worth.shape
    return max(kept(worth, each) for each in patterns(n_out, n_in, fan_in) if may(each))


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_free_fan_out_keeps_the_most_that_is_possible(seed: int) -> None:
    worth = scores(3, 4, seed)
    assert kept(worth, chosen.expander(worth, density=0.5)) == pytest.approx(most(worth, 2))
    best = np.sort(worth, axis=None)[-6:].sum()
    assert kept(worth, chosen.bernoulli(worth, density=0.5)) == pytest.approx(best)

    def one_of_two(pattern: Pattern) -> bool:
        return bool((pattern.index // 2 == [0, 1]).all())

    found = chosen.n_of_m(worth, density=0.5, m=2)
    assert one_of_two(found)
    assert kept(worth, found) == pytest.approx(most(worth, 2, may=one_of_two))


def test_equal_fan_out_keeps_nearly_the_most_that_is_possible() -> None:
    shares = list[float]()
    for seed in range(12):
        worth = scores(4, 4, seed)
        best = most(worth, 2, may=lambda pattern: set(pattern.fan_out.tolist()) == {2})
        shares.append(kept(worth, chosen.biregular(worth, density=0.5)) / best)
    assert max(shares) < 1 + 1e-9
    assert np.mean(shares) > NEAR


def test_groups_keep_nearly_the_most_that_is_possible() -> None:
    halves = [list(half) for half in itertools.combinations(range(6), 3)]
    shares = list[float]()
    for seed in range(12):
        worth = scores(6, 6, seed)
        best = max(
            worth[np.ix_(outputs, inputs)].sum()
            + np.delete(np.delete(worth, outputs, 0), inputs, 1).sum()
            for outputs, inputs in itertools.product(halves, halves)
        )
        shares.append(kept(worth, chosen.grouped(worth, density=0.5, seed=seed)) / best)
    assert max(shares) < 1 + 1e-9
    assert np.mean(shares) > NEAR


@pytest.mark.parametrize(("family", "tile"), [("grouped", 8), ("tiled", 8)])
def test_hidden_groups_are_found_again(family: str, tile: int) -> None:
    random = np.random.default_rng(0)
    outputs, inputs = random.permutation(32), random.permutation(64)
    worth = 0.1 * random.random((32, 64))
    worth[np.ix_(outputs, inputs)] += np.kron(np.eye(4), np.ones((8, 16)))
    wanted = np.zeros((32, 64), dtype=bool)
    wanted[np.ix_(outputs, inputs)] = np.kron(np.eye(4), np.ones((8, 16))) > 0
    pattern = (
        chosen.grouped(worth, density=0.25)
        if family == "grouped"
        else chosen.tiled(worth, density=0.25, tile=tile)
    )
    assert (pattern.mask() == wanted).all()
    assert pattern.is_partition


def test_more_tiles_to_choose_from_keep_more() -> None:
    worth = scores(32, 64, seed=4)
    shares = [
        kept(worth, chosen.tiled(worth, density=0.25, tile=tile)) / worth.sum()
        for tile in (1, 4, 8)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5


def test_blocks_are_those_of_the_highest_sums() -> None:
    worth = np.kron(np.array([[3, 1, 2, 0], [0, 5, 1, 4]]), np.ones((4, 2)))
    pattern = chosen.block(worth, density=0.5, block=(2, 4))
    assert pattern.index.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("n_out", [2, 6, 7])
def test_fan_outs_are_equal_also_when_all_outputs_want_the_same_inputs(n_out: int) -> None:
    worth = np.tile(np.arange(1.0, 2 * n_out + 1) ** 4, (n_out, 1))
    pattern = chosen.biregular(worth, density=1 - 1 / n_out if n_out > 2 else 0.5)
    assert len(set(pattern.fan_out.tolist())) == 1


def test_supports_keep_the_most_that_is_possible() -> None:
    worth = np.random.default_rng(0).random((4, 4, 2, 2))
    pattern = Pattern(4, 2, np.array([[0, 2, 3], [0, 1, 2]]))
    found = chosen.kernels(worth, pattern, support=2, period=2)
    pairs = list(itertools.combinations(range(4), 2))
    every = [KernelSupports((2, 2), np.array(rows)) for rows in itertools.product(pairs, pairs)]
    best = max(worth[supports.mask(pattern)].sum() for supports in every)
    assert worth[found.mask(pattern)].sum() == pytest.approx(best)
    assert (found.period, found.support) == (2, 2)


@pytest.mark.parametrize(
    ("shape", "support", "said"),
    [
        ((4, 4, 3), 1, r"must be \(2, 4, \*kernel\).*got \(4, 4, 3\)"),
        ((4, 2, 3, 3), 1, r"got \(4, 2, 3, 3\)"),
        ((2, 4, 3, 3), 10, r"1\.\.9 .* got 10 and 4"),
        ((2, 4, 3, 3), 0, r"1\.\.9 .* got 0 and 4"),
    ],
)
def test_supports_that_cannot_be_are_refused(
    shape: tuple[int, ...], support: int, said: str
) -> None:
    pattern = Pattern(4, 1, np.array([[0, 1], [2, 3]]))
    with pytest.raises(PatternError, match=said):
        chosen.kernels(np.ones(shape), pattern, support=support)
