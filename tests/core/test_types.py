"""The core's values: checked once when made, frozen, and equal after a trip through JSON."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from presplit.core.costs import Device
from presplit.core.encoding import Affine, Cast
from presplit.core.errors import PatternError, SpecError
from presplit.core.plans import Plan
from presplit.core.types import Answer, Boundary, Exit, Net, Pattern, canonical_json

NET = Net(
    (
        Boundary("image", (1, 8, 8)),
        Boundary("pool", (4, 4, 4)),
        Boundary("hidden", (32,)),
        Boundary("logits", (10,)),
    ),
    (Exit("early", 1, 10), Exit("final", 3, 10)),
)


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Regular and irregular patterns with and without an order of outputs."""
    n_in, tile, tiles = draw(st.integers(1, 8)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rows = [draw(st.lists(st.integers(0, n_in - 1), min_size=1, unique=True)) for _ in range(tiles)]
    widest = max(map(len, rows))
    index = np.array([row + [-1] * (widest - len(row)) for row in rows], dtype=np.int32)
    order = draw(
        st.none() | st.permutations(range(tile * tiles)).map(lambda o: np.array(o, np.int32))
    )
    return Pattern(n_in, tile, index, order)


@settings(max_examples=30)
@given(patterns())
def test_the_mask_has_exactly_the_pattern_s_connections(pattern: Pattern) -> None:
    mask = pattern.mask()
    assert mask.shape == (pattern.n_out, pattern.n_in)
    assert mask.sum() == pattern.connections == pattern.fan_out.sum()
    assert pattern.density == pytest.approx(mask.mean())
    np.testing.assert_array_equal(mask.sum(axis=0), pattern.fan_out)
    assert mask.sum(axis=1).max() == pattern.fan_in
    assert pattern.is_regular == (len(set(mask.sum(axis=1).tolist())) == 1)


@settings(max_examples=30)
@given(patterns())
def test_outputs_of_one_tile_share_their_inputs_after_out_order(pattern: Pattern) -> None:
    mask = pattern.mask() if pattern.out_order is None else pattern.mask()[pattern.out_order]
    tiles = mask.reshape(-1, pattern.tile, pattern.n_in)
    assert (tiles == tiles[:, :1]).all()


@settings(max_examples=30)
@given(patterns())
def test_a_partition_reads_every_input_in_one_tile_only(pattern: Pattern) -> None:
    assert pattern.is_partition == (pattern.is_regular and (pattern.fan_out == pattern.tile).all())


@settings(max_examples=20)
@given(patterns(), arrays(np.int32, 1))
def test_a_pattern_is_read_only(pattern: Pattern, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match="read-only"):
        pattern.index[0, 0] = value[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        pattern.tile = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("index", "tile", "message"),
    [
        ([[0, 3]], 1, r"inputs must be in 0\.\.2, got 0\.\.3"),
        ([[0, -2]], 1, r"inputs must be in 0\.\.2"),
        ([[1, 1]], 1, "reads one input twice"),
        ([[-1, 1]], 1, "-1 may only end a row"),
        ([[0]], 0, "tile >= 1"),
        ([0, 1], 1, r"tiles >= 1, fan_in >= 1"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(index: list, tile: int, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        Pattern(3, tile, np.array(index))


def test_out_order_must_be_a_permutation() -> None:
    with pytest.raises(PatternError, match=r"permutation of 0\.\.1"):
        Pattern(2, 1, np.array([[0], [1]]), np.array([0, 0]))


def test_boundaries_know_their_bytes() -> None:
    assert NET.boundaries[1].size == 64
    assert NET.boundaries[1].nbytes == 256
    assert Affine(0.1, 3).nbytes(NET.boundaries[1]) == 64
    assert Cast("float16").nbytes(NET.boundaries[1]) == 128


def test_exits_up_to_counts_the_boundary_itself() -> None:
    assert [e.name for e in NET.exits_up_to(0)] == []
    assert [e.name for e in NET.exits_up_to(1)] == ["early"]
    assert [e.name for e in NET.exits_up_to(NET.last)] == ["early", "final"]


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ((), "its own classifier as the last exit"),
        ((Exit("early", 1, 10),), "its own classifier as the last exit"),
        (
            (Exit("a", 2, 10), Exit("b", 1, 10), Exit("final", 3, 10)),
            r"rising, different boundaries.*\[2, 1, 3\]",
        ),
        ((Exit("same", 1, 10), Exit("same", 3, 10)), "different names"),
    ],
)
def test_a_net_whose_exits_cannot_be_is_refused(exits: tuple[Exit, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Net(NET.boundaries, exits)


def test_a_plan_that_names_what_the_net_lacks_is_refused() -> None:
    Plan(3, {"early": 0.5}).fits(NET)
    with pytest.raises(SpecError, match=r"split must be in 0\.\.3, got 4"):
        Plan(4).fits(NET)
    with pytest.raises(SpecError, match="no exit 'early' at or before split 0"):
        Plan(0, {"early": 0.5}).fits(NET)


@pytest.mark.parametrize(
    "value", [NET, Plan(1, {"early": 0.5}, "int8", deadline_s=0.05), Device("pi", 1e9, 1e9, 4.0)]
)
def test_a_value_survives_json(value: msgspec.Struct) -> None:
    raw = canonical_json(value)
    assert msgspec.json.decode(raw, type=type(value)) == value
    assert canonical_json(msgspec.json.decode(raw, type=type(value))) == raw


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"name":"a","shape":[0]}', Boundary),
        (b'{"name":"a","shape":[1],"colour":1}', Boundary),
        (b'{"split":-1}', Plan),
        (b'{"split":1,"deadline_s":0}', Plan),
        (b'{"name":"pi","macs_per_s":0,"memory_bytes":1,"power_w":1}', Device),
    ],
)
def test_a_stored_value_out_of_range_or_with_an_unknown_field_is_refused(
    raw: bytes, kind: type
) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=kind)


def test_an_answer_becomes_json_without_its_scores() -> None:
    answer = Answer(3, np.zeros(10, np.float32), "early", "edge", "confident", 0.002, 0, False, 1)
    assert msgspec.json.decode(canonical_json(answer.to_builtins())) == {
        "label": 3,
        "exit": "early",
        "where": "edge",
        "why": "confident",
        "elapsed_s": 0.002,
        "up_bytes": 0,
        "degraded": False,
        "split": 1,
        "row": None,
    }
