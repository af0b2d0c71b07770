"""Two splits planned together: what a gateway cannot do better is as without one; it says so."""

from __future__ import annotations

import msgspec
import pytest

from presplit import plan
from presplit.bundle import Bundle
from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.costs import Costs, Device, Parts
from presplit.core.errors import PlanError
from presplit.core.link import Link
from presplit.core.plans import Gateway, Plan
from presplit.core.times import NOTHING, Times

PI, BOX, GPU = (
    Device("pi", 1e9, 1e9, 5.0),
    Device("box", 2e10, 8e9, 30.0),
    Device("gpu", 1e12, 24e9, 450.0),
)
SLOW, WIFI = Link("slow", 1e6, 1e6, 0.02), Link("wifi", 3e7, 3e7, 0.003)
AT_ONCE, NEVER = Link("at once", 1e20, 1e20, 0.0), Link("never", 1.0, 1.0, 1000.0)
CLOSE = 1e-9


def edge_part(found: Plan) -> tuple[object, ...]:
    return (found.split, found.thresholds, found.codec)


@pytest.mark.parametrize("confidence", [None, 0.9])
@pytest.mark.parametrize("link", [SLOW, WIFI])
def test_a_gateway_of_no_use_changes_nothing(
    bundle: Bundle, link: Link, confidence: float | None
) -> None:
    asked = {"device": PI, "link": link, "deadline_s": 0.2, "confidence": confidence}
    # It computes as good as nothing in time, and is asked on at once: it only passes on.
    snail = Device("snail", 1.0, 1e9, 1.0)
    without = plan.search(bundle, server=GPU, **asked)
    passing = plan.search(bundle, server=GPU, gateway=snail, uplink=AT_ONCE, **asked)
    assert edge_part(passing) == edge_part(without)
    if passing.gateway is not None:
        assert (passing.gateway.split, passing.gateway.codec) == (passing.split, passing.codec)
    assert passing.expected.mean_s == pytest.approx(without.expected.mean_s, rel=CLOSE)
    assert passing.expected.in_time == without.expected.in_time
    # Nobody is behind it: it is the server.
    alone = plan.search(bundle, server=GPU, gateway=BOX, uplink=NEVER, **asked)
    server = plan.search(bundle, server=BOX, **asked)
    assert edge_part(alone) == edge_part(server)
    assert alone.gateway is None or alone.gateway.split == bundle.net.last
    assert alone.expected.mean_s == pytest.approx(server.expected.mean_s, rel=CLOSE)


def test_a_gateway_between_a_fast_and_a_slow_link_computes_and_answers(bundle: Bundle) -> None:
    where = {"device": PI, "link": WIFI, "server": GPU, "confidence": None}
    best = plan.search(bundle, gateway=BOX, uplink=SLOW, **where)
    far = plan.search(bundle, **{**where, "link": SLOW})
    assert best.gateway is not None and best.expected.mean_s < far.expected.mean_s
    assert best.expected.gateway_share > 0
    # What two links and three machines take, by hand: with nothing but the gateway's own exit.
    del where["confidence"]
    every = plan.candidates(bundle, gateway=BOX, uplink=SLOW, **where)
    (found,) = [
        each
        for each in every
        if (each.split, each.codec, each.thresholds) == (0, "float32", {})
        and each.gateway is not None
        and (each.gateway.split, each.gateway.codec, list(each.gateway.thresholds))
        == (1, "int8", [])
    ]
    up_s = 8 * (40_000 + WIRE_BYTES) / 3e7 + 8 * REPLY_BYTES / 3e7 + 0.003
    at_gateway_s = (10_000_000 + 10_000) / 2e10  # its exit runs too: it holds an answer
    on_s = 8 * (1000 + WIRE_BYTES) / 1e6 + 8 * REPLY_BYTES / 1e6 + 0.02
    expected_s = up_s + at_gateway_s + on_s + 80_000_000 / 1e12
    assert found.expected.mean_s == pytest.approx(expected_s, rel=CLOSE)
    assert (found.expected.up_bytes, found.expected.edge_share) == (40_000, 0.0)
    assert found.gateway.spare_s == pytest.approx(up_s)


def test_two_cuts_that_both_lose_are_not_weighed_for_nobody_measured_them(bundle: Bundle) -> None:
    every = plan.candidates(bundle, device=PI, link=WIFI, server=GPU, gateway=BOX, uplink=SLOW)
    pairs = {
        (p.codec, p.gateway.codec, p.gateway.split > p.split, bool(p.gateway.thresholds))
        for p in every
        if p.gateway is not None
    }
    assert pairs == {
        ("float32", "float32", False, False),  # passed on
        ("int8", "int8", False, False),
        ("float32", "int8", False, False),  # re-encoded
        ("float32", "float32", True, False),
        ("float32", "float32", True, True),
        ("float32", "int8", True, False),
        ("float32", "int8", True, True),
        ("int8", "float32", True, False),
    }


def test_a_plan_with_a_gateway_is_told_in_words(bundle: Bundle) -> None:
    where = {"device": PI, "link": WIFI, "server": GPU, "confidence": None}
    best = plan.search(bundle, gateway=BOX, uplink=SLOW, **where)
    text = plan.explain(best, net=bundle.net)
    assert "at the gateway" in text and "all-gateway" in text and "all-server int8" in text
    assert "at the gateway" not in plan.explain(plan.search(bundle, **where))
    for gateway, words in (
        (Gateway(1, codec="int8"), "The gateway passes that on to the server as it is."),
        (Gateway(1), "The gateway re-encodes it, sent to the server as float32."),
        (Gateway(2, {"late": 0.5}), "The gateway goes on to boundary 2, sent to the server as"),
        (Gateway(2, {"late": 0.5}), "There an answer is given by exit 'late' when its confidence"),
    ):
        assert words in plan.explain(Plan(1, codec="int8", gateway=gateway))
    alone = plan.search(bundle, gateway=BOX, uplink=NEVER, **{**where, "device": GPU, "link": SLOW})
    if alone.gateway is not None:
        assert "the server is not asked" in plan.explain(alone)
    assert msgspec.json.decode(msgspec.json.encode(best), type=Plan) == best


def test_a_gateway_needs_a_link_of_its_own_and_costs_of_this_net(bundle: Bundle) -> None:
    where = {"device": PI, "link": WIFI, "server": GPU}
    for half in ({"gateway": BOX}, {"uplink": SLOW}):
        with pytest.raises(PlanError, match="give both the gateway and the uplink"):
            plan.search(bundle, **where, **half)
    other = Costs("box", {"float32": Parts.added([NOTHING], [NOTHING])}, "measured", "2026-01-01")
    with pytest.raises(PlanError, match="gateway_costs: this net has 3 segments"):
        plan.search(bundle, **where, gateway=BOX, uplink=SLOW, gateway_costs=other)


def test_a_gateway_that_was_asleep_wakes_up_once() -> None:
    parts = Parts.added([Times.of(1), Times.of(2), Times.of(4)], [NOTHING])
    awake = msgspec.structs.replace(parts, wake_s=0.25)
    for cut in ((1, 2), (1, 3), (2, 3)):
        asleep = awake.stretch_s(*cut, awake=False).mean_s
        assert asleep == pytest.approx(awake.stretch_s(*cut).mean_s + 0.25)
    assert awake.stretch_s(1, 3, awake=False) == awake.tail_s[1]
