"""A plan in its parts: they sum to its mean time, and everyone's answers to all answers."""

from __future__ import annotations

import numpy as np
import pytest

from presplit.core.errors import PlanError
from presplit.core.plans import Gateway, Plan
from presplit.plan.parts import answers, block_of, ends, parts, quantiles
from presplit.plan.search import plans
from presplit.plan.synthetic import synthetic

FOUND = synthetic(boundaries=4, exits=2, codecs=2, samples=60, draws=8)


def test_parts_and_answers_are_those_of_the_plan_that_was_evaluated() -> None:
    every = plans(FOUND, deadline_s=0.02)
    for plan in every[:: len(every) // 40]:
        expected, block = plan.expected, block_of(FOUND, plan)
        assert expected is not None
        assert sum(part.seconds for part in parts(block)) == pytest.approx(expected.mean_s)
        assert quantiles(block, [0.5, 0.99]) == pytest.approx([expected.p50_s, expected.p99_s])
        shares = answers(block)
        assert sum(shares.values()) == pytest.approx(1)
        assert [*shares] == [*plan.thresholds, "final"]
        if not expected.all_edge:
            assert 1 - shares["final"] == pytest.approx(expected.edge_share)
        ways = ends(block)
        assert ways[-1].of == ("edge" if expected.all_edge else "server")
        mean_s = sum(end.share * end.times.mean_s for end in ways)
        assert mean_s == pytest.approx(expected.mean_s)
        again = block.plans(np.array([0]), deadline_s=0.02)[0]
        assert again.expected is not None
        assert again.expected.accuracy == pytest.approx(expected.accuracy)
        assert again.expected.in_time == pytest.approx(expected.in_time)


def test_whose_a_part_is_follows_the_way_of_a_sample() -> None:
    alone = parts(block_of(FOUND, Plan(4)))
    assert {part.of for part in alone} == {"edge"}
    sent = parts(block_of(FOUND, Plan(2)))
    order = ["edge", "link", "server"]
    assert [part.of for part in sent] == sorted((part.of for part in sent), key=order.index)
    assert {part.of for part in sent} == set(order)


def test_a_plan_that_cannot_be_taken_apart_is_refused() -> None:
    with pytest.raises(PlanError, match="a plan with a gateway has its parts on three machines"):
        block_of(FOUND, Plan(1, gateway=Gateway(2)))
    with pytest.raises(PlanError, match="split 1 by codec9 from float32 to float32"):
        block_of(FOUND, Plan(1, codec="codec9"))
