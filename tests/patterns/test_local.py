"""Local patterns: fields are near their centres, no dead input is read, tiles share a field."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.errors import PatternError
from presplit.patterns.local import Layout, local, over

layouts = st.one_of(
    st.tuples(st.integers(1, 20)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
)


@settings(max_examples=30)
@given(
    layout=layouts,
    tile=st.integers(1, 4),
    tiles=st.integers(1, 5),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_tile_reads_equally_many_live_inputs(
    layout: Layout, tile: int, tiles: int, seed: int, data: st.DataObject
) -> None:
    size = math.prod(layout)
    weights = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=size, max_size=size))
    )
    alive = int((weights > 0).sum())
    if not alive:
        return
    fan_in, padding = data.draw(st.integers(1, alive)), data.draw(st.integers(0, 3))
    pattern = local(
        layout,
        tile * tiles,
        fan_in=fan_in,
        n_in=size + padding,
        tile=tile,
        weights=weights,
        seed=seed,
    )
    again = local(
        layout,
        tile * tiles,
        fan_in=fan_in,
        n_in=size + padding,
        tile=tile,
        weights=weights,
        seed=seed,
    )
    np.testing.assert_array_equal(pattern.index, again.index)
    assert pattern.index.shape == (tiles, fan_in) and pattern.is_regular
    assert (pattern.fan_out[:size][weights == 0] == 0).all() and (pattern.fan_out[size:] == 0).all()


def test_without_jitter_a_field_on_a_line_is_a_run() -> None:
    pattern = local((50,), 40, fan_in=7, jitter=0.0)
    np.testing.assert_array_equal(np.diff(pattern.index, axis=1), 1)


def test_without_jitter_a_field_in_a_plane_is_an_ellipse_within_the_stretch() -> None:
    """No input outside is nearer than 1 / 1.6**2 of the farthest inside.

    That is the most that the metric can bend.
    """
    rows, columns = np.divmod(np.arange(20 * 20), 20)
    for field in local((20, 20), 30, fan_in=21, jitter=0.0, seed=4).index:
        centre = rows[field].mean(), columns[field].mean()
        distance = np.hypot(rows - centre[0], columns - centre[1])
        outside = np.delete(distance, field)
        assert outside.min() > (distance[field].max() - 1.5) * 0.6**2


def test_fields_grow_wider_with_jitter() -> None:
    spread = [
        float(local((400,), 50, fan_in=10, jitter=j).index.std(axis=1).mean())
        for j in (0.0, 1.0, 4.0, 50.0)
    ]
    assert spread == sorted(spread)


def test_centres_follow_the_weights() -> None:
    weights = np.where(np.arange(100) < 50, 1.0, 9.0)
    fan_out = local((100,), 400, fan_in=1, jitter=0.0, weights=weights).fan_out
    assert 0 < fan_out[:50].sum() < fan_out[50:].sum() / 2


def test_centres_lie_where_fewer_fields_are() -> None:
    """Ten fields of one input among ten leave few inputs unread.

    Independent draws would leave more than three unread on average.
    """
    unread = [
        int((local((10,), 10, fan_in=1, jitter=0.0, seed=seed).fan_out == 0).sum())
        for seed in range(200)
    ]
    assert np.mean(unread) < 3


def test_channels_of_one_place_are_equally_near() -> None:
    """Without jitter and ties, a field over three channels is whole places."""
    pattern = local((3, 9, 9), 20, fan_in=3, jitter=0.0)
    assert all(len(set((row % 81).tolist())) == 1 for row in pattern.index)


def test_a_field_is_near_in_the_plane_not_in_the_flattened_order() -> None:
    pattern = local((16, 16), 50, fan_in=9, jitter=0.0, seed=2)
    rows, columns = np.divmod(pattern.index, 16)
    assert np.ptp(rows, axis=1).max() <= 8 and np.ptp(columns, axis=1).max() <= 8
    assert np.ptp(rows, axis=1).mean() > 1 and np.ptp(columns, axis=1).mean() > 1


def test_over_a_layout_is_a_family() -> None:
    family = over(layout=(28, 28), tile=20, weights=np.arange(784) % 28 > 3)
    first, second, other = (family(800, 400, density=0.1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.index, second.index)
    assert (first.mask() != other.mask()).any()
    assert first.tile == 20 and first.fan_in == 80 and first.density == 0.1


def test_what_a_layout_cannot_have_is_refused_with_what_it_can() -> None:
    with pytest.raises(
        PatternError, match=r"legal are fan_in / 800 with fan_in in 1..784; nearest: 0.98$"
    ):
        over(layout=(28, 28))(800, 40, density=1.0)
    with pytest.raises(
        PatternError, match="fan_in must be in 1..2, the inputs that are alive, got 3"
    ):
        local((4,), 2, fan_in=3, weights=[0, 1, 1, 0])
    with pytest.raises(PatternError, match=r"product is at most n_in = 10, got \(4, 4\)"):
        local((4, 4), 2, fan_in=3, n_in=10)
    with pytest.raises(PatternError, match="tile must divide n_out = 10, got 4; nearest: 2, 5"):
        local((4, 4), 10, fan_in=3, tile=4)
    for weights in ([0.0] * 4, [-1.0, 1, 1, 1], [math.nan, 1, 1, 1], [1.0]):
        with pytest.raises(PatternError, match="weights must be 4 finite numbers >= 0, not all 0"):
            local((4,), 2, fan_in=1, weights=weights)
    with pytest.raises(PatternError, match="jitter must be at least 0 and finite"):
        local((4,), 2, fan_in=1, jitter=-1)
