"""One plan in its parts: where the time of an answer goes, how it is spread, who answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from presplit.core.cost import REPLY_BYTES, WIRE_BYTES
from presplit.core.errors import PlanError
from presplit.core.plans import Plan
from presplit.core.times import Times, mixed_quantile
from presplit.core.types import Floats
from presplit.plan.evaluate import Array, Block, head_of, weighing
from presplit.plan.scenario import Scenario

Of = Literal["edge", "link", "server"]


@dataclass(frozen=True)
class Part:
    """A part of the mean time of an answer: its name, whose it is, and its seconds."""

    name: str
    of: Of
    seconds: float


@dataclass(frozen=True)
class End:
    """Where samples leave: at which exit, computed by whom, which share of all, after what time."""

    exit: str
    of: Of
    share: float
    times: Times


def block_of(found: Scenario, plan: Plan) -> Block:
    """The ``plan`` alone, as `presplit.plan.evaluate` weighs it: its only row is row 0.

    Raises `PlanError` for a plan with a gateway, or one that the scenario has not the times or the
    evidence for.
    """
    if plan.gateway is not None:
        raise PlanError("a plan with a gateway has its parts on three machines")
    plan.fits(found.net)
    ways = found.ways(plan.split, plan.form) if plan.form in found.forms else []
    end = plan.form if plan.split == found.net.last else plan.server_form
    if (plan.codec, end) not in ways:
        raise PlanError(
            f"what split {plan.split} by {plan.codec} from {plan.form} to {end} takes or costs in "
            "accuracy is not known here"
        )
    levels: list[Floats] = [
        np.array([plan.thresholds[exit_.name]] if exit_.name in plan.thresholds else [], np.float32)
        for exit_ in found.early
    ]
    head = head_of(found, plan.split, plan.form, weighing(found, levels)(plan.split, plan.form))
    travels = plan.split < found.net.last
    way = found.sent(plan.split, plan.codec, end) if travels else None
    return Block(found, head, plan.codec, end, way)


def parts(block: Block) -> list[Part]:
    """The mean time of an answer in parts, in the order in which they happen.

    What only some samples need counts by how many these are.
    """
    found, asked = block.found, float(block.asked[0])
    own_s = found.edge.answer_s.mean_s
    listed = [Part("computing", "edge", float(block.head.mean_s[0]) - own_s)]
    listed.append(Part("making the answer", "edge", own_s))
    if block.way is not None:
        encoding, travel, asking, queue, decoding, tail = block.way.steps
        sent = block.way.up_bytes + WIRE_BYTES
        up_s, down_s = found.link.up_s(sent), found.link.down_s(REPLY_BYTES)
        listed += [
            Part("encoding", "edge", asked * encoding.mean_s),
            Part("bytes up", "link", asked * up_s),
            Part("round trip", "link", asked * (travel.mean_s - up_s - down_s)),
            Part("reply down", "link", asked * down_s),
            Part("messages", "link", asked * asking.mean_s),
            Part("waiting for a worker", "server", asked * queue.mean_s),
            Part("decoding", "server", asked * decoding.mean_s),
            Part("computing there", "server", asked * tail.mean_s),
        ]
    return [part for part in listed if part.seconds > 0]


def quantiles(block: Block, levels: Sequence[float]) -> list[float]:
    """The times that these shares (0..1) of all answers do not exceed, in seconds."""
    shares, draws = _used(block)[1][np.newaxis], block.times(_subset(block))
    return [float(mixed_quantile(draws, shares, level)[0]) for level in levels]


def answers(block: Block) -> dict[str, float]:
    """The share of all answers that each exit gives, the net's own classifier last."""
    return {end.exit: end.share for end in ends(block)}


def ends(block: Block) -> list[End]:
    """Each way that a sample can end, the one through the whole net last."""
    names, shares = _used(block)
    where: list[Of] = ["edge"] * len(names)
    if block.asks:
        where[-1] = "server"
    times = block.times(_subset(block))
    return [
        End(name, of, float(share), each)
        for name, of, share, each in zip(names, where, shares, times, strict=True)
    ]


def _used(block: Block) -> tuple[list[str], Array]:
    used = block.head.weights.subsets[_subset(block)]
    names = [block.found.early[number].name for number in used]
    shares = block.head.weights.shares[0][[*used, -1]]
    return [*names, block.found.net.exits[-1].name], shares


def _subset(block: Block) -> int:
    return int(block.head.weights.used[0])
