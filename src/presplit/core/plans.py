"""A plan: where to cut, when exits answer, how the cut travels, what is expected of it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from presplit.core.errors import SpecError
from presplit.core.types import Net
from presplit.core.value import Deadline, NonNegative, Share, Value


class Estimate(Value, frozen=True):
    """What a plan is expected to do for one sample, and how that was reached.

    ``how`` is "counted" or "measured".
    """

    mean_s: NonNegative
    p50_s: NonNegative
    p99_s: NonNegative
    accuracy: Share
    edge_share: Share
    up_bytes: NonNegative
    energy_j: NonNegative
    macs: NonNegative
    how: str
    all_edge: bool = False
    """True if the split is the net's last boundary, so that no server is ever asked."""


class Plan(Value, frozen=True):
    """Where to cut, when an exit may answer, and how the cut travels.

    ``thresholds`` maps an exit on the edge to the least score with which it answers; an exit that
    is not named never answers early. ``split`` 0 is all on the server, ``net.last`` all on the
    edge.
    """

    split: Annotated[int, Meta(ge=0)]
    thresholds: dict[str, float] = {}
    codec: str = "float32"
    policy: str = "confidence"
    deadline_s: Deadline | None = None
    expected: Estimate | None = None

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
