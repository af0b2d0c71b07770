"""``presplit view``: look at a net and try where to cut it, on a page of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import Json, OutputNames, say
from presplit.core import units

if TYPE_CHECKING:
    from presplit.core.costs import Costs
    from presplit.lab.view import Asked, Places, Viewed
    from presplit.plan.limits import Limits

LIMITS = ("reliability", "min_accuracy", "max_drop", "confidence", "max_energy_j")
"""What the planner's choice on the page keeps to, if [plan] of the bundle's spec says it."""
MORE_LIMITS = ("max_memory_bytes", "max_up_bytes", "fallback")


def view(
    model: Annotated[Path, typer.Argument(help="MODEL.onnx or a bundle directory.")],
    device: Annotated[
        str | None,
        typer.Option(
            help="Edge device to begin with: a profile, a .json file, or macs=2G,memory=512MB; "
            "default [plan] of its spec, or this machine."
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(help="Link to begin with: a profile, a .json file, or up=3M,rtt=40ms."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Server to begin with, as --device; default this machine.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="When answers must be there: 50ms, 0.05.")
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(help="Costs measured on a device (presplit measure), one more to choose."),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(help="A .npy file (n, *shape) to try the net on; with MODEL.onnx for int8."),
    ] = None,
    output: OutputNames = [],
    labels: Annotated[
        Path | None,
        typer.Option(help="With MODEL.onnx and --samples: their classes, so accuracy is known."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any.")] = 0,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, where there is a desktop.")
    ] = True,
    json: Json = False,
) -> None:
    """Show a net as a row of segments; drag the cut, see the time predicted, run it and compare.

    The page is served on this machine alone, until Ctrl-C. Segments open into their operators with
    what each takes here. --json prints what the page shows of the net, and ends.
    """
    from presplit.cli.options import read_costs
    from presplit.lab.view import Places, describe, first, look, open_net

    with open_net(model, samples=samples, labels=labels, outputs=output) as net:
        measured: dict[str, Costs] = {}
        if (given := read_costs(costs)) is not None:
            measured[given.device] = given
        wishes = _wishes(net, link, deadline)
        place = place_of(net, measured, wishes, {"device": device, "server": server, "link": link})
        say(f"timing {net.bundle.manifest.name} on this machine ...")
        places = Places(net, look(net.bundle, net.samples[0]), measured)
        places.scenario(place)  # costs of another net are refused before a browser opens
        limits = _limits(wishes)
        begin = place if net.bundle.plan is not None else first(places, place, limits)
        if json:
            import json as text

            print(text.dumps(describe(places)), flush=True)
            return
        _show(places, begin, limits, port, open_page)


def _show(places: Places, begin: Asked, limits: Limits, port: int, open_page: bool) -> None:
    """Serve the page until Ctrl-C."""
    from presplit.lab.view import Try
    from presplit.lab.view.page import serve

    with Try(places) as trying:
        trying.warm()
        with contextlib.closing(serve(places, trying, begin, limits, port=port)) as page:
            print(page.address, flush=True)
            say("Open it in a browser on this machine; Ctrl-C ends it.")
            if open_page and _has_desktop():
                import webbrowser

                webbrowser.open(page.address)
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server goes with it
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)


def _wishes(net: Viewed, link: str | None, deadline: str | None) -> dict[str, Any]:
    """What was said, completed by [plan] of the bundle's spec."""
    from presplit.cli.plan import wished

    deadline_s = None if deadline is None else units.number(deadline, units.SECONDS, "--deadline")
    return wished(net.bundle, link=link, deadline_s=deadline_s)


def place_of(
    viewed: Viewed, measured: dict[str, Costs], wishes: dict[str, Any], said: dict[str, str | None]
) -> Asked:
    """Where the page begins, and with what: the bundle's own plan, in the place it was made for.

    What was ``said`` goes before that, and that before [plan] of the bundle's spec. Without a plan
    all stays on the device. Raises `SpecError` for a name that does not exist.
    """
    import msgspec

    from presplit.lab.view import Asked
    from presplit.lab.view.here import THIS
    from presplit.lab.view.place import planned_place
    from presplit.profiles import device_from, link_from

    plan = viewed.bundle.plan
    spec: dict[str, Any] = viewed.bundle.manifest.spec or {}
    planning: dict[str, str] = spec.get("plan") or {}
    usual = {"link": wishes["link"], **planning}
    if plan is not None:
        usual |= planned_place(plan)
    if measured:
        usual["device"] = next(iter(measured))
    usual |= {name: word for name, word in said.items() if word is not None}
    begin = Asked(
        viewed.bundle.net.last,
        device=usual.get("device") or THIS,
        server=usual.get("server") or THIS,
        link=usual["link"],
        deadline_s=wishes.get("deadline_s"),
    )
    if plan is not None:
        begin = msgspec.structs.replace(
            begin,
            split=plan.split,
            exits=dict(plan.thresholds),
            codec=plan.codec,
            form=plan.form,
            server_form=plan.server_form,
            deadline_s=begin.deadline_s or plan.deadline_s,
        )
    for name in {begin.device, begin.server} - {THIS, *measured}:
        device_from(name)
    link_from(begin.link)
    return begin


def _limits(wishes: dict[str, Any]) -> Limits:
    """What the planner's choice keeps to besides the deadline, which the page has."""
    from presplit.plan.limits import Limits

    names = (*LIMITS, *MORE_LIMITS)
    return Limits(**{name: wishes[name] for name in names if name in wishes})


def _has_desktop() -> bool:
    """Whether a browser that opens would be seen by whoever typed the command."""
    if not sys.stderr.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
