"""The demo to play with: a slow edge in this process, a server, and a link that is changed by hand.

The edge goes by a table, so one sees the cut move as the link changes, and the edge carry on when
the server is stopped. Server and link are processes of their own; the page is `presplit.runtime.
live`'s, with a panel.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from presplit.core.errors import SpecError
from presplit.lab.demo_nets import Settings, sparse_bundle
from presplit.lab.demo_ways import costs, slowness
from presplit.lab.processes import Process, end, free_port, order, running, start
from presplit.lab.slow_device import Slowed
from presplit.lab.stage import shaper_words
from presplit.plan.envelope import Box, table_of
from presplit.plan.limits import Limits
from presplit.plan.scenario import scenario

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.costs import Device
    from presplit.core.link import Link
    from presplit.core.plans import PlanTable
    from presplit.core.types import Floats
    from presplit.runtime.edge import Edge

BOX = Box(up_bps=(5e3, 2e8), rtt_s=(5e-4, 0.5))
"""What the panel's sliders reach, and a little more."""
MEASURED_S = 1.5
"""How long the net's parts are measured before."""
RATE = 10.0
"""Images a second at first."""
ENDING_S = 2.0


class Order(Struct, forbid_unknown_fields=True):
    """What the panel changes: the link, whether the server runs, how fast images come."""

    up_bps: Annotated[float, Meta(ge=1e3, le=1e9)] | None = None
    rtt_s: Annotated[float, Meta(ge=0, le=2)] | None = None
    outage: bool | None = None
    server: bool | None = None
    rate: Annotated[float, Meta(ge=0.5, le=200)] | None = None


def order_in(value: object) -> Order:
    """The order that a JSON value is; raises `SpecError` for what is none.

    >>> order_in({"rate": 5, "outage": True}).rate
    5.0
    >>> order_in({"up_bps": -1})
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: the panel: Expected `float` >= 1000.0 - at `$.up_bps`
    """
    try:
        return msgspec.convert(value, Order)
    except msgspec.ValidationError as error:
        raise SpecError(f"the panel: {error}") from error


@dataclass(frozen=True)
class Ready:
    """The net, the table that the edge goes by, images, and how slow the edge is."""

    bundle: Bundle
    table: PlanTable
    images: Sequence[Floats]
    factor: float


def ready(
    settings: Settings,
    out: Path,
    *,
    device: Device,
    link: Link,
    deadline_s: float,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> Ready:
    """What the demo shows, from the directory ``out``: a net that is there is not trained again.

    ``link`` is what the table expects at first. Raises `PresplitError` if nothing fits ``device``.
    """
    bundle, images = sparse_bundle(settings, out, seed, tell)
    slow = slowness(bundle, device)
    tell(f"      measuring, and planning a table for the device: {slow.told()}")
    edge, server = costs(bundle, slow, images[0], MEASURED_S)
    found = scenario(
        bundle,
        device=device,
        link=link,
        server=device,  # its costs are measured, so no number of it is used
        edge_costs=edge,
        server_costs=server,
    )
    # So few samples are held out that they are believed as they are.
    limits = Limits(max_drop=settings.max_drop, confidence=None, deadline_s=deadline_s).checked()
    return Ready(bundle, table_of(found, limits, BOX), list(images), slow.factor)


class Panel:
    """A server and a shaped link before it, each a process, changed while an edge asks.

    ``address`` is where the edge asks. A context; at its end both processes are gone.
    """

    def __init__(self, bundle: Bundle, link: Link) -> None:
        self._bundle, self._link = bundle, link
        self._outage, self.rate = False, RATE
        self._port = free_port()
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()
        self._server: Process | None = None
        self.address, self._shaper = self._open.enter_context(
            running(*shaper_words(self._port, link))
        )
        self._start()

    def __enter__(self) -> Panel:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stop()
        self._open.close()

    def obey(self, value: object) -> dict[str, Any]:
        """Change what ``value`` says, an `Order`; give what is so now. Raises `SpecError`."""
        asked = order_in(value)
        with self._lock:
            self._link = msgspec.structs.replace(
                self._link,
                up_bps=asked.up_bps or self._link.up_bps,
                down_bps=asked.up_bps or self._link.down_bps,
                rtt_s=self._link.rtt_s if asked.rtt_s is None else asked.rtt_s,
            )
            self._outage = self._outage if asked.outage is None else asked.outage
            self.rate = asked.rate or self.rate
            link = self._link
            told = {"up_bps": link.up_bps, "down_bps": link.down_bps, "rtt_s": link.rtt_s}
            order(self._shaper, {**told, "outage": self._outage})
            if asked.server is True and self._server is None:
                self._start()
            if asked.server is False:
                self._stop()
        return self.now()

    def now(self) -> dict[str, Any]:
        """What is so at this moment."""
        return {
            "up_bps": self._link.up_bps,
            "rtt_s": self._link.rtt_s,
            "outage": self._outage,
            "server": self._server is not None,
            "rate": self.rate,
        }

    def _start(self) -> None:
        words = ["--port", str(self._port), "--log", "none", "--json"]
        self._server = start("presplit", "serve", str(self._bundle.path), *words)

    def _stop(self) -> None:
        if self._server is not None:
            end(self._server)
            self._server = None


@contextlib.contextmanager
def answering(
    edge: Edge, images: Sequence[Floats], panel: Panel, keep: Callable[[Floats, Any], None]
) -> Generator[None]:
    """Answer images over and over on a thread, as fast as ``panel`` says, until the end."""
    ended = threading.Event()

    def work() -> None:
        due = time.monotonic()
        for image in itertools.cycle(images):
            due = max(due + 1 / panel.rate, time.monotonic())
            if ended.wait(max(0.0, due - time.monotonic())):
                return
            keep(image, edge.answer(image))

    thread = threading.Thread(target=work, name="camera", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(ENDING_S)


@contextlib.contextmanager
def playing(
    found: Ready, link: Link, *, port: int, files: Any, deadline_s: float
) -> Generator[str]:
    """The address of the page, while the demo plays."""
    from presplit.runtime.edge import Edge
    from presplit.runtime.live.edge import EdgeLive
    from presplit.runtime.live.page import showing
    from presplit.runtime.live.picture import Pictures

    pictures = Pictures(found.bundle.manifest.labels)
    with Panel(found.bundle, link) as panel:
        live = EdgeLive(
            found.bundle,
            found.table,
            deadline_s=deadline_s,
            asked=[panel.address],
            pictures=pictures,
        )
        slowed = Slowed(found.factor, steady=True)
        with (
            Edge.open(
                found.bundle, server=panel.address, table=found.table, watch=live, load=slowed
            ) as edge,
            showing(
                port,
                lambda: {**live.now(edge), "panel": panel.now()},
                files=files,
                posts={"panel": panel.obey},
                flag="--port",
            ) as address,
            answering(edge, found.images, panel, pictures.keep),
        ):
            yield address
