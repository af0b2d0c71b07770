"""What runs a net and what each part of the net costs there: counted, or measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from presplit.core.times import NOTHING, Times, total
from presplit.core.value import NonNegative, Positive, Value


class Device(Value, frozen=True):
    """What runs a part of a net. A named guess until measured."""

    name: str
    macs_per_s: Positive
    memory_bytes: Positive
    power_w: NonNegative
    overhead_s: NonNegative = 0.0
    """Time that each call into an engine costs besides its multiplications."""
    source: str = ""
    date: str = ""

    def counted_s(self, macs: float) -> float:
        """Seconds of one call that does so many multiply-accumulates, as counted."""
        return macs / self.macs_per_s + self.overhead_s

    def counted_j(self, macs: float) -> float:
        """Joules of such a call: its seconds at `power_w` watts."""
        return self.power_w * self.counted_s(macs)


class Parts(Value, frozen=True):
    """What the parts of a net take for one sample, as they really run: stretches in one engine.

    ``head_s[k]`` is what the segments up to boundary k take together ([0] is nothing),
    ``tail_s[k]`` those from boundary k on ([last] is nothing): a stretch costs less than the sum of
    its segments, because each call and each layout of its own costs. ``exit_s[j]`` is what exit j
    adds to the stretch that ends at it (nothing for the last exit, which is the last segment's
    output). Heads and tails come after a pause; ``wake_s`` is what waking up takes of each.

    >>> parts = Parts(
    ...     head_s=(NOTHING, Times.of(0.5), Times.of(0.75), Times.of(1.0)),
    ...     tail_s=(Times.of(1.0), Times.of(0.75), Times.of(0.5), NOTHING),
    ...     exit_s=(NOTHING,),
    ... )
    >>> parts.stretch_s(0, 2).mean_s, parts.stretch_s(2, 3).mean_s, parts.stretch_s(1, 2).mean_s
    (0.75, 0.5, 0.5)
    """

    head_s: tuple[Times, ...]
    tail_s: tuple[Times, ...]
    exit_s: tuple[Times, ...]
    wake_s: NonNegative = 0.0

    @classmethod
    def added(
        cls, segment_s: Sequence[Times], exit_s: Sequence[Times], *, call_s: float = 0.0
    ) -> Parts:
        """Parts whose segments simply add up, where each stretch costs ``call_s`` besides.

        >>> Parts.added([Times.of(1), Times.of(2)], [NOTHING], call_s=0.5).head_s[2].mean_s
        3.5
        """
        count = len(segment_s)
        heads = [total(segment_s[:k]).moved(call_s) for k in range(1, count + 1)]
        tails = [total(segment_s[k:]).moved(call_s) for k in range(count)]
        return cls((NOTHING, *heads), (*tails, NOTHING), tuple(exit_s))

    def stretch_s(self, start: int, stop: int, *, awake: bool = True) -> Times:
        """The segments from boundary ``start`` to ``stop`` in one engine.

        One in the middle takes what the head up to ``stop`` takes, less the head up to ``start``,
        and what cutting there adds: ``head + tail - whole`` at ``start``. One that does not begin
        at 0 follows another at once, so nothing has to wake up for it, unless it is not ``awake``.
        """
        if start == stop:
            return NOTHING
        if start == 0:
            return self.head_s[stop]
        woken_s = 0.0 if awake else self.wake_s
        if stop == len(self.head_s) - 1:
            return self.tail_s[start].moved(woken_s - self.wake_s)
        whole = self.tail_s[0].quantile(0.5) + self.wake_s
        cut_s = self.tail_s[start].quantile(0.5) - whole
        return self.head_s[stop].moved(cut_s + woken_s)

    def scaled(self, factor: float, call_s: float = 0.0) -> Parts:
        """The same where all takes ``factor`` times as long and each stretch ``call_s`` more.

        >>> parts = Parts.added([Times.of(1)], [Times.of(0.5)]).scaled(2, call_s=0.25)
        >>> parts.head_s[1].mean_s, parts.head_s[0].mean_s, parts.exit_s[0].mean_s
        (2.25, 0.0, 1.0)
        """
        heads = [each.scaled(factor).moved(call_s) for each in self.head_s[1:]]
        tails = [each.scaled(factor).moved(call_s) for each in self.tail_s[:-1]]
        exits = [each.scaled(factor) for each in self.exit_s]
        wake_s = self.wake_s * factor
        return Parts((NOTHING, *heads), (*tails, NOTHING), tuple(exits), wake_s)


class Costs(Value, frozen=True):
    """What each part of a net costs on one device; counting and measuring make the same type.

    ``forms`` has the times for each form in which the net computes. ``encode_s[codec][k]`` is what
    it takes to encode boundary k, ``decode_s`` what decoding it adds to the tail where this is the
    server: nothing if the codec is not there. ``answer_s`` is what an answer takes besides its
    engines, ``ask_s`` what asking a server takes besides the link and the server's engines: making,
    sending and reading the messages of both ends. Energy is ``power_w`` times the time of
    computing; ``energy`` says where the watts are from. ``peak_bytes`` is the most memory in use,
    ``processor`` and ``engine`` what ran, ``clock`` the state of the processor when it was
    measured, in words. ``precision`` is how well the medians are known, the half width of their 95
    % interval as a share of the median, for the worst of them; ``pause_s`` is how long the machine
    rested before each head and tail.
    """

    device: str
    forms: dict[str, Parts]
    how: Literal["counted", "measured"]
    when: str
    power_w: NonNegative = 0.0
    energy: Literal["profile", "measured", "unknown"] = "profile"
    encode_s: dict[str, tuple[Times, ...]] = {}
    decode_s: dict[str, tuple[Times, ...]] = {}
    answer_s: Times = NOTHING
    ask_s: Times = NOTHING
    threads: Annotated[int, Meta(ge=1)] = 1
    peak_bytes: NonNegative | None = None
    processor: str = ""
    engine: str = ""
    clock: str = ""
    precision: NonNegative | None = None
    pause_s: NonNegative = 0.0

    def encoding_s(self, codec: str, boundary: int) -> Times:
        """What it takes to encode ``boundary``."""
        return self.encode_s[codec][boundary] if codec in self.encode_s else NOTHING

    def decoding_s(self, codec: str, boundary: int) -> Times:
        """What it adds to a tail to decode ``boundary``."""
        return self.decode_s[codec][boundary] if codec in self.decode_s else NOTHING
