"""What pages look like and how soon they are there, in a Chromium without a window.

python scripts/first_minutes/looks.py picture PAGE PNG [WIDTH HEIGHT]
python scripts/first_minutes/looks.py paint PAGE            # kB, and seconds to the first paint
python scripts/first_minutes/looks.py live PAGE SECONDS     # whether the live page keeps up

PAGE is an address or a file. Needs playwright, Pillow and a Chromium.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = 128
"""A picture of a page has few, and so it stays small."""
MOST_KB, MOST_PAINT_S = 200.0, 1.0
MOST_LAG_S, MOST_GROWN_MB = 1.0, 5.0


@contextmanager
def opened(page: str, *, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """The page in a fresh browser, once it is loaded; it counts the bytes that came."""
    from playwright.sync_api import sync_playwright

    address = page if "://" in page else Path(page).resolve().as_uri()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox", "--enable-precise-memory-info"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=arguments)
        found: Any = browser.new_page(viewport={"width": width, "height": height})
        sizes: list[int] = []
        errors: list[str] = []
        found.on("pageerror", lambda error: errors.append(str(error)))
        found.on("requestfinished", lambda asked: sizes.append(weight(asked)))
        found.goto(address)
        found.sizes, found.errors = sizes, errors
        yield found
        browser.close()


def weight(asked: Any) -> int:
    """Bytes of what came for a request; those of a stream are not known before its end."""
    try:
        return len(asked.response().body())
    except Exception:  # playwright's own, of a stream or a page that has gone
        return 0


def picture(page: str, png: Path, width: int = 1280, height: int = 900) -> None:
    """What one sees of ``page`` first, as a small PNG."""
    with opened(page, width=width, height=height) as found:
        found.wait_for_timeout(2500)
        shot = found.screenshot()
    png.parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(png, optimize=True)
    print(f"{png}: {png.stat().st_size / 1000:.0f} kB")


def paint(page: str) -> dict[str, Any]:
    """How heavy ``page`` is, and after how many seconds something is seen: the median of five."""
    painted: list[float] = []
    for _ in range(5):
        with opened(page) as found:
            found.wait_for_timeout(500)
            asked = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            painted.append(found.evaluate(asked) / 1000)
            kb = sum(found.sizes) / 1000
    middle = sorted(painted)[2]
    is_good = kb <= MOST_KB and middle <= MOST_PAINT_S
    return {"kb": round(kb, 1), "first_paint_s": round(middle, 3), "ok": is_good}


def live(page: str, seconds: float) -> dict[str, Any]:
    """Whether the live page at ``page`` shows what is, for so long.

    What it shows may lag behind by a second at most, it is drawn at least twice a second, and its
    memory grows by 5 MB at most: it shows the last minute, which fills at first.
    """
    lags: list[float] = []
    heaps: list[float] = []
    with opened(page) as found:
        found.wait_for_function("document.body.dataset.drawn > 0")
        first = found.evaluate("Number(document.body.dataset.drawn)")
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            found.wait_for_timeout(1000)
            lags.append(float(found.evaluate("document.body.dataset.lagS")))
            heaps.append(found.evaluate("performance.memory.usedJSHeapSize") / 1e6)
        took = time.monotonic() - began
        drawn = found.evaluate("Number(document.body.dataset.drawn)") - first
        shown = found.inner_text("#facts")
        errors = found.errors
    third = max(1, len(heaps) // 3)
    # Garbage comes and goes, so what is compared is the least of a while.
    grown_mb = min(heaps[-third:]) - min(heaps[:third])
    is_good = max(lags) <= MOST_LAG_S and drawn / took >= 2 and grown_mb <= MOST_GROWN_MB
    is_good = is_good and not errors
    return {
        "seconds": round(took, 1),
        "drawn_per_s": round(drawn / took, 2),
        "lag_max_s": max(lags),
        "heap_mb": [round(min(heaps[:third]), 2), round(min(heaps[-third:]), 2)],
        "shown": " ".join(shown.split()),
        "errors": errors,
        "ok": is_good,
    }


def main(what: str, page: str, *more: str) -> int:
    """Do what is asked; 1 if the page is not as it should be."""
    if what == "picture":
        picture(page, Path(more[0]), *map(int, more[1:]))
        return 0
    told = paint(page) if what == "paint" else live(page, float(more[0]))
    print(json.dumps(told, indent=1))
    return int(not told["ok"])


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
