"""How far a share that was counted on some samples can be trusted."""

from __future__ import annotations

import math


def interval(share: float, samples: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval around a ``share`` of so many samples, 95 % unless ``z`` says otherwise.

    >>> low, high = interval(0.982, 500)
    >>> round(low, 3), round(high, 3)
    (0.966, 0.991)
    """
    if samples == 0:
        return 0.0, 1.0
    middle = share + z * z / (2 * samples)
    wide = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    whole = 1 + z * z / samples
    return max(0.0, (middle - wide) / whole), min(1.0, (middle + wide) / whole)
