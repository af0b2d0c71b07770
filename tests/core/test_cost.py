"""The one cost formula covers every way a sample can end.

Nothing else decides a plan's numbers.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES, Outcome, counted, mean, outcomes, quantile
from presplit.core.types import Boundary, Costs, Device, Exit, Link, Net

NET = Net(
    tuple(Boundary(name, (4,)) for name in ("image", "one", "two", "logits")),
    (Exit("early", 1, 10), Exit("final", 3, 10)),
)
EDGE = Costs("edge", (0.010, 0.020, 0.030), (0.001, 0.0), (0.10, 0.20, 0.30), "measured", "")
SERVER = Costs("server", (0.0010, 0.0020, 0.0030), (0.0001, 0.0), (0.0, 0.0, 0.0), "measured", "")
LINK = Link("link", up_bps=8000, down_bps=8000, rtt_s=0.5, power_w=2.0)


def ways(split: int, leaves: dict[str, float], **more: float) -> list[Outcome]:
    return outcomes(
        NET,
        split=split,
        leaves=leaves,
        edge=EDGE,
        server=SERVER,
        link=LINK,
        payload_bytes=9,
        **more,
    )


@pytest.mark.parametrize("split", range(4))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_probabilities_of_all_outcomes_sum_to_one(split: int, share: float) -> None:
    found = ways(split, {"early": share})
    assert sum(outcome.probability for outcome in found) == pytest.approx(1)


def test_split_0_waits_for_the_server_alone_and_holds_an_answer_meanwhile() -> None:
    (only,) = ways(0, {})
    sent_s = (9 + WIRE_BYTES) / 1000
    assert only.seconds == pytest.approx(sent_s + 0.5 + 0.006 + REPLY_BYTES / 1000)
    assert only.joules == pytest.approx(
        2 * sent_s + 0.10 + 0.001 * 10
    )  # the early exit runs while it waits
    assert only.up_bytes == 9


def test_the_last_split_is_the_edge_alone() -> None:
    assert ways(3, {}) == [Outcome(1.0, pytest.approx(0.06), pytest.approx(0.6), 0.0)]


def test_an_exit_costs_its_own_layers_whether_or_not_it_answers() -> None:
    early, rest = ways(2, {"early": 0.25})
    assert (early.probability, early.seconds, early.up_bytes) == (0.25, pytest.approx(0.011), 0)
    assert early.joules == pytest.approx(
        0.10 + 0.001 * 10
    )  # the exit draws what the segments draw: 10 W
    assert ways(2, {}) == [
        Outcome(1.0, rest.seconds, rest.joules, 9)
    ]  # not named, it runs to be held


def test_an_exit_behind_the_split_or_not_named_answers_nothing() -> None:
    assert len(ways(0, {"early": 0.5})) == 1
    assert len(ways(2, {})) == 1


def test_queue_and_codec_delay_only_what_is_sent() -> None:
    early, rest = ways(2, {"early": 0.5})
    slow_early, slow_rest = ways(2, {"early": 0.5}, queue_s=1.0, codec_s=0.25)
    assert slow_early == early
    assert slow_rest.seconds == pytest.approx(rest.seconds + 1.25)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6),
    st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    st.randoms(),
)
def test_a_quantile_is_the_rank_among_samples(counts: list[int], q: float, random) -> None:
    counts[0] += 1
    times = [random.uniform(0, 1) for _ in counts]
    total = sum(counts)
    found = [Outcome(n / total, t, 0, 0) for n, t in zip(counts, times, strict=True)]
    samples = np.sort(np.repeat(times, counts))
    assert quantile(found, q) == samples[int(np.ceil(q * total - 1e-9)) - 1]
    assert mean(found, "seconds") == pytest.approx(samples.mean())


def test_counting_charges_the_overhead_only_where_something_is_computed() -> None:
    device = Device("pi", macs_per_s=1e6, memory_bytes=1e9, power_w=5.0, overhead_s=0.5)
    costs = counted(device, segment_macs=[1_000_000, 0], exit_macs=[500_000, 0], when="today")
    assert costs.segment_s == (1.5, 0.0)
    assert costs.exit_s == (1.0, 0.0)
    assert costs.segment_j == (7.5, 0.0)
    assert (costs.device, costs.how, costs.when) == ("pi", "counted", "today")
