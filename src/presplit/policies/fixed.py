"""A fixed split: the plan's, whatever the link does. The baseline that every other split policy must beat."""

from __future__ import annotations

from presplit.core.errors import SpecError
from presplit.core.protocols import SplitPolicy
from presplit.core.types import Net


def fixed(split: int) -> SplitPolicy:
    """A policy that always cuts at boundary ``split``; raises `SpecError` when the net has no such boundary.

    >>> from presplit.core.types import Boundary, Exit
    >>> fixed(1)(Net((Boundary("image", (4,)), Boundary("logits", (2,))), (Exit("final", 1, 2),)))
    1
    """

    def choose(net: Net) -> int:
        if not 0 <= split <= net.last:
            raise SpecError(f"split must be in 0..{net.last}, got {split}")
        return split

    return choose
