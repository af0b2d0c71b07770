"""The one cost formula, used by evaluation, planner and edge.

``T = T_head(split) + P(not exited) * (encode + bytes / up_bps + rtt + queue + T_tail + decode)``

written as a list of outcomes: a sample leaves at one of the exits on the edge, or it is offloaded.
The mean, the median and the 99th percentile all come from that one list, and so does the energy.
Source: the expected cost of DESIGN's section 3; with no exits it is the rule of dynamic split
computing (arXiv 2205.11269): ``T_head + bytes / rate + T_tail``.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from presplit.core.types import Costs, Device, Link, Net

WIRE_BYTES = 91
"""Request bytes on a warm connection besides the payload.

Measured with the Open Inference Protocol over gRPC.
"""
REPLY_BYTES = 140
"""Reply bytes for some tens of classes, measured likewise."""

MARGIN_S = 0.005
"""Kept back from a deadline when a server is asked.

What waking up, reading a reply and building the answer take on a
busy machine. The edge stops waiting so much earlier, so a plan must count on a reply by then."""


@dataclass(frozen=True)
class Outcome:
    """One way a sample can end, with its probability and what it costs.

    The cost is the time in seconds, the edge's energy in joules and the bytes sent.
    """

    probability: float
    seconds: float
    joules: float
    up_bytes: float


def outcomes(
    net: Net,
    *,
    split: int,
    leaves: Mapping[str, float],
    edge: Costs,
    server: Costs,
    link: Link,
    payload_bytes: int,
    queue_s: float = 0.0,
    codec_s: float = 0.0,
) -> list[Outcome]:
    """Every way one sample can end under a plan.

    ``leaves`` maps each exit that runs on the edge to the share of samples that leave there (shares
    sum to at most 1; at ``split == net.last`` what is left answers at the last exit).
    ``payload_bytes`` is the encoded boundary; ``codec_s`` is encode plus decode.
    """
    found: list[Outcome] = []
    seconds = joules = 0.0
    staying = 1.0
    done = 0
    watts = _power(edge)
    for number, exit_ in enumerate(net.exits):
        if exit_.after > split or exit_.name not in leaves or exit_.after == net.last:
            continue
        seconds += sum(edge.segment_s[done : exit_.after]) + edge.exit_s[number]
        joules += sum(edge.segment_j[done : exit_.after]) + edge.exit_s[number] * watts
        done = exit_.after
        found.append(Outcome(leaves[exit_.name], seconds, joules, 0.0))
        staying -= leaves[exit_.name]
    seconds += sum(edge.segment_s[done:split])
    joules += sum(edge.segment_j[done:split])
    staying = max(0.0, staying)
    held = holding_exit(net, split, leaves)
    if held is not None:
        after = net.exits[held].after
        seconds += edge.exit_s[held] if after <= split else 0.0
        joules += sum(edge.segment_j[split:after]) + edge.exit_s[held] * watts
    if split == net.last:
        return [*found, Outcome(staying, seconds, joules, 0.0)]
    sent = payload_bytes + WIRE_BYTES
    up_s = 8 * sent / link.up_bps
    seconds += (
        codec_s
        + up_s
        + link.rtt_s
        + queue_s
        + sum(server.segment_s[split:])
        + 8 * REPLY_BYTES / link.down_bps
    )
    return [*found, Outcome(staying, seconds, joules + up_s * link.power_w, payload_bytes)]


def holding_exit(net: Net, split: int, used: Container[str]) -> int | None:
    """Which exit runs only so that an answer is held before the server is asked.

    It runs although it may not answer.

    ``used`` are the exits that may answer. The deepest other exit between the last of them and
    ``split`` runs on the way; if there is no exit up to ``split`` at all, the next one after it
    runs while the reply is on its way, which costs energy and no time. None if the deepest exit on
    the way is used, or all is on the edge.

    >>> from presplit.core.types import Boundary, Exit
    >>> row = tuple(Boundary(name, (2,)) for name in "abcd")
    >>> net = Net(row, (Exit("early", 1, 2), Exit("late", 2, 2), Exit("final", 3, 2)))
    >>> [holding_exit(net, split, {"early"}) for split in (0, 1, 2, 3)]
    [0, None, 1, None]
    """
    if split == net.last:
        return None
    ahead = [number for number, exit_ in enumerate(net.exits) if 0 < exit_.after <= split]
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
    """Multiply-accumulates on the edge for a sample, by where it leaves.

    There is one number for each exit in ``used`` and, last, one for a sample that leaves at none.

    ``exit_macs`` has one entry for each exit of ``net``. The exit that only holds an answer is
    counted in the last.

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
    reached = split if held is None else max(split, net.exits[held].after)
    return [*found, sum(segment_macs[:reached]) + exits + (0 if held is None else exit_macs[held])]


def _power(costs: Costs) -> float:
    """Watts while computing, as the segments of ``costs`` imply."""
    seconds = sum(costs.segment_s)
    return sum(costs.segment_j) / seconds if seconds else 0.0


def quantile(found: Sequence[Outcome], q: float) -> float:
    """The time in seconds that a share ``q`` (0..1) of all samples does not exceed.

    >>> quantile([Outcome(0.6, 0.001, 0, 0), Outcome(0.4, 0.02, 0, 0)], 0.5)
    0.001
    """
    reached = 0.0
    ordered = sorted((o for o in found if o.probability > 0), key=lambda o: o.seconds)
    for outcome in ordered:
        reached += outcome.probability
        if reached >= q - 1e-12:
            return outcome.seconds
    return ordered[-1].seconds


def mean(found: Sequence[Outcome], field: str) -> float:
    """The expected ``seconds``, ``joules`` or ``up_bytes`` of one sample.

    >>> mean([Outcome(0.5, 0.001, 0, 0), Outcome(0.5, 0.003, 0, 0)], "seconds")
    0.002
    """
    return sum(outcome.probability * float(getattr(outcome, field)) for outcome in found)


def counted(
    device: Device, *, segment_macs: Sequence[int], exit_macs: Sequence[int], when: str
) -> Costs:
    """Costs from multiply-accumulates alone.

    The time is ``macs / macs_per_s + overhead_s``, the energy ``power_w * time``.

    >>> pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    >>> counted(pi, segment_macs=[2_000_000], exit_macs=[0], when="2026-01-01").segment_j
    (0.008,)
    """

    def seconds(macs: int) -> float:
        return macs / device.macs_per_s + (device.overhead_s if macs else 0.0)

    segment_s = tuple(seconds(macs) for macs in segment_macs)
    return Costs(
        device=device.name,
        segment_s=segment_s,
        exit_s=tuple(seconds(macs) for macs in exit_macs),
        segment_j=tuple(s * device.power_w for s in segment_s),
        how="counted",
        when=when,
    )
