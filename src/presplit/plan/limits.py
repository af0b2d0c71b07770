"""What a plan must keep to: every wish of a user, checked once."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from presplit.core.errors import PlanError
from presplit.core.plans import FallbackName
from presplit.core.value import Deadline, NonNegative, Share, Value

DROP = 0.005
"""What may be lost of the accuracy where nothing is said: half a point."""
CONFIDENCE = 0.95
RELIABILITY = 0.99

Odds = Annotated[float, Meta(gt=0, lt=1)]


class Limits(Value, frozen=True):
    """What a plan must keep to; None is no limit.

    ``reliability``: the probability that an answer is there by ``deadline_s``. ``min_accuracy`` and
    ``max_drop`` (below the net's own classifier) are shares, 0.005 is half a point; if neither is
    said, half a point may be lost. ``confidence``: how sure the promise of accuracy must be, for
    all data drawn as the held-out samples were; None believes the samples as they are. The mean
    energy of a sample on the edge, the weights on the edge and the mean bytes that a sample sends
    are limited by ``max_energy_j``, ``max_memory_bytes`` and ``max_up_bytes``.
    ``fallback`` is what the edge may run, and so holds, for when no server answers; if nothing is
    said, it is all of the net where there is the memory for it, else the next exit.
    """

    deadline_s: Deadline | None = None
    reliability: Annotated[float, Meta(gt=0, le=1)] = RELIABILITY
    min_accuracy: Share | None = None
    max_drop: Share | None = None
    confidence: Odds | None = CONFIDENCE
    max_energy_j: NonNegative | None = None
    max_memory_bytes: NonNegative | None = None
    max_up_bytes: NonNegative | None = None
    fallback: FallbackName | None = None

    @property
    def drop(self) -> float | None:
        """What may be lost against the net's own classifier; None if only a floor is asked."""
        if self.max_drop is None and self.min_accuracy is None:
            return DROP
        return self.max_drop

    def floor(self, accuracy: float) -> float:
        """The least accuracy, where the net's own classifier has ``accuracy``.

        >>> Limits().floor(0.9), Limits(min_accuracy=0.8).floor(0.9)
        (0.895, 0.8)
        """
        lost = 0.0 if self.drop is None else accuracy - self.drop
        return max(lost, self.min_accuracy or 0.0)

    def merged(self, **changes: float | None) -> Limits:
        """The same with these fields changed."""
        return msgspec.structs.replace(self, **changes)

    def checked(self) -> Limits:
        """The same; raises `PlanError` if a deadline is missing that the reliability is meant for.

        >>> Limits(reliability=0.999).checked()
        Traceback (most recent call last):
            ...
        presplit.core.errors.PlanError: reliability 0.999 is of answers by a deadline: give \
deadline_s too
        """
        if self.deadline_s is None and self.reliability != RELIABILITY:
            raise PlanError(
                f"reliability {self.reliability} is of answers by a deadline: give deadline_s too"
            )
        return self
