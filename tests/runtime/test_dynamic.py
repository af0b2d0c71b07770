"""An edge with a table answers by the row that suits the link, the server and itself at the time.

The closed loops have a real edge, a real server in this process, and a link that is delayed by a
model; they compare rows, because times are not this machine's alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from presplit.bundle import Bundle, read, write_plan
from presplit.core.cost import WIRE_BYTES
from presplit.core.errors import PlanError, SpecError
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlanTable, Row
from presplit.lab.delayed import Delayed
from presplit.lab.slow_device import Slowed
from presplit.runtime import Edge
from presplit.runtime.estimate import Estimate
from presplit.runtime.serving.server import hosting
from presplit.runtime.trip import Asked, Trip
from presplit.runtime.upstream import Failure, InProcess, Pending, Request

IMAGE = np.random.default_rng(0).random(16, dtype=np.float32)
HERE, AWAY = 0, 1


def row(
    plan: Plan,
    *,
    edge_s: float = 0.01,
    asked: float = 1.0,
    tail_s: float = 0.0,
    meanwhile_s: float | None = None,
    ask_s: float = 0.0,
) -> Row:
    sent = 155 if asked else 0
    parts = (plan, edge_s, asked, sent, tail_s)
    return Row(*parts, accuracy=0.9, meanwhile_s=meanwhile_s, ask_s=ask_s)


def link(whole_s: float) -> Link:
    """One over which asking takes about two and a half times as long as computing all here."""
    return Link("near", up_bps=1e7, down_bps=1e7, rtt_s=1.5 * whole_s)


@dataclass
class Scene:
    """An edge whose two rows keep all here or send all away, and what can be changed about it."""

    edge: Edge
    device: Slowed
    server: Slowed
    link: Delayed
    whole_s: float

    def rows(self, count: int) -> list[int | None]:
        return [self.edge.answer(IMAGE, deadline_s=5.0).row for _ in range(count)]

    def comes_to(self, wanted: int) -> bool:
        """True once most of five answers are by the row that is wanted, on a busy machine too."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if self.rows(5).count(wanted) >= 3:
                return True
        return False


@pytest.fixture
def scene(busy_bundle: Bundle) -> Iterator[Scene]:
    last = busy_bundle.net.last
    with Edge(busy_bundle, Plan(last)) as alone:
        whole_s = float(np.median([alone.answer(IMAGE).elapsed_s for _ in range(20)]))
    here, away = row(Plan(last), edge_s=whole_s, asked=0.0), row(Plan(0), edge_s=0, tail_s=whole_s)
    table = PlanTable((here, away), usual=Conditions(1e7, link(whole_s).rtt_s))
    device, server = Slowed(1), Slowed(1)
    hosted = hosting(busy_bundle, load=server)
    way = Delayed(InProcess(hosted), link(whole_s))
    with Edge(busy_bundle, table, upstream=way, load=device) as edge:
        yield Scene(edge, device, server, way, whole_s)
    hosted.close()


def test_a_device_that_becomes_slower_sends_more_and_comes_back(scene: Scene) -> None:
    assert scene.comes_to(HERE)
    scene.device.factor = 8
    assert scene.comes_to(AWAY)
    assert scene.edge.conditions is not None and scene.edge.conditions.device_factor > 3
    scene.device.factor = 1
    assert scene.comes_to(HERE)


def test_a_server_that_becomes_slower_is_left(scene: Scene) -> None:
    scene.device.factor = 8
    assert scene.comes_to(AWAY)
    scene.server.factor = 20
    assert scene.comes_to(HERE)


def test_in_an_outage_all_is_answered_here_and_afterwards_the_server_is_asked_again(
    scene: Scene,
) -> None:
    scene.device.factor = 8
    assert scene.comes_to(AWAY)
    scene.link.link = None
    answers = [scene.edge.answer(IMAGE, deadline_s=0.1) for _ in range(10)]
    assert {answer.row for answer in answers[-5:]} == {HERE}
    scene.link.link = link(scene.whole_s)
    assert scene.comes_to(AWAY)


def test_probes_are_few_and_only_where_answers_are_wanted(scene: Scene) -> None:
    scene.rows(5)
    time.sleep(0.3)
    before = scene.link.sent_bytes
    time.sleep(0.3)
    assert scene.link.sent_bytes == before
    began, sent = time.monotonic(), 0
    while time.monotonic() < began + 0.5:
        sent += scene.rows(1) == [AWAY]
    # One after 0.1, 0.2, 0.4 s; one more may be on its way.
    assert scene.link.sent_bytes - before <= (4 + sent) * (64 + WIRE_BYTES)


def test_traffic_that_shows_the_link_is_not_joined_by_probes(scene: Scene) -> None:
    scene.device.factor = 8
    assert scene.comes_to(AWAY)
    time.sleep(0.3)  # so long that a probe is due if only the time counts
    before = scene.edge.probed_bytes
    rows = scene.rows(3)
    if set(rows) == {AWAY}:  # else a busy machine had it look around
        assert scene.edge.probed_bytes == before


@pytest.mark.parametrize("as_welcome", [True, False])
def test_an_answer_here_ends_the_waiting_only_where_the_table_calls_it_as_welcome(
    busy_bundle: Bundle, as_welcome: bool
) -> None:
    """What runs while the reply is on its way is the first exit, in microseconds."""
    away = row(Plan(0, fallback="exit"), edge_s=0.0, meanwhile_s=0.001 if as_welcome else None)
    table = PlanTable((away,), usual=Conditions(1e7, 0.01))
    hosted = hosting(busy_bundle)
    far = Link("far", up_bps=1e7, down_bps=1e7, rtt_s=0.05)
    with Edge(busy_bundle, table, upstream=Delayed(InProcess(hosted), None)) as edge:
        answer = edge.answer(IMAGE, deadline_s=0.1)
        found = (answer.why, answer.where, answer.degraded, answer.elapsed_s < 0.08)
        expected = ("planned", "edge", False, True) if as_welcome else ("late", "edge", True, False)
        assert found == expected
    with Edge(busy_bundle, table, upstream=Delayed(InProcess(hosted), far)) as edge:
        assert edge.answer(IMAGE, deadline_s=5.0).where == ("edge" if as_welcome else "server")
    hosted.close()


def test_every_answer_says_its_row_and_its_split(busy_bundle: Bundle) -> None:
    table = PlanTable((row(Plan(2), asked=0.5), row(Plan(busy_bundle.net.last), asked=0.0)))
    seen = []
    with Edge(busy_bundle, table, watch=seen.append, split_policy="fixed") as edge:
        answer = edge.answer(IMAGE)
    assert (answer.row, answer.split, seen) == (1, busy_bundle.net.last, [answer])
    with Edge(busy_bundle, Plan(2)) as edge:
        answer = edge.answer(IMAGE)
        assert (answer.row, answer.split, edge.conditions) == (None, 2, None)


def test_a_policy_of_ones_own_chooses_and_learns(busy_bundle: Bundle) -> None:
    learned = []

    class Turns:
        def __init__(self, table: PlanTable) -> None:
            self.rows, self.count = len(table.rows), 0

        def choose(self, now: Conditions, *, within_s: float) -> int:
            assert within_s == 0.5 and now.up_bps > 0
            self.count += 1
            return self.count % self.rows

        def learn(self, row: int, answer: object) -> None:
            learned.append(row)

    table = PlanTable((row(Plan(1)), row(Plan(2)), row(Plan(busy_bundle.net.last), asked=0.0)))
    with Edge(busy_bundle, table, split_policy=Turns) as edge:
        answers = [edge.answer(IMAGE, deadline_s=0.5) for _ in range(4)]
    assert [answer.split for answer in answers] == [2, busy_bundle.net.last, 1, 2]
    assert learned == [1, 2, 0, 1]


def test_what_the_edge_goes_by_is_what_is_given_and_else_what_the_bundle_carries(
    bundle: Bundle, tmp_path: object
) -> None:
    import shutil

    path = shutil.copytree(bundle.path, f"{tmp_path}/planned.bundle")
    table = PlanTable((row(Plan(3), asked=0.0),))
    write_plan(read(path), Plan(1), table=table)
    with Edge.open(path) as own, Edge.open(path, plan=Plan(2)) as fixed:
        assert own.answer(IMAGE).row == 0
        assert (fixed.answer(IMAGE).row, fixed.answer(IMAGE).split) == (None, 2)
    with pytest.raises(SpecError, match="plan and table both say where to cut"):
        Edge.open(path, plan=Plan(1), table=table)
    with pytest.raises(PlanError, match="no exit 'none'"):
        Edge.open(path, table=PlanTable((row(Plan(3)), row(Plan(2, {"none": 0.5})))))
    with pytest.raises(SpecError, match="no split policy named 'tabel' .nearest: table"):
        Edge.open(path, split_policy="tabel")


def trip(*, ran_s: float = 0.0, usual_s: float = 0.0, asked: Asked | None = None) -> Trip:
    made = Trip()
    made.ran(ran_s, usual_s)
    made.asked = asked
    return made


@pytest.mark.parametrize("why", ["late", "planned"])
def test_a_reply_that_did_not_come_makes_the_link_slower(why: str) -> None:
    """Whether the deadline or an answer here was first; after the latter it is not down."""
    asking = row(Plan(1))
    estimate = Estimate(PlanTable((asking,), usual=Conditions(1e7, 0.02)))
    estimate.learn(asking, trip(asked=Asked(1000, 0.2, why)))  # pyright: ignore[reportArgumentType]
    now = estimate.now
    assert now.rtt_s + 8000 / now.up_bps > 0.2
    assert (estimate.sound_bps > now.up_bps) == (why == "late")


def test_what_the_server_says_tells_its_load_from_the_links() -> None:
    asking = row(Plan(1), tail_s=0.02)
    estimate = Estimate(PlanTable((asking,), usual=Conditions(1e7, 0.02)))
    for _ in range(5):
        estimate.learn(asking, trip(asked=Asked(1000, 0.104, "server", server_s=0.0809)))
    assert estimate.now.server_factor == pytest.approx(4, rel=0.01)
    assert estimate.now.rtt_s + 8000 / estimate.now.up_bps == pytest.approx(0.024, rel=0.05)


@pytest.mark.parametrize("times", [1, 20])
def test_what_messages_take_is_neither_the_servers_load_nor_the_links(times: int) -> None:
    """The server counts its own time alone; making and reading messages takes longer than that."""
    asking = row(Plan(1), tail_s=0.01, ask_s=0.03)
    estimate = Estimate(PlanTable((asking,), usual=Conditions(1e7, 0.02)))
    server_s = times * 0.01
    for _ in range(5):
        waited_s = 0.0208 + 0.03 + server_s
        asked = Asked(1000, waited_s, "server", server_s=server_s)
        estimate.learn(asking, trip(asked=asked))
    assert estimate.now.server_factor == pytest.approx(times, rel=0.05)
    assert estimate.now.rtt_s + 8000 / estimate.now.up_bps == pytest.approx(0.0208, rel=0.3)


def test_a_server_that_says_nothing_is_taken_as_planned_and_the_rest_as_the_links() -> None:
    asking = row(Plan(1), tail_s=0.02)
    estimate = Estimate(PlanTable((asking,), usual=Conditions(1e7, 0.02)))
    for _ in range(5):
        estimate.learn(asking, trip(asked=Asked(1000, 0.104, "server")))
    assert estimate.now.server_factor == 1
    assert estimate.now.rtt_s + 8000 / estimate.now.up_bps == pytest.approx(0.084, rel=0.05)


def test_a_server_that_sheds_requests_is_slower_and_not_the_link() -> None:
    asking = row(Plan(1), tail_s=0.02)
    estimate = Estimate(PlanTable((asking,), usual=Conditions(1e7, 0.02)))
    for _ in range(3):
        estimate.learn(asking, trip(asked=Asked(1000, 0.001, "overloaded")))
    assert (estimate.now.server_factor, estimate.now.up_bps) == (8, 1e7)
    estimate.learn(asking, trip(asked=Asked(1000, 0.04, "server", server_s=0.02)))
    assert estimate.now.server_factor == pytest.approx(1, rel=0.1)


def test_a_device_is_judged_by_what_it_took_at_opening_and_by_the_table() -> None:
    """Its load by the first, and by the second what the table says too little or too much."""
    own = row(Plan(3), edge_s=0.01, asked=0.0)
    estimate = Estimate(PlanTable((own,)))
    for _ in range(200):
        estimate.learn(own, trip(ran_s=0.005, usual_s=0.005), 0.02)
    assert estimate.now.device_factor == pytest.approx(2, rel=0.1)
    for _ in range(3):
        estimate.learn(own, trip(ran_s=0.02, usual_s=0.005), 0.08)
    assert estimate.now.device_factor == pytest.approx(8, rel=0.1)
    estimate.learn(own, trip(ran_s=1.0, usual_s=0.005), 1.0)
    assert estimate.now.device_factor == pytest.approx(8, rel=0.1)


def test_nobody_to_ask_is_found_out_and_all_is_answered_here(busy_bundle: Bundle) -> None:
    asks = row(Plan(1), edge_s=0.0001, tail_s=0.0001)
    alone = row(Plan(busy_bundle.net.last), edge_s=0.002, asked=0.0)
    table = PlanTable((asks, alone), usual=Conditions(1e9, 0.0001))
    with Edge(busy_bundle, table) as edge:
        answers = [edge.answer(IMAGE) for _ in range(6)]
    assert answers[0].why == "link_down"
    assert {answer.why for answer in answers[2:]} == {"planned"}


def test_a_row_that_the_server_refuses_is_left_and_says_nothing_of_the_link(
    busy_bundle: Bundle,
) -> None:
    class Picky:
        """Takes float32 alone, as a server without a codec's library does."""

        def __init__(self, inner: InProcess) -> None:
            self.inner, self.refused = inner, 0

        def greet(self, name: str) -> None:
            pass

        def ask(self, request: Request, until: float) -> Pending | Failure:
            if "float16" in request.model:
                self.refused += 1
                return Failure("refused", "no such codec")
            return self.inner.ask(request, until)

        def close(self) -> None:
            pass

    lean, plain = row(Plan(0, codec="float16"), edge_s=0.0), row(Plan(0), edge_s=0.0, tail_s=0.002)
    here = row(Plan(busy_bundle.net.last), edge_s=1.0, asked=0.0)
    hosted = hosting(busy_bundle)
    picky = Picky(InProcess(hosted))
    with Edge(busy_bundle, PlanTable((lean, plain, here)), upstream=picky) as edge:
        answers = [edge.answer(IMAGE, deadline_s=5.0) for _ in range(20)]
        time.sleep(0.3)
        answers += [edge.answer(IMAGE, deadline_s=5.0) for _ in range(20)]
        assert edge.conditions is not None and edge.conditions.rtt_s < 0.1
    hosted.close()
    assert [answer.why for answer in answers[:2]] == ["refused", "server"]
    assert {answer.row for answer in answers[1:]} == {1}
    assert picky.refused <= 3  # an answer and a probe or two, not again and again
