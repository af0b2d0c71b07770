"""Density allocation meets the budget, and brute force finds nothing better.

The impossible is refused with the range.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.patterns import LEGAL
from presplit.patterns.budget import LayerSize, Unit, total
from presplit.patterns.density import PROPORTIONS, Profile, allocate, by_time
from presplit.patterns.knapsack import Option, cheapest

UNITS: tuple[Unit, ...] = ("weights", "macs", "bytes")


def spent(layers: list[LayerSize], densities: dict[str, float], unit: Unit = "weights") -> int:
    return sum(layer.cost(densities[layer.name], unit) for layer in layers)


def fine(sizes: list[int], family: str = "biregular", tile: int | None = 1) -> list[LayerSize]:
    """An MLP with all densities of a family."""
    return [
        LayerSize(f"fc{k}", n_in, n_out, tuple(LEGAL[family](n_in, n_out)), tile=tile)
        for k, (n_in, n_out) in enumerate(itertools.pairwise(sizes))
    ]


def resnet(width: int = 32, family: str = "grouped") -> list[LayerSize]:
    """The convolutions of a ResNet-8 at 32 x 32 and its classifier."""
    shapes = [(3, width, 32), (width, width, 32), (width, width, 32)]
    shapes += [
        (width, 2 * width, 16),
        (2 * width, 2 * width, 16),
        (2 * width, 4 * width, 8),
        (4 * width, 4 * width, 8),
    ]
    convolutions = [
        LayerSize(f"conv{k}", n_in, n_out, tuple(LEGAL[family](n_in, n_out)), (3, 3), side * side)
        for k, (n_in, n_out, side) in enumerate(shapes)
    ]
    return [
        *convolutions,
        LayerSize("classifier", 4 * width, 10, tuple(LEGAL[family](4 * width, 10))),
    ]


@st.composite
def rows(draw: st.DrawFn) -> list[list[Option]]:
    option = st.tuples(st.integers(0, 30), st.floats(0, 10))
    return draw(st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=5))


@settings(max_examples=30)
@given(rows=rows(), low=st.integers(0, 100), more=st.integers(0, 20))
def test_the_choice_is_that_of_brute_force(rows: list[list[Option]], low: int, more: int) -> None:
    totals = [
        (sum(penalty for _, penalty in choice), sum(cost for cost, _ in choice))
        for choice in itertools.product(*rows)
    ]
    fitting = [penalty for penalty, cost in totals if low <= cost <= low + more]
    picks = cheapest(rows, low, low + more)
    if picks is None:
        assert not fitting
    else:
        chosen = [row[pick] for row, pick in zip(rows, picks, strict=True)]
        assert low <= sum(cost for cost, _ in chosen) <= low + more
        assert sum(penalty for _, penalty in chosen) == pytest.approx(min(fitting), abs=1e-9)


def test_a_large_choice_stays_within_the_range_and_near_the_best() -> None:
    """20 rows of 8 options with costs that never coincide: far more totals than are kept."""
    rng = np.random.default_rng(0)
    rows = [
        [(int(cost), float(1e6 / cost)) for cost in rng.integers(1000, 10**6, 8)] for _ in range(20)
    ]
    picks = cheapest(rows, 7_500_000, 7_575_000)
    assert picks is not None
    chosen = [row[pick] for row, pick in zip(rows, picks, strict=True)]
    assert 7_500_000 <= sum(cost for cost, _ in chosen) <= 7_575_000
    # Lagrange: no choice can be better than the best of these bounds.
    price = np.linspace(0, 1e-3, 4001)[:, None]
    bound = (
        sum(np.min([p + price[:, 0] * c for c, p in row], axis=0) for row in rows)
        - price[:, 0] * 7_575_000
    )
    assert sum(penalty for _, penalty in chosen) <= float(np.max(bound)) * 1.02


@pytest.mark.parametrize("profile", PROPORTIONS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("family", ["biregular", "grouped", "tiled"])
def test_the_budget_is_met_within_1_percent(
    profile: Profile, unit: Unit, share: float, family: str
) -> None:
    layers = resnet(64, family) if unit == "macs" else fine([800, 400, 400, 200, 10], family)
    budget = share * total(layers, unit)
    try:
        densities = allocate(layers, budget=budget, unit=unit, profile=profile)
    except PatternError as error:
        assert family == "grouped" or profile == "uniform+" or unit != "weights", error
        assert re.search(r"\d+\.\.\d+ are possible|the nearest totals are \d+", str(error))
    else:
        assert abs(spent(layers, densities, unit) / budget - 1) <= 0.01
        assert all(densities[layer.name] in layer.legal for layer in layers)


@st.composite
def small_nets(draw: st.DrawFn) -> list[LayerSize]:
    legal = st.lists(
        st.sampled_from([1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 1.0]),
        min_size=1,
        max_size=4,
        unique=True,
    )
    sizes = st.sampled_from([16, 32, 48, 64])
    return [
        LayerSize(
            f"layer{k}",
            draw(sizes),
            draw(sizes),
            tuple(sorted(draw(legal))),
            draw(st.sampled_from([(), (3, 3)])),
        )
        for k in range(draw(st.integers(1, 4)))
    ]


@settings(max_examples=30)
@given(layers=small_nets(), share=st.floats(0.03, 1.05), profile=st.sampled_from(list(PROPORTIONS)))
def test_a_budget_is_refused_exactly_if_no_densities_meet_it(
    layers: list[LayerSize], share: float, profile: Profile
) -> None:
    budget = share * total(layers)
    dense = next(
        (k for k, layer in enumerate(layers) if layer.kernel and profile == "uniform+"), None
    )
    options = [layer.legal[-1:] if k == dense else layer.legal for k, layer in enumerate(layers)]
    totals = sorted(
        sum(layer.cost(d) for layer, d in zip(layers, c, strict=True))
        for c in itertools.product(*options)
    )
    met = [cost for cost in totals if abs(cost - budget) <= 0.01 * budget]
    try:
        densities = allocate(layers, budget=budget, profile=profile)
    except PatternError as error:
        assert not met
        named = [
            int(number)
            for number in re.findall(r"\d+", str(error).partition("; the nearest totals are")[2])
        ]
        below, above = [c for c in totals if c < budget], [c for c in totals if c > budget]
        assert named == [
            *below[-1:],
            *above[:1],
        ] or f"{totals[0]}..{totals[-1]} are possible" in str(error)
    else:
        assert spent(layers, densities) in met


@settings(max_examples=30)
@given(layers=small_nets(), share=st.floats(0.01, 1.0))
def test_without_a_tolerance_the_total_is_the_nearest_of_all_there_are(
    layers: list[LayerSize], share: float
) -> None:
    budget = share * total(layers)
    choices = itertools.product(*(layer.legal for layer in layers))
    totals = [sum(layer.cost(d) for layer, d in zip(layers, c, strict=True)) for c in choices]
    nearest = min(abs(cost - budget) for cost in totals)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        densities = allocate(layers, budget=budget, tolerance=None)
    found = abs(spent(layers, densities) - budget)
    assert found <= max(nearest, 0.01 * budget)
    assert bool(said) == (nearest > 0.01 * budget), "how far it is is said where it is far"
    if said:
        assert f"is {spent(layers, densities)}, " in str(said[0].message)


@settings(max_examples=30)
@given(layers=small_nets(), share=st.floats(0.03, 1.0), seed=st.integers(0, 99))
def test_no_allocation_of_the_budget_is_faster(
    layers: list[LayerSize], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    times = {
        layer.name: {d: float(rng.uniform(1e-6, 1e-4)) for d in layer.legal} for layer in layers
    }
    budget = share * total(layers)

    def seconds(choice: dict[str, float]) -> float:
        return sum(times[name][density] for name, density in choice.items())

    names = [layer.name for layer in layers]
    choices = [
        dict(zip(names, c, strict=True))
        for c in itertools.product(*(layer.legal for layer in layers))
    ]
    met = [choice for choice in choices if abs(spent(layers, choice) - budget) <= 0.01 * budget]
    if met:
        found = by_time(layers, times, budget=budget)
        assert abs(spent(layers, found) - budget) <= 0.01 * budget
        assert seconds(found) == pytest.approx(min(map(seconds, met)), rel=1e-9)
    else:
        with pytest.raises(PatternError, match="are possible|nearest totals"):
            by_time(layers, times, budget=budget)


def test_narrow_layers_stay_dense_and_wide_ones_carry_the_sparsity() -> None:
    """Below 16 channels a group saves no time: the shape of what was measured for convolutions."""
    layers = resnet(32)[1:-1]
    times: dict[str, dict[float, float]] = {}
    for layer in layers:
        dense = layer.cost(1.0, "macs") / 40e9
        gain = {d: d if layer.n_in * d >= 16 else 1.2 for d in (0.125, 0.25)}
        times[layer.name] = {1.0: dense} | {d: dense * share for d, share in gain.items()}
    densities = by_time(layers, times, budget=0.3 * total(layers), tolerance=0.05)
    assert densities["conv1"] == densities["conv2"] == 1.0
    assert max(densities["conv4"], densities["conv5"], densities["conv6"]) <= 0.25


def test_uniform_gives_every_layer_the_same() -> None:
    layers = fine([1024, 1024, 1024, 1024])
    assert set(allocate(layers, budget=0.25 * total(layers), profile="uniform").values()) == {0.25}


def test_erk_is_the_loop_of_its_source() -> None:
    """As in Rigging the Lottery, a layer whose density would pass 1 is made dense.

    The others are then scaled again.
    """
    layers = resnet(64)
    layers = [
        LayerSize(
            layer.name,
            layer.n_in,
            layer.n_out,
            tuple(k / 4096 for k in range(1, 4097)),
            layer.kernel,
        )
        for layer in layers
    ]
    for density in (0.1, 0.2, 0.5):
        sizes = {layer.name: layer.cost(1.0) for layer in layers}
        raw = {
            layer.name: sum((layer.n_in, layer.n_out, *layer.kernel)) / sizes[layer.name]
            for layer in layers
        }
        dense: set[str] = set()
        while True:
            free = set(sizes) - dense
            epsilon = sum(density * sizes[n] for n in free) - sum(
                (1 - density) * sizes[n] for n in dense
            )
            epsilon /= sum(raw[n] * sizes[n] for n in free)
            top = max(raw[n] for n in free)
            if epsilon * top <= 1:
                break
            dense |= {n for n in free if raw[n] == top}
        expected = {n: 1.0 if n in dense else epsilon * raw[n] for n in sizes}
        assert density == 0.1 or dense
        assert allocate(layers, budget=density * total(layers), profile="erk") == pytest.approx(
            expected, abs=2 / 4096
        )


def test_uniform_plus_spends_what_its_source_leaves_over() -> None:
    layers = [
        LayerSize(
            layer.name,
            layer.n_in,
            layer.n_out,
            tuple(k / 1000 for k in range(1, 1001)),
            layer.kernel,
        )
        for layer in resnet(64)
    ]
    for density in (0.1, 0.3):
        densities = allocate(
            layers, budget=density * total(layers), profile="uniform+", tolerance=0.002
        )
        between = [densities[layer.name] for layer in layers[1:-1]]
        assert densities["conv0"] == 1.0 and np.ptp(between) <= 0.002
        assert densities["classifier"] == pytest.approx(
            0.2 if density < 0.2 else between[0], abs=0.002
        )
        assert spent(layers, densities) == pytest.approx(density * total(layers), rel=0.002)


def test_early_layers_are_sparser_than_late_ones() -> None:
    layers = fine([1024, 1024, 1024, 1024, 1024])
    densities = list(allocate(layers, budget=0.2 * total(layers), profile="early_sparse").values())
    assert densities == sorted(densities) and densities[-1] == pytest.approx(
        4 * densities[0], rel=0.05
    )


def test_bytes_count_the_index() -> None:
    grouped, exact = (
        LayerSize("a", 64, 32, (0.25, 1.0)),
        LayerSize("a", 64, 32, (0.25, 1.0), tile=1),
    )
    shared = LayerSize("a", 64, 32, (0.25, 1.0), tile=16)
    assert [size.cost(0.25, "bytes") for size in (grouped, shared, exact)] == [
        2048 + 256,
        2048 + 128,
        2048 + 2048,
    ]
    assert {size.cost(1.0, "bytes") for size in (grouped, shared, exact)} == {8192}


@pytest.mark.parametrize("budget", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("profile", PROPORTIONS)
def test_a_budget_that_is_no_number_is_refused(budget: float, profile: Profile) -> None:
    with pytest.raises(PatternError, match="a budget is a positive number of weights"):
        allocate(fine([8, 8, 8]), budget=budget, profile=profile)


def test_layers_that_make_no_sense_are_refused() -> None:
    layer = LayerSize("fc", 8, 8, (0.5, 1.0))
    with pytest.raises(PatternError, match="layers of different names"):
        allocate([layer, layer], budget=64)
    with pytest.raises(PatternError, match="layers of different names"):
        allocate([], budget=64)
    for legal in ((), (1.0, 0.5), (0.0, 1.0), (0.5, 1.5)):
        with pytest.raises(PatternError, match="layer fc: legal densities must rise within 0..1"):
            allocate([LayerSize("fc", 8, 8, legal)], budget=64)
    with pytest.raises(PatternError, match="layer fc needs times >= 0 at densities in 0..1"):
        by_time([layer], {}, budget=64)
    with pytest.raises(
        PatternError, match=r"cost 48..48 weights; the nearest totals are 32 and 64"
    ):
        allocate([layer], budget=48)
