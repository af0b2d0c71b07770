"""The page of presplit view, used as people do: with a mouse, a keyboard, a finger's width."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from small import small_model

from presplit.lab.view import Asked, Places, Try, look
from presplit.lab.view.opened import viewed
from presplit.lab.view.page import serve
from presplit.packing import pack
from presplit.plan.limits import Limits

MOST_BYTES = 200_000
PAINT_MS = 1000


@pytest.fixture(scope="module")
def address(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a net whose two exits are right as often as they like."""
    random = np.random.default_rng(0)
    bundle = pack(
        small_model(0),
        tmp_path_factory.mktemp("view") / "net.bundle",
        name="net",
        exit_names=["early", "middle", "final"],
        samples=random.normal(size=(100, 16)).astype(np.float32),
        labels=random.integers(0, 4, 100),
    )
    net = viewed(bundle, "net.bundle")
    places = Places(net, look(bundle, net.samples[0]))
    with Try(places) as trying:
        page = serve(places, trying, Asked(1), Limits(confidence=None))
        yield page.address
        page.close()


def ready(page: Any) -> Any:
    page.wait_for_selector("#choose:not([disabled])")
    return page


def waiting_for(page: Any, selector: str, text: str) -> None:
    page.locator(selector).filter(has_text=text).first.wait_for()


def test_the_page_is_light_and_there_at_once_and_the_cut_moves_by_keyboard(
    address: str, open_page: Callable[..., Any]
) -> None:
    page = ready(open_page(address))
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType("
        "'navigation')).map((one) => one.encodedBodySize)"
    )
    assert 0 < sum(sizes) < MOST_BYTES
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < PAINT_MS
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "cut", "it comes first"
    page.keyboard.press("ArrowRight")
    waiting_for(page, "#said", "Cut after h1, 2 of 3 segments on the device")
    assert page.get_attribute("#cut", "aria-valuenow") == "2"
    for key in ("Tab", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    focused = "document.activeElement.parentElement.dataset.segment"
    assert page.evaluate(focused) == "2"
    page.keyboard.press("Tab")  # one segment alone is a stop
    assert page.evaluate("document.activeElement.id") == "exit-early"
    assert "of all samples" in page.get_attribute("#sure-early", "aria-valuetext")
    waiting_for(page, "#adds", "Together the segments take")
    assert page.locator("#brief").is_hidden()
    page.set_viewport_size({"width": 1280, "height": 240})
    waiting_for(page, "#brief", "Cut after h1")  # while one drags where it cannot be seen


@pytest.mark.long
def test_the_cut_is_dragged_and_the_prediction_follows(
    address: str, open_page: Callable[..., Any], axe: Callable[[Any], list[str]]
) -> None:
    page = ready(open_page(address))
    page.locator("#cut").focus()
    page.keyboard.press("End")
    waiting_for(page, "#said", "All on the device")
    handle = page.locator("#cut").bounding_box()
    target = page.locator("[data-boundary='1']").bounding_box()
    page.mouse.move(handle["x"] + 5, handle["y"] + 10)
    page.mouse.down()
    page.mouse.move(target["x"] + target["width"] / 2, target["y"] + 10, steps=4)
    page.mouse.up()
    waiting_for(page, "#said", "Cut after h0, 1 of 3 segments")
    assert page.locator(".segment.edge").count() == 1
    assert axe(page) == []


@pytest.mark.long
def test_a_segment_opens_and_exits_codec_and_link_change_what_is_predicted(
    address: str, open_page: Callable[..., Any], axe: Callable[[Any], list[str]]
) -> None:
    page = ready(open_page(address))
    page.locator("[data-segment='0'] button").click()
    waiting_for(page, "#inside", "Gemm")
    assert page.locator("#inside tbody tr").count() >= 2
    assert axe(page) == []
    page.get_by_role("button", name="Close").click()
    assert page.locator("#inside").is_hidden()
    sent = page.locator("#facts div").filter(has_text="sent for an answer").locator("dd")
    assert sent.inner_text() == "48 B"
    page.select_option("#codec", "int8")
    waiting_for(page, "#facts dd", "12 B")
    page.locator("#exit-early").check()
    waiting_for(page, "#ends tr", "early")
    with page.expect_response("**/predict") as asked:
        page.select_option("#link", "lte")
    assert asked.value.json()["times"]["p99_s"] > 0.07  # the round trip of LTE
    page.fill("#deadline", "500")
    page.keyboard.press("Tab")
    waiting_for(page, "#said", "by the deadline of 500 ms")
    page.select_option("#link", "other …")
    page.fill("#link-own", "up=3M,rtt=4miles")
    page.keyboard.press("Tab")
    waiting_for(page, "#problem", "expected a time, as in 40ms, got '4miles'. Nothing is predicted")
    assert page.locator("#shown[inert]").count() == page.locator("[aria-invalid=true]").count() == 1
    assert page.locator("#run").is_disabled()
    assert not page.locator("#chosen").is_visible()  # the same is not said twice
    assert axe(page) == []
    page.fill("#link-own", "rubbish")
    page.keyboard.press("Tab")
    waiting_for(page, "#problem", "no link named 'rubbish', and")
    assert len(page.locator("#problem").inner_text()) < 200
    page.fill("#link-own", "up=3M,rtt=40ms")
    page.keyboard.press("Tab")
    page.wait_for_selector("#problem:empty", state="attached")
    assert page.locator("#shown[inert]").count() == page.locator("[aria-invalid=true]").count() == 0
    assert page.locator("#run").is_enabled()
    page.locator("#choose").click()
    waiting_for(page, "#said", "device")
    assert page.locator(".star").count() == 1
    # The browser notes each request that was refused: what is predicted, and what is chosen.
    page.errors[:] = [error for error in page.errors if "400" not in error]


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True])
def test_a_run_is_shown_under_the_prediction_on_a_phone_too(
    address: str,
    dark: bool,
    open_page: Callable[..., Any],
    axe: Callable[[Any], list[str]],
    fits: Callable[[Any], bool],
) -> None:
    page = ready(open_page(address, width=390, dark=dark))
    page.locator("[data-segment='1'] button").click()
    waiting_for(page, ".strip > .operators", "Gemm")
    page.locator("#run").click()
    page.wait_for_selector("#run:not([disabled])", timeout=20_000)  # the server starts
    began = time.monotonic()
    page.locator("#run").click()
    page.wait_for_selector("#run:disabled")
    page.wait_for_selector("#run:not([disabled])")
    assert time.monotonic() - began < 3.5
    waiting_for(page, "#trial", "times the predicted one")
    assert page.locator("#measured span").count() == 4
    assert page.locator("#measured-key").is_visible()
    assert page.locator("#together span").count() == 4
    waiting_for(page, "#key td", "predicted together")
    assert fits(page)
    assert axe(page) == []
