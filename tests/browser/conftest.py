"""A real browser without a window; what needs it is left out where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


# Not longer: while playwright is there, no asyncio.run of another test can be in this process.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, once a module; a test that asks for it is skipped where it or playwright lacks."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(address or file, width=1280, dark=False)`` gives playwright's page.

    At the test's end it fails if any page wrote an error on its console, raised one, or asked for
    something that did not come. ``page.errors`` lists them; what is expected may be taken out.
    """
    opened = []

    def open_it(address: str | Path, *, width: int = 1280, dark: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
        opened.append((context, page))
        target = address.resolve().as_uri() if isinstance(address, Path) else address
        page.goto(target)
        return page

    yield open_it
    for context, _ in opened:
        context.close()
    assert [error for _, page in opened for error in page.errors] == []


@pytest.fixture
def axe() -> Callable[[Any], list[str]]:
    """``axe(page)`` gives what axe finds wrong for readers with disabilities, a line for each."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")

    def faults(page: Any) -> list[str]:
        found = module.Axe().run(page).response["violations"]
        return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]

    return faults


@pytest.fixture
def fits() -> Callable[[Any], bool]:
    """``fits(page)``: nothing makes the page wider than the window."""

    def is_narrow(page: Any) -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    return is_narrow
