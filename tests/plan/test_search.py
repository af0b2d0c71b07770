"""Planning a bundle: an example to learn from, the choices that must come out, and the refusals."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from presplit import plan
from presplit.bundle import Bundle
from presplit.core.costs import Costs, Device, Parts
from presplit.core.errors import BundleError, PlanError, SpecError
from presplit.core.link import Link
from presplit.core.plans import Plan
from presplit.core.times import Times
from presplit.core.types import Boundary, Exit, Net
from presplit.plan.evaluate import LEVELS, MOST_COMBINATIONS, evaluate
from presplit.plan.scenario import scenario
from presplit.profiles import DEVICES, LINKS

PI, GPU = Device("pi", 1e9, 1e9, 5.0), Device("gpu", 1e12, 24e9, 450.0)
SLOW, FAST = Link("slow", 1e6, 1e6, 0.02), Link("fast", 1e9, 1e9, 0.001)


def edited(bundle: Bundle, **changes: object) -> Bundle:
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, **changes), bundle._files)


def bare(best: Plan) -> Plan:
    """The plan without the reasons, and without where it is for."""
    expected = msgspec.structs.replace(best.expected, why=(), beside={})
    return msgspec.structs.replace(best, expected=expected, planned_for=None)


def times(*seconds: float) -> tuple[Times, ...]:
    return tuple(map(Times.of, seconds))


def of_segments(
    name: str, segment_s: tuple[Times, ...], exit_s: tuple[Times, ...], **more: float
) -> Costs:
    """Measured costs whose segments simply add up."""
    return Costs(name, {"float32": Parts.added(segment_s, exit_s)}, "measured", "", **more)


def test_a_split_with_an_exit_wins_where_the_head_is_cheap_and_the_input_large(
    bundle: Bundle,
) -> None:
    best = plan.search(bundle, device=PI, link=SLOW, server=GPU, confidence=None)
    assert (best.split, best.codec, list(best.thresholds)) == (1, "int8", ["early"])
    assert best.expected is not None
    # The 80 samples that the exit gets right leave there; the server gets 15 of the other 20 right.
    assert best.expected.edge_share == pytest.approx(0.80)
    assert best.expected.accuracy == pytest.approx(0.95)
    assert best.expected.up_bytes == pytest.approx(0.20 * 1000)
    assert best.expected.macs == pytest.approx(10_000_000 + 10_000)
    assert best.expected.how == "counted"
    best.fits(bundle.net)


def test_the_server_does_everything_where_the_link_is_free(bundle: Bundle) -> None:
    best = plan.search(bundle, device=PI, link=FAST, server=GPU, confidence=None)
    assert (best.split, best.thresholds, best.codec) == (0, {}, "int8")
    assert best.expected is not None
    beside = plan.baselines(bundle, device=PI, link=FAST, server=GPU)
    assert best.expected.beside == {name: other.expected for name, other in beside.items()}
    assert bare(best) == beside["all-server int8"]


def test_the_edge_does_everything_where_the_link_is_hopeless(bundle: Bundle) -> None:
    best = plan.search(bundle, device=PI, link="nb-iot", server=GPU, max_drop=0.0, confidence=None)
    assert best.expected is not None
    assert best.expected.edge_share == 1 and best.split == bundle.net.last


def test_memory_keeps_a_head_off_the_device(bundle: Bundle) -> None:
    small = Device(
        "small", 1e9, 4 * 100_000 + 4_000, 5.0
    )  # one segment and its exit (4,000 bytes) fit, no more
    best = plan.search(bundle, device=small, link=SLOW, server=GPU, confidence=None)
    assert best.split <= 1
    tiny = Device(
        "tiny", 1e9, 4 * 100_000 + 3_999, 5.0
    )  # not even the exit that would hold an answer
    with pytest.raises(
        PlanError, match="no plan fits the device's memory of 404 kB: the smallest holds weights of"
    ):
        plan.search(bundle, device=tiny, link=SLOW, server=GPU)


def test_no_plan_of_the_candidates_is_faster_than_the_best(bundle: Bundle) -> None:
    asked = {"device": PI, "link": SLOW, "server": GPU}
    best, tried = (
        plan.search(bundle, **asked, max_drop=0.02, confidence=None),
        plan.candidates(bundle, **asked),
    )
    assert bare(best) in tried
    allowed = [p for p in tried if p.expected and p.expected.accuracy >= 0.93 - 1e-9]
    assert best.expected and best.expected.mean_s == min(
        p.expected.mean_s for p in allowed if p.expected
    )
    # Split 0 has no exit: 2 codecs; splits 1 and 2: 2 codecs x ("never" + 21); split 3: one codec
    # x ("never" + 21).
    assert len(tried) == 2 + 2 * 2 * (1 + LEVELS) + (1 + LEVELS)


def test_candidates_and_baselines_carry_the_deadline(bundle: Bundle) -> None:
    asked = {"device": PI, "link": SLOW, "server": GPU, "deadline_s": 1.0}
    assert {p.deadline_s for p in plan.candidates(bundle, **asked)} == {1.0}
    both = plan.baselines(bundle, **asked)
    assert {name: (p.split, p.codec) for name, p in both.items()} == {
        "all-edge": (3, "float32"),
        "all-server": (0, "float32"),
        "all-server int8": (0, "int8"),
    }
    assert all(not p.thresholds and p.deadline_s == 1.0 for p in both.values())


def test_names_and_objects_are_the_same(bundle: Bundle) -> None:
    named = plan.search(bundle, device="raspberry-pi-4", link="lte", server="rtx-4090")
    given = plan.search(
        bundle, device=DEVICES["raspberry-pi-4"], link=LINKS["lte"], server=DEVICES["rtx-4090"]
    )
    assert named == given


def test_equal_times_are_decided_by_fewer_bytes_then_the_smaller_split(bundle: Bundle) -> None:
    free = of_segments("free", times(0.0) * 3, times(0.0) * 2)
    endless = Link("endless", up_bps=1e300, down_bps=1e300, rtt_s=0.0)
    asked = {"device": PI, "link": endless, "server": GPU, "edge_costs": free, "server_costs": free}
    best = plan.search(bundle, **asked)
    assert best.expected is not None
    # All times are 0. No bytes at all: everything leaves at the exit (too inaccurate), or the edge
    # runs to the end.
    assert (best.split, best.expected.up_bytes) == (3, 0)
    assert best.expected.accuracy == 0.95  # and of those the most accurate


@pytest.mark.parametrize(
    ("edge", "server", "how"),
    [
        (True, True, "measured"),
        (True, False, "edge measured, server counted"),
        (False, False, "counted"),
    ],
)
def test_a_plan_says_how_its_costs_were_reached(
    bundle: Bundle, edge: bool, server: bool, how: str
) -> None:
    measured = of_segments("here", times(0.01) * 3, times(0.001, 0.0), power_w=10)
    costs = {"edge_costs": measured if edge else None, "server_costs": measured if server else None}
    best = plan.search(bundle, device=PI, link=SLOW, server=GPU, **costs)
    assert best.expected is not None and best.expected.how == how


def test_more_exits_get_fewer_levels_and_stay_within_the_bound(bundle: Bundle) -> None:
    found = scenario(bundle, device=PI, link=SLOW, server=GPU)
    count = 5
    net = Net(
        tuple(Boundary(f"b{k}", (4,)) for k in range(count + 2)),
        tuple(Exit(f"e{k}", k + 1, 10) for k in range(count)) + (Exit("final", count + 1, 10),),
    )
    costs = of_segments("any", times(0.01) * (count + 1), times(0.001) * count + times(0.0))
    random = np.random.default_rng(0)
    wide = dataclasses.replace(
        found,
        net=net,
        edge=costs,
        server=costs,
        segment_macs=(1,) * (count + 1),
        segment_weights=(1,) * (count + 1),
        exit_macs=(1,) * count + (0,),
        exit_weights=(1,) * count + (0,),
        payload_bytes=({"int8": 4},) * (count + 2),
        scores={"float32": random.random((count + 1, 50)).astype(np.float32)},
        worth={},
        hits={"float32": random.random((count + 1, 50)) < 0.9},
    )
    at_the_end = sum(len(block.mean_s) for block in evaluate(wide) if block.split == net.last)
    assert 1000 < at_the_end <= MOST_COMBINATIONS


def test_an_impossible_deadline_is_refused_with_the_nearest_numbers(bundle: Bundle) -> None:
    with pytest.raises(
        PlanError,
        match=(
            r"deadline_s = 1 ms .* of 0\.99 and an accuracy of 94\.50 %: .* "
            r"the fastest takes 40\.7 ms \(split 1, codec int8\)"
        ),
    ):
        plan.search(bundle, device=PI, link=SLOW, server=GPU, deadline_s=0.001, confidence=None)
    with pytest.raises(
        PlanError,
        match=r"in time the best is 80\.00 %; allow a longer deadline_s or a larger",
    ):
        plan.search(bundle, device=PI, link=SLOW, server=GPU, deadline_s=0.011, confidence=None)


def test_what_is_asked_must_make_sense(bundle: Bundle) -> None:
    asked = {"device": PI, "link": SLOW, "server": GPU}
    with pytest.raises(SpecError, match=r"deadline_s: expected `float` > 0\.0, got 0"):
        plan.search(bundle, **asked, deadline_s=0)
    with pytest.raises(SpecError, match=r"max_drop: expected `float` <= 1\.0, got 5"):
        plan.search(bundle, **asked, max_drop=5)
    with pytest.raises(SpecError, match=r"no device named 'raspberry-pi' \(nearest: "):
        plan.search(bundle, device="raspberry-pi", link=SLOW, server=GPU)


def test_costs_of_another_net_are_refused(bundle: Bundle) -> None:
    other = of_segments("other", times(0.01) * 5, times(0.0))
    with pytest.raises(
        PlanError, match="edge_costs: this net has 3 segments and 2 exits, the costs in float32"
    ):
        plan.search(bundle, device=PI, link=SLOW, server=GPU, edge_costs=other)


def test_a_bundle_without_held_out_scores_cannot_be_planned(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"small\.bundle: holds no validation scores"):
        plan.search(edited(bundle, validation=None), device=PI, link=SLOW, server=GPU)


def test_a_net_in_which_nothing_counts_must_be_measured(bundle: Bundle) -> None:
    parts = tuple(msgspec.structs.replace(part, macs=0) for part in bundle.manifest.segments)
    manifest = msgspec.structs.replace(bundle.manifest, segments=parts)
    free = dataclasses.replace(bundle, manifest=manifest)
    with pytest.raises(PlanError, match="a counted time would be 0 s; give costs that presplit"):
        plan.search(free, device=PI, link=SLOW, server=GPU)


def test_what_may_run_without_a_server_is_what_the_device_holds(bundle: Bundle) -> None:
    """All of the net where there is the memory, else the next exit; or what is asked."""
    around = {"device": PI, "link": SLOW, "server": GPU, "confidence": None}
    whole = 4 * (3 * 100_000 + 1000)
    assert plan.search(bundle, **around).fallback == "deepest"
    small = plan.search(bundle, **around, max_memory_bytes=whole - 1)
    assert (small.split, small.fallback) == (1, "exit")
    asked = plan.search(bundle, **around, max_memory_bytes=whole, fallback="none")
    assert (asked.split, asked.fallback) == (1, "none")
    # What holds the whole net for a fault may as well answer with it.
    alone = plan.search(bundle, **around, max_memory_bytes=whole - 1, fallback="deepest")
    assert alone.split == bundle.net.last
    # Without an exit on the way there would be no answer at all.
    assert plan.search(bundle, **around | {"link": FAST}, max_drop=0.0).split == 0
    told = plan.search(bundle, **around | {"link": FAST}, max_drop=0.0, fallback="none")
    assert told.split > 0
    rows = plan.table(bundle, **around, fallback="none").rows
    assert {row.plan.fallback for row in rows} == {"none"}
    assert all(row.plan.split for row in rows)
