"""Promises under load and attack by patience: slow clients, storms, more requests than fit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks._faults import Row, Rows, Seen, Server, good_client, serving, steady, undisturbed
from benchmarks._faults_h2 import beginning, framed, headers, one_byte, opening
from benchmarks._faults_slow import Attack, Ended, attacking

IDLE_S = 70.0
"""Whoever never begins a call counts as idle, and is gone after so many seconds."""


def attacks() -> list[Attack]:
    """Every way of being slow."""
    claimed = framed(b"\0", claimed=10_000)
    started = opening()
    whole = beginning(headers(), b"")
    return [
        Attack("silent connections", b""),
        Attack(
            "headers byte by byte", started, whole[len(started) :], 2.0, in_turn=True, gone_s=IDLE_S
        ),
        Attack("bodies byte by byte", beginning(headers(), claimed), one_byte(), 2.0),
        Attack("half-sent calls", beginning(headers(), claimed)),
        Attack(
            "half-sent calls, 50 a connection", beginning(headers(), claimed, calls=50), calls=50
        ),
        Attack("half-sent calls with a far deadline", beginning(headers(timeout="1H"), claimed)),
    ]


def slow(quick: bool) -> Iterator[Row]:
    """Promise 4: each way by itself, or, to be quick, all at once."""
    with serving() as server:
        before = undisturbed(server, 3.0)
        if quick:
            yield from _slow(server, attacks(), 100, 15.0, before)
            return
        for attack in attacks():
            yield from _slow(server, [attack], 1000, 75.0, before)


def _slow(
    server: Server, ways: list[Attack], count: int, seconds: float, before: Seen
) -> Iterator[Row]:
    """So many ways of being slow at once, each ``count`` times."""
    held = server.counters()
    with good_client(server) as good:
        ended = asyncio.run(_all(ways, server.port, count, seconds))
        seen = good.seen()
    harm = server.harm() or server.left(held, within_s=5)
    for attack, ends in zip(ways, ended, strict=True):
        if seconds >= attack.gone_s:
            asked = f"{attack.name} are ended within {attack.gone_s:.0f} s"
            last = max(ends.after_s, default=0.0)
            said = f"{len(ends.after_s)} of {ends.n}, the last after {last:.1f} s"
            yield Row(4, asked, said, ends.n, ends.within(attack.gone_s) == ends.n)
    names = ", ".join(attack.name for attack in ways)
    asked = f"a good client is served beside {names}"
    said = f"{seen}; before: p99 {1000 * before.p99_s:.1f} ms"
    ok = steady(seen, before) and not harm
    yield Row(4, asked, f"{said}; {harm}" if harm else said, count * len(ways), ok)


async def _all(ways: list[Attack], port: int, count: int, seconds: float) -> list[Ended]:
    """What becomes of each."""
    attacks = (attacking(way, port, count // way.calls, seconds) for way in ways)
    return await asyncio.gather(*attacks)


PARTS: dict[int, Rows] = {4: slow}
