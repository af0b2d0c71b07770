"""``presplit top``: what an edge or a server does, as it happens, in the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Annotated, Any

import typer

from presplit.cli.options import Json, say
from presplit.core.errors import InputError, ServerError

PATIENCE_S = 3.0
EVERY_S = 0.5
LINE_EVERY_S = 1.0
"""Where no terminal is: a line each second."""


def top(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="ADDRESS",
            help="As --live said it: http://127.0.0.1:PORT, or the PORT alone; not needed where "
            "one process of yours has a live page.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show how it is now, and end.")] = False,
    json: Json = False,
) -> None:
    """Watch an edge or a server that runs with --live, until Ctrl-C.

    It shows answers a second, who gave them and why, how long they took, the plan that is taken
    now, the link as it is seen, and each server's state. Where no terminal is, it prints a line
    each second.

    With --json it prints one snapshot, the same that the page is made of.
    """
    from json import dumps

    from presplit.cli.top_view import screen

    where = _address(address)
    now = snapshot(where)
    if json:
        print(dumps(now), flush=True)
    elif once:
        screen_once(screen(now, ""))
    else:
        # Whoever watches ends it so.
        with contextlib.suppress(KeyboardInterrupt):
            _watch(where, now) if sys.stdout.isatty() else _follow(where, now)


def snapshot(address: str) -> dict[str, Any]:
    """What the process at ``address`` says of itself; raises `ServerError`."""
    import urllib.request
    from http.client import HTTPException
    from json import loads

    # No proxy of the environment stands between two processes of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/now", timeout=PATIENCE_S) as reply:
            found = loads(reply.read())
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ServerError(
            f"{address}: no live page answers ({reason}); is presplit run or serve with --live "
            "still running?"
        ) from error
    if not isinstance(found, dict) or "kind" not in found:
        raise ServerError(f"{address}: expected a live page of presplit, got something else")
    return found


def _address(given: str | None) -> str:
    """The page's address: the one that is given, or the only one of this user."""
    from presplit.runtime.live.known import known

    if given is not None:
        bare = given.rstrip("/")
        if bare.isascii() and bare.isdigit():
            bare = f"127.0.0.1:{bare}"
        return bare if bare.startswith("http://") else f"http://{bare}"
    found = known()
    if not found:
        raise InputError(
            "no process of yours has a live page on this machine; start one with presplit run ... "
            "--live 0, or presplit serve ... --live 0"
        )
    if len(found) > 1:
        told = "\n  ".join(_told(address) for address in found)
        raise InputError(f"there are {len(found)} live pages; name one:\n  {told}")
    return found[0]


def _told(address: str) -> str:
    """The address of a page, and what is seen there."""
    try:
        now = snapshot(address)
    except ServerError:
        return address
    return f"{address} ({now['kind']} {now.get('name') or ''}".rstrip() + ")"


def screen_once(shown: Any) -> None:
    """Print one screen, without colours where no terminal is."""
    from rich.console import Console

    Console(highlight=False).print(shown)


def _follow(where: str, now: dict[str, Any]) -> None:
    """Print a line each second, as long as the process is there."""
    from presplit.cli.top_view import line

    while True:
        print(line(now), flush=True)
        time.sleep(LINE_EVERY_S)
        try:
            now = snapshot(where)
        except ServerError as error:
            say(str(error))
            return


def _watch(where: str, now: dict[str, Any]) -> None:
    """Show one snapshot after another in place, until Ctrl-C."""
    from rich.live import Live

    from presplit.cli.top_view import screen

    with Live(screen(now, "live"), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(EVERY_S)
            state = "live"
            try:
                now = snapshot(where)
            except ServerError:
                state = "the process is gone; looking for it"
            live.update(screen(now, state), refresh=True)
