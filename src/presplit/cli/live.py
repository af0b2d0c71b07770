"""The live page of ``presplit run`` and ``presplit serve``: their options, and how it is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import say
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.plans import Plan, PlanTable
    from presplit.core.types import Answer, Floats
    from presplit.runtime.edge import Edge
    from presplit.runtime.live.edge import EdgeLive
    from presplit.runtime.live.server import ServerLive

LIVE = "While it runs"
"""The group of these options in the help."""
LivePort = Annotated[
    int | None,
    typer.Option(
        "--live",
        min=0,
        max=65535,
        metavar="PORT",
        rich_help_panel=LIVE,
        help="Show what happens on a page at http://127.0.0.1:PORT, 0 for any free port; presplit "
        "top shows the same in a terminal.",
    ),
]
ShowImages = Annotated[
    bool,
    typer.Option(
        "--show-images",
        rich_help_panel=LIVE,
        help="With --live: show the last image and its answer too, to whoever is on this machine.",
    ),
]
FILES = (
    "look.css",
    "live.css",
    "live.js",
    "live_charts.js",
    "live_panel.js",
    "live_parts.js",
    "live_words.js",
)


def page_files() -> dict[str, tuple[str, bytes]]:
    """The page's files by their paths."""
    from presplit.report import pages

    return {"": pages.files("live.html")["live.html"], **pages.files(*FILES)}


@contextlib.contextmanager
def showing(port: int, now: Callable[[], dict[str, Any]]) -> Generator[str]:
    """The address of a page of what ``now`` gives, said to people."""
    from presplit.runtime.live.page import showing as on_page

    with on_page(port, now, files=page_files()) as address:
        say(f"Live: {address} in a browser on this machine, or presplit top in a terminal")
        yield address


def live_of(
    bundle: Bundle,
    plan: Plan | PlanTable | None,
    server: str | None,
    *,
    port: int | None,
    images: bool,
    deadline_s: float | None,
) -> EdgeLive | None:
    """What watches an edge for its page, if there is to be one; raises `SpecError`."""
    if port is None or plan is None:
        if images:
            raise SpecError("--show-images shows them on the page of --live PORT: give that too")
        return None
    from presplit.runtime.address import address_of
    from presplit.runtime.live.edge import EdgeLive
    from presplit.runtime.live.picture import Pictures
    from presplit.runtime.upstreams.servers import named

    return EdgeLive(
        bundle,
        plan,
        deadline_s=deadline_s,
        asked=[] if server is None else [address_of(each) for each in named(server)],
        pictures=Pictures(bundle.manifest.labels) if images else None,
    )


@contextlib.contextmanager
def edge_shown(port: int | None, live: EdgeLive | None, edge: Edge) -> Generator[None]:
    """The page of an edge, if there is to be one."""
    if port is None or live is None:
        yield
        return
    with showing(port, lambda: live.now(edge)):
        yield


def asking(
    edge: Edge, live: EdgeLive | None, deadline_s: float | None
) -> Callable[[Floats], Answer]:
    """What answers a sample, and shows it where images are shown."""
    pictures = None if live is None else live.pictures

    def ask(x: Floats) -> Answer:
        answer = edge.answer(x, deadline_s=deadline_s)
        if pictures is not None:
            pictures.keep(x, answer)
        return answer

    return ask


@contextlib.contextmanager
def server_shown(port: int | None) -> Generator[ServerLive | None]:
    """What watches a server, and its page, if there is to be one."""
    if port is None:
        yield None
        return
    from presplit.runtime.live.server import ServerLive

    live = ServerLive()
    with showing(port, live.now):
        yield live
