"""Measuring a link: rates, round trip, lateness, losses and the window after a pause.

Round trips to an echo beside the models of a running server; what asking takes without any link is
measured on this machine and taken off. Before each round trip both ends rest as they do between two
answers: run at once one after another, what lies between finds all of its code in the caches and
takes up to a millisecond less. The empty round trip and the lateness are fitted to the
quantiles of many small requests, the rates to what large ones take more than small ones: all
against the same `Link.time` by which plans are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.link import LEAST_STALL_S, PACKET_BYTES, Link
from presplit.core.value import Value
from presplit.runtime.measuring.asking import PAUSE_S as REST_S
from presplit.runtime.measuring.asking import Asking, asking_s
from presplit.runtime.measuring.rounds import Array, kept
from presplit.runtime.serving.echo import BLOCK, MOST_BYTES, MOST_REPLY_BYTES
from presplit.runtime.wire.credentials import ClientCredentials

LARGE_SHARE = 0.04
"""A large request takes this share of the whole time longer than a small one, if sizes allow."""
FIRST_BYTES = 4096
LARGE_ROUNDS = 3
PAUSE_S = 1.0
"""After so long without traffic a connection begins with a small window again."""
LEAST_FOR_WINDOW_S = 5.0
"""In less time the window is not looked for: pauses alone take three seconds."""
WINDOWS = tuple(10 * PACKET_BYTES * 2**k for k in range(6))
"""What a window after a pause may be, from the usual ten packets (RFC 6928) on."""
ECHO_BYTES = WIRE_BYTES - 15
"""Bytes of an echo's request besides its payload: its name is shorter than a tail's."""
SMALL_UP = BLOCK + ECHO_BYTES
SMALL_DOWN = REPLY_BYTES - 48
"""Bytes on the wire of a reply of one number: `REPLY_BYTES` holds ten, and a longer name."""


class Found(Value, frozen=True):
    """A measured link, and what was seen: how many round trips, and how many of them stalled."""

    link: Link
    trips: int
    stalls: int


def measure_link(
    server: str, *, seconds: float = 10.0, credentials: ClientCredentials | None = None
) -> Found:
    """The link to the ``presplit serve`` at ``server``, in about so many seconds.

    With ``credentials`` it is reached over TLS. Raises `SpecError` for an address of another form,
    `ServerError` if no server echoes there.
    """
    with Asking(server, credentials=credentials) as asking:
        began = time.perf_counter()
        small = _small(asking, until=began + 0.4 * seconds)
        longer_s = LARGE_SHARE * seconds
        aim_s = _middle(small) + longer_s
        up = _large(lambda size: _rested(asking, up_bytes=size), MOST_BYTES, longer_s, aim_s)
        down = _large(
            lambda size: _rested(asking, down_bytes=size), MOST_REPLY_BYTES, longer_s, aim_s
        )
        floor_s = _middle(asking_s(pause_s=REST_S))
        link = _fitted(server, small - floor_s, up, down, floor_s)
        window = None
        if seconds >= LEAST_FOR_WINDOW_S:
            window = _window(asking, link, floor_s)
    every = np.concatenate([small, up[1], down[1]])
    stalls = int(_stalled(small - floor_s, link).sum())
    sent = int(sum(np.ceil(size / PACKET_BYTES) * len(took) for size, took in (up, down)))
    link = msgspec.structs.replace(
        link, window_bytes=window, loss=min(1.0, stalls / (2 * len(small) + sent))
    )
    return Found(link, trips=len(every), stalls=stalls)


def _small(asking: Asking, *, until: float) -> Array:
    """Small round trips, 20 at least and 300 at most."""
    found: list[float] = []
    while len(found) < 20 or (len(found) < 300 and time.perf_counter() < until):
        found.append(_rested(asking))
    return np.array(found)


def _rested(asking: Asking, **sizes: int) -> float:
    """A round trip after a rest."""
    time.sleep(REST_S)
    return asking.seconds(**sizes)


def _large(
    ask: Callable[[int], float], most: int, longer_s: float, aim_s: float
) -> tuple[int, Array]:
    """A size that takes ``aim_s``, ``longer_s`` longer than a small one, and what it takes."""
    size = FIRST_BYTES
    took = ask(size)
    while size < most and took < aim_s:
        # It grows by sixteen at most, because one that was early by chance aims too high.
        more_s = max(took - aim_s + longer_s, longer_s / 16)
        size = min(most, max(2 * size, int(size * longer_s / more_s) // BLOCK * BLOCK))
        took = ask(size)
    return size, np.array([took, *(ask(size) for _ in range(LARGE_ROUNDS - 1))])


def _middle(seconds: Array) -> float:
    return float(np.median(seconds))


def _fitted(
    server: str, small: Array, up: tuple[int, Array], down: tuple[int, Array], floor_s: float
) -> Link:
    """The link that the round trips tell of, losses and windows left out.

    ``small``: small round trips less what asking takes; ``up`` and ``down``: a size and whole round
    trips of it. Twice: a rate is needed to know what the bytes of small requests take, and the
    lateness to know what streams take beyond their bytes.
    """
    link = Link(server, up_bps=1e12, down_bps=1e12, rtt_s=0.0)
    for _ in range(4):
        bytes_s = link.up_s(SMALL_UP) + link.down_s(SMALL_DOWN)
        rtt_s, jitter_s = _trip(small[small < _middle(small) + LEAST_STALL_S] - bytes_s)
        link = msgspec.structs.replace(link, rtt_s=rtt_s, jitter_s=jitter_s)
        more = _beside(link, up[0] + ECHO_BYTES, SMALL_DOWN) + link.down_s(SMALL_DOWN)
        up_s = max(_middle(up[1]) - floor_s - more, 1e-6)
        more = _beside(link, SMALL_UP, down[0] + SMALL_DOWN) + link.up_s(SMALL_UP)
        down_s = max(_middle(down[1]) - floor_s - more, 1e-6)
        link = msgspec.structs.replace(
            link,
            up_bps=8 * (up[0] + ECHO_BYTES) / up_s,
            down_bps=8 * (down[0] + SMALL_DOWN) / down_s,
        )
    trips = np.maximum(small - link.up_s(SMALL_UP) - link.down_s(SMALL_DOWN), 0.0)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return msgspec.structs.replace(
        link,
        rtt_draws=kept(trips[~_stalled(small, link)]),
        source=f"measured: {len(small)} small round trips, {up[0]} bytes up, {down[0]} down",
        date=now,
    )


def _beside(link: Link, up_bytes: float, down_bytes: float) -> float:
    """What a round trip takes besides its bytes: the way, and that a stream is late."""
    whole_s = link.time(up_bytes, down_bytes).quantile(0.5)
    return whole_s - link.up_s(up_bytes) - link.down_s(down_bytes)


def _trip(seconds: Array) -> tuple[float, float]:
    """The empty round trip and the lateness each way, whose sum is drawn twice from uniform ones.

    A line through the quantiles: those of two uniform lates of 0..1 are known. The last tenth, in
    which a busy machine shows, is left out of the fit.
    """
    found = np.sort(seconds)
    share = (np.arange(len(found)) + 0.5) / len(found)
    triangle = np.where(share < 0.5, np.sqrt(2 * share), 2 - np.sqrt(2 * (1 - share)))
    few = share < 0.9
    slope, start = np.polyfit(triangle[few], found[few], 1)
    return max(float(start), 0.0), max(float(slope), 0.0)


def _stalled(small: Array, link: Link) -> npt.NDArray[np.bool_]:
    """Which small round trips waited for a packet to be sent again."""
    wait_s = max(LEAST_STALL_S, 2 * link.rtt_s)
    return small > _middle(small) + 2 * link.jitter_s + 0.9 * wait_s


def _window(asking: Asking, link: Link, floor_s: float) -> float | None:
    """The window after a pause that explains what a request takes then; None for none."""
    size = min(MOST_BYTES, max(2 * WINDOWS[0], int(link.up_bps * link.rtt_s / 8)))
    if 8 * WINDOWS[0] / link.up_bps > link.rtt_s:
        return None  # the first window fills the link: nothing to be seen
    took: list[float] = []
    for _ in range(LARGE_ROUNDS):
        time.sleep(PAUSE_S)
        took.append(asking.seconds(up_bytes=size) - floor_s)

    def misses(window: float | None) -> float:
        tried = msgspec.structs.replace(link, window_bytes=window)
        expected = tried.time(size + ECHO_BYTES, SMALL_DOWN).quantile(0.5)
        return abs(_middle(np.array(took)) - expected)

    best = min(WINDOWS, key=misses)
    # A quarter of a round trip is the least that a machine's own noise does not make.
    told = misses(None) - misses(best) > 0.25 * link.rtt_s + floor_s
    return best if told else None
