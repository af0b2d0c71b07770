"""What a live page is told: true numbers, few of them, and nothing that was not asked for."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.costs import Device
from presplit.core.link import Link
from presplit.core.plans import Estimate, Plan, PlannedFor, PlanTable, Row
from presplit.core.types import WHYS, Answer
from presplit.runtime.edge import Edge
from presplit.runtime.live.edge import EdgeLive
from presplit.runtime.live.known import known
from presplit.runtime.live.lately import SHOWN_S, TIMES, Lately
from presplit.runtime.live.page import showing
from presplit.runtime.live.picture import Pictures
from presplit.runtime.live.server import MOST_CLIENTS, ServerLive
from presplit.runtime.live.words import EDGE, SERVER
from presplit.runtime.serving.served import Served

IMAGE = np.zeros(16, np.float32)
ALONE = Plan(3, deadline_s=0.5)


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_last_minute_is_told_by_the_second_and_the_last_ten_seconds_as_a_rate():
    clock = Clock()
    lately = Lately(clock)
    for second in range(100):
        clock.now = 100.0 + second
        for _ in range(20):
            lately.add(0.01 * (second >= 50) + 0.002, ("why", "late" if second >= 95 else "server"))
    clock.now += 1.0
    seconds = lately.seconds(("why", "late"))
    assert len(seconds) == SHOWN_S
    assert [row[0] for row in seconds] == SHOWN_S * [20.0]
    assert [row[1] for row in seconds] == (SHOWN_S - 5) * [0.0] + 5 * [20.0]
    assert (seconds[0][2], seconds[-1][3]) == (0.002, 0.012)
    recent = lately.recent()
    assert recent.per_s == pytest.approx(20.0)
    assert recent.kinds["why", "late"] == 100
    assert lately.count == 2000 and lately.kinds["why", "server"] == 1900


def test_all_times_are_known_within_two_percent_and_take_no_room():
    lately = Lately(Clock())
    times = np.random.default_rng(0).lognormal(-5, 1.5, 5000)
    for seconds in times:
        lately.add(float(seconds))
    spread = lately.spread()
    assert spread.p50_s == pytest.approx(np.quantile(times, 0.5), rel=0.02)
    assert spread.p99_s == pytest.approx(np.quantile(times, 0.99), rel=0.05)
    assert lately.longest_s == times.max()
    # Of a sample of 512: its median's logarithm has a standard error of 0.083.
    assert lately.recent().spread.p50_s == pytest.approx(spread.p50_s, rel=0.4)
    held = [each for each in lately._seconds if each.times]
    assert len(held) == 1 and len(held[0].times) == TIMES


def answered(live: EdgeLive, edge: Edge, count: int) -> dict[str, Any]:
    """What is told once so many answers were counted."""
    until = time.monotonic() + 5
    while (now := live.now(edge))["answers"] < count and time.monotonic() < until:
        time.sleep(0.005)
    return now


def test_an_edge_tells_who_answered_and_why_and_by_which_row(bundle: Bundle):
    rows = [
        Row(ALONE, edge_s=0.001, asked=0, up_bytes=0, tail_s=0, accuracy=1, energy_j=0.25),
        Row(Plan(1), edge_s=0, asked=1, up_bytes=64, tail_s=9.0, accuracy=1, energy_j=4.0),
    ]
    table = PlanTable(tuple(rows))
    live = EdgeLive(bundle, table, asked=["127.0.0.1:1"])
    with Edge.open(bundle, table=table, server="127.0.0.1:1", watch=live) as edge:
        for _ in range(8):
            edge.answer(IMAGE)
        now = answered(live, edge, 8)
    assert now["whys"] == [
        {"name": "planned", "recent": 8, "whole": 8, "words": "the edge, as planned"}
    ]
    assert now["exits"] == [{"name": "final, edge", "recent": 8, "whole": 8}]
    assert [(plan["whole"], plan["current"]) for plan in now["plans"]] == [(8, True), (0, False)]
    assert now["energy"] == {"total_j": 2.0, "mean_j": 0.25}
    assert now["link"]["up_bps"] == table.usual.up_bps
    assert now["link"]["heard"] is not True, "what was planned is not what was seen"
    sent = bundle.payload_bytes(1, "float32")
    assert [plan["bytes"] for plan in now["plans"]] == [0.0, sent]
    assert now["servers"] == [{"address": "127.0.0.1:1", "asked": True, "why": "", "silent_s": 0.0}]
    assert now["deadline_s"] == 0.5 and now["missed"]["whole"] == 0
    assert json.dumps(now)


def test_a_server_that_the_plan_never_asks_is_told_as_not_asked(bundle: Bundle):
    live = EdgeLive(bundle, ALONE, asked=["127.0.0.1:1"])
    with Edge.open(bundle, plan=ALONE, server="127.0.0.1:1", watch=live) as edge:
        [server] = live.now(edge)["servers"]
    assert (server["asked"], server["why"]) == (False, "all stays on the edge, by the plan")


def test_a_server_that_is_not_there_is_told_as_not_asked(bundle: Bundle):
    plan = Plan(1, deadline_s=0.5)
    live = EdgeLive(bundle, plan, asked=["127.0.0.1:1"])
    with Edge.open(bundle, plan=plan, server="127.0.0.1:1", watch=live) as edge:
        for _ in range(6):
            edge.answer(IMAGE)
        now = answered(live, edge, 6)
    [server] = now["servers"]
    assert not server["asked"] and server["why"] and 0 < server["silent_s"] < 5
    assert now["whys"] == [{"name": "link_down", "recent": 6, "whole": 6, "words": "no connection"}]
    assert now["energy"] is None and now["link"] is None


def an_answer(elapsed_s: float = 0.01, up_bytes: int = 0) -> Answer:
    scores = np.zeros(4, np.float32)
    return Answer(2, scores, "final", "edge", "planned", elapsed_s, up_bytes, False, 3)


def test_what_was_sent_is_told_for_an_answer_and_every_why_has_words(bundle: Bundle):
    live = EdgeLive(bundle, ALONE)
    for up_bytes in (0, 0, 90):
        live(an_answer(up_bytes=up_bytes))
    with Edge.open(bundle, plan=ALONE) as edge:
        assert live.now(edge)["sent"] == {"recent_bytes": 30.0, "whole_bytes": 30.0}
    assert tuple(EDGE) == WHYS and set(SERVER) == set(WHYS)


def test_answers_beyond_the_deadline_are_counted_and_energy_is_the_plans_own(bundle: Bundle):
    expected = Estimate(0.1, 0.1, 0.1, 1, 1, 0, energy_j=0.5, macs=1, how="counted")
    pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    place = PlannedFor(pi, Link("lte", up_bps=5e6, down_bps=1e7, rtt_s=0.07), pi)
    plan = Plan(3, deadline_s=0.5, expected=expected, planned_for=place)
    live = EdgeLive(bundle, plan, deadline_s=0.02)
    with Edge.open(bundle, plan=ALONE) as edge:
        for elapsed_s in (0.01, 0.03, 0.4):
            live(an_answer(elapsed_s))
        now = live.now(edge)
    assert (now["deadline_s"], now["missed"]["whole"]) == (0.02, 2)
    assert now["energy"] == {"total_j": 1.5, "mean_j": 0.5}
    assert now["planned_for"] == "on pi with pi behind lte"


def test_no_image_is_kept_unless_it_is_asked_for(bundle: Bundle):
    with Edge.open(bundle, plan=ALONE) as edge:
        assert EdgeLive(bundle, ALONE).now(edge)["picture"] is None
    pictures = Pictures(("a", "b", "c"))
    assert pictures.now() is None
    large = np.linspace(-1, 1, 3 * 200 * 100, dtype=np.float32).reshape(3, 200, 100)
    pictures.keep(large, an_answer())
    pictures.keep(IMAGE, an_answer())  # at once after it: not kept
    found = pictures.now()
    assert found is not None
    assert (found["class"], found["width"], found["height"], found["channels"]) == ("c", 34, 67, 3)
    soon = Pictures()
    soon.keep(IMAGE, an_answer())
    assert "pixels" not in (soon.now() or {}), "a row of numbers is no picture"


def test_a_server_tells_what_became_of_requests_and_from_how_many():
    live = ServerLive()
    for number in range(MOST_CLIENTS + 5):
        live(Served("net-1.from-2", f"edge {number}", "server", 0.004, 1, 64, 16))
    live(Served("", "edge 1", "overloaded", 0.0, 0, 0))
    now = live.now()
    assert now["answers"] == MOST_CLIENTS + 5 and now["refused"]["whole"] == 1
    assert len(now["clients"]) == MOST_CLIENTS + 1
    assert {"name": "others", "recent": 5, "whole": 5} in now["clients"]
    assert now["whys"][0]["name"] == "server"
    assert now["times"]["whole"]["p99_s"] == pytest.approx(0.004, rel=0.03)
    assert json.dumps(now)


def test_a_page_gives_snapshots_and_is_found_as_long_as_it_is_there():
    told = {"kind": "edge", "answers": 7}
    with showing(0, lambda: told, files={"": ("text/html", b"page")}) as address:
        assert address in known()
        with urllib.request.urlopen(f"{address}/now") as reply:
            assert json.load(reply) == told
        with urllib.request.urlopen(f"{address}/events") as events:
            lines = [events.readline() for _ in range(5)]
    assert lines.count(b'data: {"kind":"edge","answers":7}\n') == 2
    assert address not in known()


def test_no_page_is_found_where_another_process_has_its_number_or_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with showing(0, dict, files={}) as address:
        [file] = tmp_path.rglob("[0-9]*")
        process, began, port = file.name.split("-")
        elsewhere = file.parents[1] / "another-machine" / file.name
        elsewhere.parent.mkdir()
        elsewhere.write_text("http://127.0.0.1:1")
        earlier = file.with_name(f"{process}-{int(began) - 1}-{port}")
        earlier.write_text(address)
        unheard = file.with_name(f"{process}-{began}-1")
        unheard.write_text("http://127.0.0.1:1")
        assert known() == [address]
        assert not unheard.exists(), "nobody answers there, so it is forgotten"
    assert known() == [] and not earlier.exists()
    assert elsewhere.exists(), "another machine's, with the same home"
