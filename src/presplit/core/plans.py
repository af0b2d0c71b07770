"""A plan: where to cut, when exits answer, how the cut travels, what is expected of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from presplit.core.costs import Device
from presplit.core.errors import SpecError
from presplit.core.link import Link
from presplit.core.types import Net
from presplit.core.value import Deadline, NonNegative, Positive, Share, Value

FallbackName = Literal["none", "exit", "deepest"]
"""What an edge may run behind its split where no server answers (see `Plan`)."""


class Estimate(Value, frozen=True):
    """What a plan is expected to do for one sample, and how that was reached.

    ``how`` is "counted" or "measured".
    """

    mean_s: NonNegative
    p50_s: NonNegative
    p99_s: NonNegative
    accuracy: Share
    edge_share: Share
    """The share of samples that the device itself answers."""
    up_bytes: NonNegative
    energy_j: NonNegative
    macs: NonNegative
    how: str
    all_edge: bool = False
    """True if the split is the net's last boundary, so that no server is ever asked."""
    in_time: Share | None = None
    """The probability that an answer is there by the plan's deadline."""
    samples: Annotated[int, Meta(ge=0)] = 0
    """How many held-out samples the accuracy was measured on."""
    accuracy_low: Share = 0.0
    accuracy_high: Share = 1.0
    """Between these the accuracy on all such data lies, with 95 % confidence."""
    why: tuple[str, ...] = ()
    """In sentences: why the plan won, what limits it, what its promise rests on."""
    beside: dict[str, Estimate] = {}
    """What one could do instead, by its name."""
    gateway_share: Share = 0.0
    """The share of samples that a gateway answers without asking the server."""


class Gateway(Value, frozen=True):
    """What a gateway between the edge and the server does: the net's second cut.

    It computes up to the boundary ``split`` and sends that on by ``codec`` to a server that
    computes in ``server_form``; ``thresholds`` are those of its own exits, behind the edge's split.
    With the edge's own split and codec it passes on what comes, as it came; with the net's last
    boundary it asks nobody. ``spare_s`` is kept back of the time that the edge gives, for the way
    to the gateway and back, which the gateway cannot see.
    """

    split: Annotated[int, Meta(ge=0)]
    thresholds: dict[str, float] = {}
    codec: str = "float32"
    server_form: str = "float32"
    spare_s: NonNegative = 0.02


class PlannedFor(Value, frozen=True):
    """Where a plan was made to run: the machines and links with the numbers that it was made with.

    With a ``gateway``, ``link`` is the edge's to that, and ``uplink`` the gateway's to the server.
    ``measured`` says of each machine, "edge", "server" or "gateway", on what and when its costs
    were measured; those of the others were counted.

    >>> pi = Device("pi", macs_per_s=1e9, memory_bytes=1e9, power_w=4.0)
    >>> lte = Link("lte", up_bps=5e6, down_bps=12e6, rtt_s=0.07)
    >>> PlannedFor(pi, lte, pi, measured={"edge": "Cortex-A72, 2026-01-01"}).words
    'on pi with pi behind lte'
    """

    device: Device
    link: Link
    server: Device
    gateway: Device | None = None
    uplink: Link | None = None
    measured: dict[str, str] = {}

    @property
    def words(self) -> str:
        """The names of all, as part of a sentence."""
        if self.gateway is None or self.uplink is None:
            return f"on {self.device.name} with {self.server.name} behind {self.link.name}"
        return (
            f"on {self.device.name} with {self.gateway.name} behind {self.link.name} and "
            f"{self.server.name} behind {self.uplink.name}"
        )


class Plan(Value, frozen=True):
    """Where to cut, when an exit may answer, and how the cut travels.

    ``thresholds`` maps an exit on the edge to the least score with which it answers; an exit that
    is not named never answers early. ``split`` 0 is all on the server, ``net.last`` all on the
    edge. The edge computes in ``form``, whom it asks in ``server_form``: the server, or a gateway
    that does what ``gateway`` says. Where no server answers in time, the edge goes on behind the
    split as far as ``fallback`` lets it: not at all ("none"), to the next exit if none has run
    ("exit"), or as deep as it gets by the deadline ("deepest"). What may run is held in memory.
    ``planned_for`` is where it was made for, None of a plan that nobody searched for.
    """

    split: Annotated[int, Meta(ge=0)]
    thresholds: dict[str, float] = {}
    codec: str = "float32"
    policy: str = "confidence"
    form: str = "float32"
    server_form: str = "float32"
    deadline_s: Deadline | None = None
    expected: Estimate | None = None
    gateway: Gateway | None = None
    fallback: FallbackName = "deepest"
    planned_for: PlannedFor | None = None

    def fits(self, net: Net) -> None:
        """Raise `SpecError` unless the split and the exits exist in ``net``."""
        if self.split > net.last:
            raise SpecError(f"split must be in 0..{net.last}, got {self.split}")
        known = [e.name for e in net.exits_up_to(self.split)]
        for name in self.thresholds:
            if name not in known:
                raise SpecError(
                    f"thresholds: no exit {name!r} at or before split {self.split}; there are: "
                    f"{known}"
                )
        if self.gateway is not None:
            self._second_fits(self.gateway, net)

    def _second_fits(self, gateway: Gateway, net: Net) -> None:
        """Raise `SpecError` unless the gateway's cut and exits lie behind the edge's."""
        if not self.split <= gateway.split <= net.last:
            raise SpecError(
                f"gateway.split must be in {self.split}..{net.last}, from the edge's split on, got "
                f"{gateway.split}"
            )
        behind = [e.name for e in net.exits_up_to(gateway.split) if e.after > self.split]
        for name in gateway.thresholds:
            if name not in behind:
                raise SpecError(
                    f"gateway.thresholds: no exit {name!r} behind split {self.split} and up to "
                    f"{gateway.split}; there are: {behind}"
                )


class Conditions(Value, frozen=True):
    """What a moment is like on the link, the server and the device.

    ``up_bps``: bits a second on the way up; ``rtt_s``: what a request without any bytes takes to
    come back as a reply, the mean of all that are late or lost by chance; the factors: how many
    times as slow as planned the server and the device are.
    """

    up_bps: Positive
    rtt_s: NonNegative
    server_factor: Positive = 1.0
    device_factor: Positive = 1.0


class Row(Value, frozen=True):
    """A plan, and what one sample costs by it in parts, so that any conditions can be put in.

    ``edge_s``: mean seconds on the device; ``asked``: the share of samples that the server is asked
    for; ``up_bytes``: what is sent for one of those, headers included; ``tail_s``: what the server
    takes for it, as it counts itself; ``ask_s``: what asking takes besides, whatever the server's
    load: making, handing over and reading messages, and what so many bytes take on the link beyond
    the round trip and the rate. ``meanwhile_s``: what the device takes, while the reply is on its
    way, for an answer of its own that is as welcome, so that the first of both is the answer; None
    where it computes no such answer. ``mean_s`` reckons without it.
    """

    plan: Plan
    edge_s: NonNegative
    asked: Share
    up_bytes: NonNegative
    tail_s: NonNegative
    accuracy: Share
    energy_j: NonNegative = 0.0
    meanwhile_s: NonNegative | None = None
    ask_s: NonNegative = 0.0

    def mean_s(self, now: Conditions) -> float:
        """The mean time of an answer under the conditions ``now``.

        >>> row = Row(Plan(1), edge_s=0.01, asked=0.5, up_bytes=1000, tail_s=0.02, accuracy=0.9)
        >>> row.mean_s(Conditions(up_bps=8e5, rtt_s=0.03, device_factor=2))
        0.05
        """
        way_s = now.rtt_s + 8 * self.up_bytes / now.up_bps + self.ask_s
        way_s += now.server_factor * self.tail_s
        return now.device_factor * self.edge_s + self.asked * way_s


class PlanTable(Value, frozen=True):
    """A short list of plans, each the best under some conditions.

    ``usual`` are the conditions that are expected before anything was seen.

    >>> near = Row(Plan(0), edge_s=0, asked=1, up_bytes=1000, tail_s=0.001, accuracy=0.9)
    >>> alone = Row(Plan(3), edge_s=0.1, asked=0, up_bytes=0, tail_s=0, accuracy=0.9)
    >>> table = PlanTable((near, alone))
    >>> table.best(Conditions(up_bps=1e6, rtt_s=0.02)), table.best(Conditions(up_bps=1e4, rtt_s=1))
    (0, 1)
    """

    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=32)]
    usual: Conditions = Conditions(up_bps=10e6, rtt_s=0.02)

    def best(self, now: Conditions) -> int:
        """The number of the row with the least mean time under the conditions ``now``."""
        seconds = [row.mean_s(now) for row in self.rows]
        return seconds.index(min(seconds))
