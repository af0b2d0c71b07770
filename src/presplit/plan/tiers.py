"""Plans with a gateway between the edge and the server: two splits of one row, planned together.

The edge sends boundary k1, the gateway computes on to k2 >= k1, where its own exits may answer, and
sends that to the server. It may pass on what comes as it came, or compute everything. What is known
of accuracies is of one cut that loses something: so at least one of the two loses nothing (but the
same codes may travel twice), and exits of the gateway are weighed only behind a first cut that
loses nothing. Like a server, a gateway has the whole bundle, and its memory is no limit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from presplit.core import cost
from presplit.core.cost import REPLY_BYTES, WIRE_BYTES, Outcome
from presplit.core.costs import Costs
from presplit.core.plans import Gateway
from presplit.core.times import NOTHING
from presplit.core.types import Floats
from presplit.plan.evaluate import Array, Block, Head, Weights, evaluate, head_of, weighing
from presplit.plan.scenario import PLAIN, Between, Cut, Scenario


@dataclass(frozen=True)
class Onward:
    """Where a gateway cuts, how that travels, and the form in which the server goes on."""

    split: int
    codec: str
    server_form: str


@dataclass(frozen=True)
class Cuts:
    """The edge's cut by ``codec`` to a gateway that computes in ``form``, and the gateway's own.

    ``lossy`` is the one that says what the net's own answers are worth.
    """

    split: int
    codec: str
    form: str
    onward: Onward
    lossy: Cut

    @property
    def passes_on(self) -> bool:
        """Whether the gateway does nothing with what comes."""
        return (self.split, self.codec) == (self.onward.split, self.onward.codec)


@dataclass(frozen=True, eq=False)
class Tiered(Block):
    """A block of plans with a gateway: ``codec`` and ``server_form`` are those of the first cut.

    What the head does beyond the split is done at the gateway; ``way`` is what asking the server
    takes from there, None where the gateway computes to the end.
    """

    both: Cuts

    @property
    def onward(self) -> Onward:
        """What the gateway does with what its exits do not answer."""
        return self.both.onward

    @property
    def passes_on(self) -> bool:
        """Whether the gateway does nothing with what comes."""
        return self.both.passes_on

    @property
    def asks_on(self) -> bool:
        """Whether the gateway asks the server."""
        return self.way is not None

    @property
    def cuts(self) -> tuple[object, ...]:
        """As in a block with one cut, of both."""
        return (*super().cuts, self.onward)

    @property
    def lossy(self) -> Cut:
        """The cut whose evidence says what the net's own answers are worth."""
        return self.both.lossy

    @property
    def asks(self) -> bool:
        """The edge asks the gateway."""
        return True

    @property
    def leaving(self) -> Array:
        """The share of samples that leave the device: for an exit beyond the split, or for none."""
        here = sum(exit_.after <= self.split for exit_ in self.found.early)
        return self.head.weights.shares[:, here:].sum(axis=1)

    @property
    def up_bytes(self) -> Array:
        """What one sample sends to the gateway."""
        return self.leaving * self.found.payload_bytes[self.split][self.codec]

    def _gateway(self, thresholds: dict[str, float]) -> Gateway:
        """What the gateway does, with the thresholds of its exits."""
        sent_bytes = self.found.payload_bytes[self.split][self.codec] + WIRE_BYTES
        there_and_back = self.found.link.time(sent_bytes, REPLY_BYTES)
        return Gateway(
            self.onward.split,
            thresholds,
            self.onward.codec,
            self.onward.server_form,
            spare_s=there_and_back.quantile(0.99),
        )


@dataclass(frozen=True)
class _Row(Outcome):
    """Ways one after another, of which each is known already."""

    ways: tuple[Outcome, ...] = ()

    @functools.cached_property
    def mean_s(self) -> float:
        """The mean of the sum."""
        return sum(way.mean_s for way in self.ways)

    @functools.cached_property
    def bounds_s(self) -> tuple[float, float]:
        """The least and the most that the sum can be."""
        bounds = [way.bounds_s for way in self.ways]
        return sum(least for least, _ in bounds), sum(most for _, most in bounds)


def _row(*ways: Outcome) -> Outcome:
    """``ways`` one after another."""
    steps = tuple(step for way in ways for step in way.steps)
    joules, up_bytes = sum(way.joules for way in ways), sum(way.up_bytes for way in ways)
    return _Row(steps, joules, up_bytes, ways=ways)


def every(
    found: Scenario, grids: Sequence[Floats] | None = None, *, levels: int | None = None
) -> Iterator[Block]:
    """Every plan of the grid, with a gateway where the scenario has one.

    The arguments are those of `presplit.plan.evaluate.evaluate`.
    """
    if found.between is None:
        yield from evaluate(found, grids, levels=levels)
        return
    weights, last = weighing(found, grids, levels=levels), found.net.last
    for form in found.forms:
        yield Block(found, head_of(found, last, form, weights(last, form)), PLAIN, form, None)
    for split in range(last):
        for form in found.forms:
            yield from _tiered(found, found.between, split, form, weights)


def _tiered(
    found: Scenario,
    between: Between,
    split: int,
    form: str,
    weights: Callable[[int, str], Weights],
) -> Iterator[Tiered]:
    """All plans in which the edge computes in ``form`` and cuts at ``split``."""

    @functools.cache
    def head(codec: str, there: str, reached: int, passes_on: bool, exits: bool) -> Head:
        first = _first(found, between, split, codec, passes_on=passes_on)

        def further(end: Outcome, names: Sequence[str]) -> list[Outcome]:
            if passes_on:
                return [_row(end, first)]
            ways = _at_gateway(found, between, split, reached, tuple(names), there)
            return [_row(end, first, way) for way in ways]

        behind = weights(reached if exits else split, form)
        return head_of(found, split, form, behind, further)

    for both in cuts(found, between.gateway, split, form):
        second = both.onward
        exact = both.form == form and found.unchanged(split, both.codec)
        exits = exact and split < second.split < found.net.last
        done = head(both.codec, both.form, second.split, both.passes_on, exits)
        way = None
        if second.split < found.net.last:
            way = _second(found, between, second, passes_on=both.passes_on)
        yield Tiered(found, done, both.codec, both.form, way, both)


def cuts(found: Scenario, gateway: Costs, split: int, form: str) -> Iterator[Cuts]:
    """Every pair of cuts whose worth is known, of an edge in ``form`` that cuts at ``split``."""
    exact = [codec for codec in found.payload_bytes[split] if found.unchanged(split, codec)]
    for codec, server_form in found.ways(split, form):
        lossy = (split, codec, form, server_form)
        for first in (codec, *(other for other in exact if other != codec)):
            yield Cuts(split, first, server_form, Onward(split, codec, server_form), lossy)
    for codec, there in found.ways(split, form, gateway):
        first = (split, codec, form, there)
        loses = there != form or not found.unchanged(split, codec)
        for place in range(split + 1, found.net.last + 1):
            for second, server_form in found.ways(place, there):
                again = there != server_form or not found.unchanged(place, second)
                if loses and again:
                    continue
                lossy = first if loses else (place, second, form, server_form)
                yield Cuts(split, codec, there, Onward(place, second, server_form), lossy)


def _first(
    found: Scenario, between: Between, split: int, codec: str, *, passes_on: bool
) -> Outcome:
    """From the edge to where the gateway has the boundary's values, or just its codes."""
    decoding = NOTHING if passes_on else between.gateway.decoding_s(codec, split)
    return cost.hop(
        found.link,
        found.payload_bytes[split][codec],
        encoding=found.edge.encoding_s(codec, split),
        there=(found.edge.ask_s, decoding),
        power_w=found.edge.power_w,
    )


def _second(found: Scenario, between: Between, onward: Onward, *, passes_on: bool) -> Outcome:
    """From the gateway to the server's answer; what that takes of energy is not the edge's."""
    key = ("second", onward, passes_on)
    if key not in found.memo:
        codec, split, server = onward.codec, onward.split, found.server
        way = cost.hop(
            between.uplink,
            found.payload_bytes[split][codec],
            encoding=NOTHING if passes_on else between.gateway.encoding_s(codec, split),
            there=(
                between.gateway.ask_s,
                found.queue,
                server.decoding_s(codec, split),
                server.forms[onward.server_form].tail_s[split],
            ),
            power_w=0.0,
        )
        found.memo[key] = [Outcome(way.steps, 0.0, way.up_bytes)]
    return found.memo[key][0]


def _at_gateway(
    found: Scenario, between: Between, start: int, split: int, used: tuple[str, ...], form: str
) -> list[Outcome]:
    """What the gateway computes, for each way to end there."""
    key = ("gateway", start, split, used, form)
    if key not in found.memo:
        found.memo[key] = cost.at_gateway(
            found.net, start=start, split=split, used=used, costs=between.gateway, form=form
        )
    return found.memo[key]
