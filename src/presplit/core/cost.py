"""The one cost formula, used by evaluation, planner and edge.

``T = T_head(split) + P(not exited) * (encode + bytes / up_bps + rtt + queue + T_tail + decode)``

written as a list of outcomes: a sample leaves at one of the exits on the edge, or it goes on to the
end. Mean, median and 99th percentile all come from that one list and from the shares that end each
way, and so do energy, bytes and multiplications. Source: the expected cost of DESIGN's section 3;
with no exits it is the rule of dynamic split computing (arXiv 2205.11269):
``T_head + bytes / rate + T_tail``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container, Sequence
from dataclasses import dataclass

from presplit.core.costs import Costs, Device, Parts
from presplit.core.link import Link
from presplit.core.times import NOTHING, Times, chance_within, total
from presplit.core.types import Net

WIRE_BYTES = 117
"""Request bytes on a warm connection besides the payload.

Counted on the wire with the Open Inference Protocol over gRPC.
"""
REPLY_BYTES = 205
"""Reply bytes for ten classes and the time that the server says it took, counted likewise."""

MARGIN_S = 0.005
"""Kept back from a deadline when a server is asked.

It is what waking up, reading a reply and building the answer take on a busy machine.
"""


def answer_by(deadline_s: float, *, asks: bool) -> float:
    """When the last step of an answer must be over, in seconds from its beginning.

    An edge that ``asks`` a server keeps `MARGIN_S` back to read the reply; what it computes itself,
    where nothing is asked or no reply came, has the whole deadline. The planner and the edge both
    go by this; the planner, to be safe, for all answers of a plan that asks.

    >>> answer_by(0.05, asks=True), answer_by(0.05, asks=False)
    (0.045000000000000005, 0.05)
    """
    return deadline_s - MARGIN_S if asks else deadline_s


@dataclass(frozen=True)
class Outcome:
    """One way a sample can end: what it takes step by step, the edge's joules, its bytes sent.

    The steps are independent; their sum is composed only where a distribution is asked for.
    ``halves``: sums of the first and the last of them, where these are known.
    """

    steps: tuple[Times, ...]
    joules: float
    up_bytes: float
    halves: tuple[Times, ...] = ()

    @functools.cached_property
    def mean_s(self) -> float:
        """The mean of the sum."""
        return sum(step.mean_s for step in self.steps)

    @functools.cached_property
    def time(self) -> Times:
        """The sum of the steps."""
        return total(self.halves or self.steps)

    @functools.cached_property
    def bounds_s(self) -> tuple[float, float]:
        """The least and the most that the sum can be."""
        least = [min(step.draws_s) for step in self.steps]
        most = [max(step.draws_s) for step in self.steps]
        return sum(least), sum(most)

    def within(self, seconds: float) -> float:
        """The probability (0..1) to be over by then; a sum that is sure is not composed.

        >>> Outcome((Times((0.1, 0.2)), Times.of(0.1)), 0.0, 0.0).within(0.25)
        0.5
        """
        least, most = self.bounds_s
        if seconds < least:
            return 0.0
        return 1.0 if seconds >= most else chance_within(self.steps, seconds)

    def then(self, more: Outcome) -> Outcome:
        """This and, after it, ``more``."""
        joules, up_bytes = self.joules + more.joules, self.up_bytes + more.up_bytes
        halves = self.time, more.time
        return Outcome((*self.steps, *more.steps), joules, up_bytes, halves)


def outcomes(
    net: Net,
    *,
    split: int,
    used: Container[str],
    edge: Costs,
    server: Costs,
    link: Link,
    codec: str,
    payload_bytes: float,
    form: str = "float32",
    server_form: str = "float32",
    queue: Times = NOTHING,
) -> list[Outcome]:
    """Every way one sample can end: at each exit in ``used`` up to ``split`` and, last, at none.

    ``payload_bytes`` is the boundary at ``split`` encoded by ``codec``; what does not leave at an
    exit is sent, or at ``split == net.last`` answers at the last exit. The edge computes in
    ``form``, the server in ``server_form``.
    """
    *early, last = on_edge(net, split=split, used=used, edge=edge, form=form)
    if split == net.last:
        return [*early, last]
    way = asked(
        split,
        edge=edge,
        server=server,
        link=link,
        codec=codec,
        payload_bytes=payload_bytes,
        server_form=server_form,
        queue=queue,
    )
    return [*early, last.then(way)]


def on_edge(
    net: Net, *, split: int, used: Container[str], edge: Costs, form: str = "float32"
) -> list[Outcome]:
    """What the edge does for a sample that leaves at each exit in ``used``.

    The last one is for a sample that leaves at none: up to where the boundary at ``split`` is
    there, or to the net's own answer if ``split`` is its last boundary.
    """
    return _on_the_way(net, [edge.answer_s], 0, split=split, used=used, costs=edge, form=form)


def at_gateway(
    net: Net, *, start: int, split: int, used: Container[str], costs: Costs, form: str = "float32"
) -> list[Outcome]:
    """What a gateway does from boundary ``start`` on for each way to end, as `on_edge` says it.

    Its energy is not the edge's, so there is none.
    """
    ways = _on_the_way(net, [], start, split=split, used=used, costs=costs, form=form)
    return [dataclasses.replace(way, joules=0.0) for way in ways]


def _on_the_way(
    net: Net,
    steps: list[Times],
    start: int,
    *,
    split: int,
    used: Container[str],
    costs: Costs,
    form: str,
) -> list[Outcome]:
    """What is computed from ``start`` to ``split``, after ``steps``, for each way to end."""
    watts, parts, done = costs.power_w, costs.forms[form], start
    found: list[Outcome] = []
    for number, exit_ in enumerate(net.exits[:-1]):
        if exit_.after > split or exit_.name not in used:
            continue
        stretch = parts.stretch_s(done, exit_.after, awake=done > start)
        steps = [*steps, stretch, parts.exit_s[number]]
        done = exit_.after
        found.append(_computed(steps, watts))
    held = holding_exit(net, split, used, start=start)
    if held is not None and net.exits[held].after <= split:
        stretch = parts.stretch_s(done, net.exits[held].after, awake=done > start)
        steps = [*steps, stretch, parts.exit_s[held]]
        done = net.exits[held].after
    # What may run behind the split does so only where no reply comes, or a table has it race.
    last = _computed([*steps, parts.stretch_s(done, split, awake=done > start)], watts)
    return [*found, last]


def asked(
    split: int,
    *,
    edge: Costs,
    server: Costs,
    link: Link,
    codec: str,
    payload_bytes: float,
    server_form: str = "float32",
    queue: Times = NOTHING,
) -> Outcome:
    """What it takes to send the boundary at ``split`` and to get the server's answer."""
    tail = server.forms[server_form].tail_s[split]
    there = (edge.ask_s, queue, server.decoding_s(codec, split), tail)
    return hop(
        link,
        payload_bytes,
        encoding=edge.encoding_s(codec, split),
        there=there,
        power_w=edge.power_w,
    )


def hop(
    link: Link, payload_bytes: float, *, encoding: Times, there: tuple[Times, ...], power_w: float
) -> Outcome:
    """What it takes to encode at ``power_w`` watts, to cross ``link``, and what follows there."""
    sent_bytes = payload_bytes + WIRE_BYTES
    return Outcome(
        (encoding, link.time(sent_bytes, REPLY_BYTES), *there),
        encoding.mean_s * power_w + link.up_s(sent_bytes) * link.power_w,
        payload_bytes,
    )


def _computed(steps: Sequence[Times], watts: float) -> Outcome:
    """Steps that the edge computes itself, at so many watts."""
    steps = [step for step in steps if step != NOTHING]
    return Outcome(tuple(steps), sum(step.mean_s for step in steps) * watts, 0.0)


def holding_exit(net: Net, split: int, used: Container[str], *, start: int = 0) -> int | None:
    """Which exit runs only so that an answer is held before the server is asked.

    ``used`` are the exits that may answer. The deepest other exit between the last of them and
    ``split`` runs on the way; if there is no exit up to ``split`` at all, the next one after it
    is the first that may run where no reply comes. None if the deepest exit on
    the way is used, or all is on the edge. A gateway's way begins at the boundary ``start``.

    >>> from presplit.core.types import Boundary, Exit
    >>> row = tuple(Boundary(name, (2,)) for name in "abcd")
    >>> net = Net(row, (Exit("early", 1, 2), Exit("late", 2, 2), Exit("final", 3, 2)))
    >>> [holding_exit(net, split, {"early"}) for split in (0, 1, 2, 3)]
    [0, None, 1, None]
    """
    if split == net.last:
        return None
    ahead = [number for number, exit_ in enumerate(net.exits) if start < exit_.after <= split]
    if not ahead and not any(exit_.name in used for exit_ in net.exits_up_to(split)):
        return next(number for number, exit_ in enumerate(net.exits) if exit_.after > split)
    return ahead[-1] if ahead and net.exits[ahead[-1]].name not in used else None


def edge_macs(
    net: Net,
    *,
    split: int,
    used: Container[str],
    segment_macs: Sequence[int],
    exit_macs: Sequence[int],
) -> list[int]:
    """Multiply-accumulates on the edge of a sample that leaves at each exit in ``used``.

    The last number is that of a sample that leaves at none, an exit on the way that only holds an
    answer counted too. ``exit_macs`` has one entry for each exit of ``net``.

    >>> from presplit.core.types import Boundary, Exit
    >>> row = tuple(Boundary(name, (2,)) for name in "abc")
    >>> net = Net(row, (Exit("early", 1, 2), Exit("final", 2, 2)))
    >>> edge_macs(net, split=2, used={"early"}, segment_macs=[100, 50], exit_macs=[7, 0])
    [107, 157]
    """
    found: list[int] = []
    exits = 0
    for number, exit_ in enumerate(net.exits[:-1]):
        if exit_.after <= split and exit_.name in used:
            exits += exit_macs[number]
            found.append(sum(segment_macs[: exit_.after]) + exits)
    held = holding_exit(net, split, used)
    on_the_way = held is not None and net.exits[held].after <= split
    own = exit_macs[held] if on_the_way and held is not None else 0
    return [*found, sum(segment_macs[:split]) + exits + own]


def counted(
    device: Device, *, segment_macs: Sequence[int], exit_macs: Sequence[int], when: str
) -> Costs:
    """Costs from multiply-accumulates alone.

    A stretch takes ``macs / macs_per_s + overhead_s``, an exit on it ``macs / macs_per_s``.

    >>> pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0, overhead_s=0.001)
    >>> costs = counted(pi, segment_macs=[2_000_000] * 2, exit_macs=[0], when="2026-01-01")
    >>> [time.mean_s for time in costs.forms["float32"].head_s]
    [0.0, 0.003, 0.005]
    """
    parts = Parts.added(
        [Times.of(macs / device.macs_per_s) for macs in segment_macs],
        [Times.of(macs / device.macs_per_s) for macs in exit_macs],
        call_s=device.overhead_s,
    )
    return Costs(
        device=device.name,
        forms={"float32": parts},
        power_w=device.power_w,
        how="counted",
        when=when,
    )
