"""What runs a net and what each part of the net costs there: counted, or measured."""

from __future__ import annotations

from typing import Literal

from presplit.core.times import NOTHING, Times
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


class Costs(Value, frozen=True):
    """What each part of a net costs on one device; counting and measuring make the same type.

    ``segment_s[k]`` is what segment k takes (from boundary k to k + 1) for one sample;
    ``exit_s[j]`` what exit j's own layers take (nothing for the last exit, which is the last
    segment's output); ``codec_s[codec][k]`` what it takes to encode boundary k, or to decode it
    where this is the server: nothing if the codec is not there. ``segment_j`` is the energy of each
    segment in joules, ``peak_bytes`` the most memory in use, ``clock`` the state of the processor
    when it was measured, in words.
    """

    device: str
    segment_s: tuple[Times, ...]
    exit_s: tuple[Times, ...]
    segment_j: tuple[NonNegative, ...]
    how: Literal["counted", "measured"]
    when: str
    codec_s: dict[str, tuple[Times, ...]] = {}
    peak_bytes: NonNegative | None = None
    clock: str = ""

    @property
    def power_w(self) -> float:
        """Watts while computing, as the segments' energy implies."""
        seconds = sum(part.mean_s for part in self.segment_s)
        return sum(self.segment_j) / seconds if seconds else 0.0

    def coding_s(self, codec: str, boundary: int) -> Times:
        """What it takes to encode or decode ``boundary``."""
        return self.codec_s[codec][boundary] if codec in self.codec_s else NOTHING
