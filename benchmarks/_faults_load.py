"""Promises under load and attack by patience: slow clients, storms, more requests than fit."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections import Counter as Count
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks._faults import (
    SLACK_S,
    Callers,
    Row,
    Rows,
    Seen,
    Server,
    good_client,
    make_keys,
    serving,
    steady,
    undisturbed,
)
from benchmarks._faults_h2 import HEADERS, beginning, framed, frames, headers, one_byte, opening
from benchmarks._faults_nets import small_bundle
from benchmarks._faults_slow import Attack, Ended, attacking
from benchmarks._serving import apart
from presplit.core.plans import Plan
from presplit.runtime import Edge

LATEST_S = 0.25
"""The deadline under overload."""
REFUSED_S = 0.02
"""Whoever is refused hears so within this time, 99 of 100."""
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


def storm(quick: bool) -> Iterator[Row]:
    """Promise 5."""
    count = 1_000 if quick else 5_000
    with serving() as server:
        yield _connects(server, count)
    with TemporaryDirectory() as folder, serving(keys=make_keys(Path(folder) / "keys")) as server:
        yield _handshakes(server, 400 if quick else 2_000)


def _connects(server: Server, count: int) -> Row:
    """Connections that all come within five seconds, half of them silent, and stay."""
    held = server.counters()
    ways = [Attack("silent", b""), Attack("begun", opening())]
    with good_client(server) as good:
        asyncio.run(_all(ways, server.port, count // 2, 8.0))
        seen = good.seen()
    harm = server.harm() or server.left(held, within_s=30)
    asked = "connections in a storm: known peers lose nothing, descriptors come back in 30 s"
    said = f"{seen}; {harm}" if harm else str(seen)
    return Row(5, asked, said, count, _lost_nothing(seen) and not harm)


def _handshakes(server: Server, count: int) -> Row:
    """Two hundred handshakes a second that cannot succeed."""
    held = server.counters()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    entered = 0
    with good_client(server) as good:
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / 200 - time.monotonic()))
            entered += _handshake(server.port, stranger if number % 2 else None, number)
        seen = good.seen()
    harm = server.harm() or server.left(held, within_s=30)
    said = f"{entered} got in; {seen}"
    ok = _lost_nothing(seen) and not harm and entered == 0
    asked = "junk and strangers' handshakes, 200 a second: none gets in, known peers lose nothing"
    return Row(5, asked, f"{said}; {harm}" if harm else said, count, ok)


def _lost_nothing(seen: Seen) -> bool:
    return seen.wrong == 0 and seen.share >= 0.999


def _handshake(port: int, stranger: ssl.SSLContext | None, number: int) -> bool:
    """One attempt, without a certificate or with random bytes; whether a call was answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as found:
            if stranger is None:
                found.sendall(random.Random(number).randbytes(300))
                return False
            with stranger.wrap_socket(found) as secret:
                secret.sendall(beginning(headers(method="ServerLive"), framed(b""), end=True))
                while received := secret.recv(4096):
                    if any(kind == HEADERS for kind, _ in frames(received)):
                        return True
    except OSError:
        pass
    return False


def overloaded(quick: bool) -> Iterator[Row]:
    """Promise 16."""
    times, seconds = ((2, 5), 3.0) if quick else ((2, 5, 10), 60.0)
    with apart() as go_over, TemporaryDirectory() as folder:
        bundle = small_bundle(Path(folder) / "slow.bundle", slow=120)
        # Each alone: refusing ten times as many takes a processor's time as well, half a
        # millisecond each, and together these would be answered in little more.
        with serving("--batch", "1", bundle=bundle) as server:
            go_over()
            undisturbed(server, 1.0)
            capacity = _capacity(server)
            one = _at(server, 0.9 * capacity, seconds)
            for factor in times:
                more = _at(server, factor * capacity, seconds)
                yield from _kept(factor, one, more, server.harm())
            yield _edges_beside(server, 5 * capacity, seconds)


def _capacity(server: Server) -> float:
    """Answers a second with many callers, one call after the other each."""
    began = time.monotonic()
    with Callers(server) as callers:
        time.sleep(2.0)
    ended = sum(call.status == "OK" for call in callers.calls)
    return ended / (time.monotonic() - began)


def _at(server: Server, rate: float, seconds: float) -> Seen:
    """What a client sees that sends at a rate, whatever becomes of the replies."""
    with good_client(server, rate=rate, deadline_s=LATEST_S) as good:
        time.sleep(seconds)
        return good.seen()


def _kept(factor: int, one: Seen, more: Seen, harm: str) -> Iterator[Row]:
    """Goodput and refusals where more is asked than there is room for."""
    share = more.per_s / max(one.per_s, 1e-9)
    said = f"{more.per_s:.0f} answers/s, {100 * share:.0f} % of 1x; {more}"
    ok = share >= 0.9 and more.wrong == 0 and more.p99_s <= LATEST_S and not harm
    asked = f"at {factor}x its capacity: answers in time >= 90 % of those at 1x"
    yield Row(16, asked, f"{said}; {harm}" if harm else said, more.n, ok)
    said = f"p99 {1000 * more.refused_p99_s:.1f} ms"
    refused = more.statuses.get("RESOURCE_EXHAUSTED", 0)
    asked = f"at {factor}x: refusals come within {1000 * REFUSED_S:.0f} ms"
    yield Row(16, asked, said, refused, more.refused_p99_s <= REFUSED_S)


def _edges_beside(server: Server, rate: float, seconds: float) -> Row:
    """An edge of an overloaded server, which has no better answer than its own."""
    image = np.zeros(server.bundle.net.boundaries[0].shape, np.float32)
    late, whys = 0, Count[str]()
    with (
        good_client(server, rate=rate, deadline_s=LATEST_S),
        Edge.open(server.bundle, server=server.address, plan=Plan(1, deadline_s=LATEST_S)) as edge,
    ):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            whys[edge.answer(image).why] += 1
            late += time.monotonic() - began > LATEST_S + SLACK_S
    asked = f"an edge of a server at 5x answers by its deadline of {1000 * LATEST_S:.0f} ms"
    n = sum(whys.values())
    return Row(16, asked, f"{late} late, {dict(whys)}", n, late <= max(1, n // 100) and n > 0)


PARTS: dict[int, Rows] = {4: slow, 5: storm, 16: overloaded}
