"""A plan in words: it says where the split is, and says plainly when there should be none."""

from __future__ import annotations

from presplit import plan
from presplit.bundle import Bundle
from presplit.core.costs import Device
from presplit.core.link import Link
from presplit.core.plans import Estimate, Plan

PI, GPU, SLOW = (
    Device("pi", 1e9, 1e9, 5.0),
    Device("gpu", 1e12, 24e9, 450.0),
    Link("slow", 1e6, 1e6, 0.02),
)


def expected(edge_share: float, *, all_edge: bool = False) -> Estimate:
    return Estimate(0.01, 0.01, 0.02, 0.9, edge_share, 10, 0.1, 1e6, "measured", all_edge)


def test_a_split_is_explained_beside_the_baselines(bundle: Bundle) -> None:
    asked = {"device": PI, "link": SLOW, "server": GPU, "deadline_s": 0.1, "confidence": None}
    best = plan.search(bundle, **asked)
    lines = plan.explain(best, net=bundle.net).splitlines()
    assert lines[0] == "Split at boundary 1 (b1) of 0..3, sent as int8."
    assert lines[1].startswith(
        "An answer is given early by exit 'early' when its confidence is at least 0."
    )
    assert lines[2] == "Deadline: 100 ms, kept by 100.00 % of the answers."
    assert lines[3] == "Accuracy 95.00 % (88.82 to 97.85 on 100 held-out samples)."
    assert " times as fast as all-edge and " in lines[4]
    assert lines[5].startswith("The next best plan with another split, split 2 sent as int8 with 1")
    assert lines[6].startswith("It would be faster without the limit of the accuracy (")
    assert "no promise" in lines[7]
    ways = [line.split("  ")[0] for line in lines if " ms  " in line]
    assert ways == ["plan", *best.expected.beside]
    assert "Times of computing are counted" in lines[-2]


def test_a_plan_is_compared_with_the_best_codec_and_told_slower_than_what_does_not_fit(
    bundle: Bundle,
) -> None:
    fast, small = Device("fast", 1e12, 1e9, 5.0), Device("small", 1e12, 500_000, 5.0)
    limits = {"link": SLOW, "server": GPU, "confidence": None}
    best = plan.search(bundle, device=small, **limits)
    told = plan.explain(best, net=bundle.net)
    assert " times slower than all-edge, which does not fit there, and " in told
    beside = best.expected.beside
    sent = min(each.mean_s for name, each in beside.items() if name.startswith("all-server"))
    assert f"{sent / best.expected.mean_s:.3g} times as fast as all-server int8." in told
    assert "does not fit" not in plan.explain(plan.search(bundle, device=fast, **limits))
    assert "1 exits" not in told


def test_all_edge_is_called_do_not_split() -> None:
    for thresholds in ({}, {"early": 0.5}):
        text = plan.explain(Plan(3, thresholds, expected=expected(1.0, all_edge=True)))
        assert text.startswith("Do not split: the edge answers everything")


def test_a_split_that_no_sample_reached_is_still_a_split() -> None:
    text = plan.explain(Plan(2, {"early": 0.0}, expected=expected(1.0)))
    assert text.startswith("Split at boundary 2, sent as float32. Every held-out sample was")


def test_what_was_searched_is_explained_alike_with_the_net_and_without(bundle: Bundle) -> None:
    near = Link("near", 1e9, 1e9, 0.0001)
    for device, link in ((PI, SLOW), (GPU, SLOW), (PI, near)):
        best = plan.search(bundle, device=device, link=link, server=GPU)
        with_net, without = plan.explain(best, net=bundle.net), plan.explain(best)
        assert with_net.split()[:3] == without.split()[:3]


def test_all_server_is_called_do_not_split() -> None:
    text = plan.explain(Plan(0, codec="int8", expected=expected(0.0)))
    assert text.startswith(
        "Do not split: the server answers everything (split 0, the input sent as int8)."
    )


def test_a_plan_without_expectations_is_explained_without_numbers() -> None:
    assert plan.explain(Plan(2, {"early": 0.5})).splitlines() == [
        "Split at boundary 2, sent as float32.",
        "An answer is given early by exit 'early' when its confidence is at least 0.5000.",
    ]
