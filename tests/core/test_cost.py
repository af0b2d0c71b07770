"""The one cost formula covers every way a sample can end; nothing else decides a plan's numbers."""

from __future__ import annotations

import msgspec
import pytest

from presplit.core.cost import (
    REPLY_BYTES,
    WIRE_BYTES,
    Outcome,
    answer_by,
    counted,
    outcomes,
)
from presplit.core.costs import Costs, Device, Parts
from presplit.core.link import Link
from presplit.core.times import Times
from presplit.core.types import Boundary, Exit, Net

NET = Net(
    tuple(Boundary(name, (4,)) for name in ("image", "one", "two", "logits")),
    (Exit("early", 1, 10), Exit("final", 3, 10)),
)


def times(*seconds: float) -> tuple[Times, ...]:
    return tuple(map(Times.of, seconds))


def of_segments(
    name: str, segment_s: tuple[Times, ...], exit_s: tuple[Times, ...], **more: float
) -> Costs:
    """Measured costs whose segments simply add up."""
    return Costs(name, {"float32": Parts.added(segment_s, exit_s)}, "measured", "", **more)


EDGE = of_segments("edge", times(0.01, 0.02, 0.03), times(0.001, 0), power_w=10)
SERVER = of_segments("server", times(0.001, 0.002, 0.003), times(0, 0))
LINK = Link("link", up_bps=8000, down_bps=8000, rtt_s=0.5, power_w=2.0)


def ways(split: int, used: set[str], *, edge: Costs = EDGE, **more: Times) -> list[Outcome]:
    return outcomes(
        NET,
        split=split,
        used=used,
        edge=edge,
        server=SERVER,
        link=LINK,
        codec="int8",
        payload_bytes=9,
        **more,
    )


def test_split_0_waits_for_the_server_alone() -> None:
    (only,) = ways(0, set())
    sent_s = (9 + WIRE_BYTES) / 1000
    assert only.time.mean_s == pytest.approx(sent_s + 0.5 + 0.006 + REPLY_BYTES / 1000)
    # What the device itself could do begins only where no reply comes.
    assert only.joules == pytest.approx(2 * sent_s)
    assert only.up_bytes == 9


def test_the_last_split_is_the_edge_alone() -> None:
    (only,) = ways(3, set())
    assert (only.time.mean_s, only.joules) == (pytest.approx(0.06), pytest.approx(0.6))
    assert only.up_bytes == 0


def test_an_exit_costs_its_own_layers_whether_or_not_it_answers() -> None:
    early, rest = ways(2, {"early"})
    assert (early.time.mean_s, early.up_bytes) == (pytest.approx(0.011), 0)
    assert early.joules == pytest.approx(0.10 + 0.001 * 10)
    assert ways(2, set()) == [rest]  # not named, it runs to be held


def test_an_exit_behind_the_split_answers_nothing() -> None:
    assert len(ways(0, {"early"})) == 1


def test_queue_and_codec_delay_only_what_is_sent() -> None:
    coding = times(0, 0, 0.25, 0)
    slow = msgspec.structs.replace(EDGE, encode_s={"int8": coding})
    early, rest = ways(2, {"early"})
    slow_early, slow_rest = ways(2, {"early"}, edge=slow, queue=Times.of(1.0))
    assert slow_early == early
    assert slow_rest.time.mean_s == pytest.approx(rest.time.mean_s + 1.25)


def test_a_way_s_mean_bounds_and_odds_are_those_of_its_composed_time() -> None:
    way = Outcome((Times((0.1, 0.3)), Times((0.2, 0.4)), Times.of(1.0)), 1.0, 8.0)
    assert way.mean_s == pytest.approx(way.time.mean_s) == pytest.approx(1.5)
    assert way.bounds_s == (pytest.approx(1.3), pytest.approx(1.7))
    # All pairs of draws are met, more than the two that the composed time keeps.
    assert [way.within(seconds) for seconds in (1.2, 1.4, 1.6, 1.8)] == [0, 0.25, 0.75, 1]
    both = way.then(Outcome((Times.of(0.5),), 2.0, 4.0))
    assert (both.joules, both.up_bytes) == (3.0, 12.0)
    assert both.mean_s == pytest.approx(2.0)


def test_asking_delays_what_is_sent_alone() -> None:
    early, rest = ways(2, {"early"})
    edge = msgspec.structs.replace(EDGE, ask_s=Times.of(0.25))
    asking_early, asking_rest = ways(2, {"early"}, edge=edge)
    assert asking_early.time == early.time
    assert asking_rest.time.mean_s == pytest.approx(rest.time.mean_s + 0.25)


def test_waking_up_is_paid_once_on_the_edge() -> None:
    parts = Parts.added(times(1, 2, 3), times(0.5, 0), call_s=0.25)
    awake = msgspec.structs.replace(parts, wake_s=0.25)
    for cut in ((0, 1), (0, 3)):
        assert awake.stretch_s(*cut) == parts.stretch_s(*cut)
    for cut in ((1, 2), (1, 3), (2, 3)):
        less = parts.stretch_s(*cut).mean_s - 0.25
        assert awake.stretch_s(*cut).mean_s == pytest.approx(less)
    assert awake.scaled(2).wake_s == 0.5


def test_only_who_asks_a_server_keeps_a_margin_back() -> None:
    assert answer_by(0.004, asks=False) == 0.004
    assert answer_by(0.050, asks=True) == pytest.approx(0.045)


def test_counting_charges_the_overhead_once_for_each_call_of_an_engine() -> None:
    device = Device("pi", macs_per_s=1e6, memory_bytes=1e9, power_w=5.0, overhead_s=0.5)
    costs = counted(device, segment_macs=[1_000_000, 0], exit_macs=[500_000, 0], when="today")
    parts = costs.forms["float32"]
    assert parts.head_s == times(0.0, 1.5, 1.5)
    assert parts.tail_s == times(1.5, 0.5, 0.0)
    assert parts.exit_s == times(0.5, 0.0)
    assert (costs.device, costs.how, costs.when, costs.power_w) == ("pi", "counted", "today", 5)
