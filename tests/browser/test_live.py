"""The live pages in a real browser: numbers move, hands change the link, an end is told."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.cli.live import page_files
from presplit.core.costs import Device
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlannedFor, PlanTable, Row
from presplit.core.types import Answer
from presplit.lab.live_demo import Ready, playing
from presplit.lab.processes import end, free_port
from presplit.runtime.edge import Edge
from presplit.runtime.live.edge import EdgeLive
from presplit.runtime.live.page import showing

small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))
LINK = Link("lab", up_bps=10e6, down_bps=10e6, rtt_s=0.01)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small["small_bundle"](tmp_path_factory.mktemp("live") / "small.bundle", seed=1)


def begun(*words: str) -> tuple[subprocess.Popen[str], str]:
    """A verb in a process of its own, and the address of its live page as it says it to people."""
    command = [sys.executable, "-m", "presplit", *words, "--live", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"Live: (http://127\.0\.0\.1:\d+)", line):
            return process, found[1]
    raise AssertionError("it ended without a page")


@pytest.fixture(scope="module")
def running(bundle: Bundle) -> Iterator[Any]:
    """A server and an edge, each with a page; images come 40 times a second."""
    port = str(free_port())
    images = bundle.path.parent / "images.npy"
    np.save(images, np.zeros((20_000, 16), np.float32))
    with contextlib.ExitStack() as ending:
        server, page = begun("serve", str(bundle.path), "--port", port, "--log", "none")
        ending.callback(end, server)
        words = ["--server", f"127.0.0.1:{port}", "--split", "1", "--deadline", "2", "--rate", "40"]
        edge, own = begun("run", str(bundle.path), str(images), *words)
        ending.callback(end, edge)
        yield SimpleNamespace(server=server, pages=(own, page))


def facts(page: Any) -> dict[str, str]:
    """The few numbers at the page's head."""
    return dict(
        page.evaluate(
            "[...document.querySelectorAll('#facts div')].map("
            "each => [each.children[0].textContent, each.children[1].textContent])"
        )
    )


def soon(holds: Callable[[], bool], seconds: float = 8.0) -> bool:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def drawn(page: Any) -> int:
    return int(page.evaluate("document.body.dataset.drawn ?? 0"))


@pytest.mark.long
@pytest.mark.parametrize("which", [0, 1])
def test_a_page_is_legible_everywhere_and_its_numbers_move(
    running: Any, open_page: Any, fits: Any, axe: Any, which: int
) -> None:
    page = open_page(running.pages[which], width=390, dark=which == 1)
    assert soon(lambda: drawn(page) > 2)
    first = facts(page)["answers"]
    assert soon(lambda: facts(page)["answers"] != first)
    assert page.locator("#state").inner_text() == "live"
    assert fits(page) and axe(page) == []
    page.set_viewport_size({"width": 1280, "height": 900})
    assert fits(page)


def test_the_page_is_light() -> None:
    assert sum(len(body) for _, body in page_files().values()) < 60_000


@contextlib.contextmanager
def told(live: EdgeLive, rate: float) -> Iterator[None]:
    """``live`` is told of so many answers a second, until the end."""
    ended = threading.Event()
    scores = np.zeros(4, np.float32)

    def work() -> None:
        began, count = time.monotonic(), 0
        while not ended.wait(max(0.0, began + count / rate - time.monotonic())):
            live(Answer(2, scores, "final", "edge", "planned", 0.002, 0, False, 3))
            count += 1

    telling = threading.Thread(target=work)
    telling.start()
    try:
        yield
    finally:
        ended.set()
        telling.join()


@pytest.mark.long
def test_a_minute_at_200_answers_a_second_leaves_the_page_neither_behind_nor_fatter(
    bundle: Bundle, open_page: Any
) -> None:
    plan = Plan(3, deadline_s=0.5)
    live = EdgeLive(bundle, plan)
    with (
        Edge.open(bundle, plan=plan) as edge,
        told(live, 200),
        showing(0, lambda: live.now(edge), files=page_files()) as address,
    ):
        page = open_page(address)
        devtools = page.context.new_cdp_session(page)
        page.wait_for_timeout(3000)
        sizes, lags, nodes = list[int](), list[float](), set[int]()
        first = drawn(page)
        for _ in range(12):
            page.wait_for_timeout(5000)
            devtools.send("HeapProfiler.collectGarbage")
            sizes.append(devtools.send("Runtime.getHeapUsage")["usedSize"])
            lags.append(float(page.evaluate("document.body.dataset.lagS")))
            nodes.add(page.evaluate("document.querySelectorAll('*').length"))
        assert drawn(page) - first > 120, "half of 60 s with four snapshots each"
        assert max(lags) < 0.5
        assert sizes[-1] - sizes[0] < 500_000 and max(nodes) - min(nodes) < 10
        page.close()


def test_a_page_shows_what_it_is_told_pauses_and_tells_the_end(
    bundle: Bundle, open_page: Any, axe: Any, fits: Any
) -> None:
    pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    place = PlannedFor(pi, Link("lte", up_bps=5e6, down_bps=1e7, rtt_s=0.07), pi)
    plan = Plan(3, deadline_s=0.5, planned_for=place)
    live = EdgeLive(bundle, plan)
    scores = np.zeros(4, np.float32)
    with Edge.open(bundle, plan=plan) as edge:
        live(Answer(2, scores, "final", "edge", "planned", 0.002, 0, False, 3))
        with showing(0, lambda: live.now(edge), files=page_files()) as address:
            page = open_page(address, width=390)
            assert soon(lambda: facts(page).get("answers") == "1")
            assert page.locator("#state").inner_text() == "live"
            assert page.locator("#cut").inner_text() == "Now the edge computes all of it."
            assert (
                page.locator("#planned").inner_text() == "Planned to run on pi with pi behind lte."
            )
            assert fits(page) and axe(page) == []
            page.locator("#pause").focus()
            page.keyboard.press("Enter")
            assert page.locator("#state").inner_text() == "paused"
            live(Answer(2, scores, "final", "edge", "planned", 0.9, 0, False, 3))
            page.wait_for_timeout(600)
            assert facts(page)["answers"] == "1"
            page.keyboard.press("Enter")
            assert soon(lambda: facts(page)["later than 500 ms"] == "1")
    assert soon(lambda: "the process is gone" in page.locator("#state").inner_text())
    assert page.locator("#rate").is_disabled(), "nobody is there to obey"
    page.close()
    page.errors.clear()  # that nobody answers any more is what it is about


@pytest.mark.long
def test_a_server_that_is_killed_is_told_by_its_page_and_by_the_edges(
    running: Any, open_page: Any
) -> None:
    edge, server = (open_page(address) for address in running.pages)
    assert soon(lambda: drawn(edge) > 0 and drawn(server) > 0)
    assert "is asked" in edge.locator("#servers").inner_text()
    running.server.send_signal(signal.SIGKILL)
    assert soon(lambda: "gone" in server.locator("#state").inner_text())
    assert soon(lambda: "is not asked now" in edge.locator("#servers").inner_text())
    before = facts(edge)["answers"]
    assert soon(lambda: facts(edge)["answers"] != before), "the edge carries on"
    server.close()
    server.errors.clear()  # that nobody answers any more is what it is about


def a_table() -> PlanTable:
    """All on the server where the link is fast, else all on the edge."""
    rows = (
        Row(Plan(3), edge_s=0.02, asked=0, up_bytes=0, tail_s=0, accuracy=1),
        Row(Plan(0, codec="int8"), edge_s=0, asked=1, up_bytes=400, tail_s=1e-4, accuracy=1),
    )
    return PlanTable(rows, Conditions(up_bps=10e6, rtt_s=0.005))


@pytest.mark.long
def test_a_hand_on_the_panel_moves_the_cut_and_the_edge_carries_on_without_a_server(
    bundle: Bundle, open_page: Any, axe: Any, fits: Any
) -> None:
    images = np.random.default_rng(0).random((50, 16), np.float32)
    found = Ready(bundle, a_table(), images, 1.0)
    with playing(found, LINK, port=0, files=page_files(), deadline_s=0.5) as address:
        page = open_page(address)
        cut = page.locator("#cut")
        assert soon(lambda: "the server computes all" in cut.inner_text())
        assert axe(page) == []
        page.locator("#rate").focus()
        page.keyboard.press("Home")  # 10 kbit/s: 400 bytes take a third of a second
        assert page.locator("#rate-text").inner_text() == "10 kbit/s"
        assert soon(lambda: "the edge computes all" in cut.inner_text())
        box = page.locator("#rate").bounding_box()
        page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
        assert soon(lambda: "the server computes all" in cut.inner_text(), 15)
        page.get_by_role("button", name="Stop the server").click()
        assert soon(lambda: "the edge computes all" in cut.inner_text())
        before = facts(page)["answers"]
        assert soon(lambda: facts(page)["answers"] != before)
        assert soon(lambda: "the edge goes on alone" in page.locator("#alone").inner_text())
        assert page.locator("#link").inner_text().count("not known: no reply") == 2
        page.get_by_role("button", name="Start the server").press("Enter")
        assert soon(lambda: "the server computes all" in cut.inner_text(), 15)
        page.get_by_role("button", name="Cut the link").click()
        assert soon(lambda: "the edge computes all" in cut.inner_text())
        page.set_viewport_size({"width": 390, "height": 800})
        assert fits(page)
        page.close()
