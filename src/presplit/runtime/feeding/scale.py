"""Whether samples come in the scale that a net was made with, as far as its bundle tells it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle import Bundle
from presplit.core.encoding import Affine, AffineChannels

BEYOND = 4.0
"""Half of the samples reach so many times as far as any did with which the bundle was made."""
WITHIN = 50.0
"""All samples together reach only so small a part of that."""
LOOKED_AT = 64


def reach(bundle: Bundle) -> float | None:
    """The largest value, without its sign, that inputs had as the bundle was made; None: unknown.

    The int8 codec of the input has to reach over them, so its scale tells it.
    """
    encoding = bundle.manifest.ports[0].encodings.get("int8")
    if isinstance(encoding, Affine):
        pairs = [(encoding.scale, encoding.zero_point)]
    elif isinstance(encoding, AffineChannels):
        pairs = list(zip(encoding.scales, encoding.zero_points, strict=True))
    else:
        return None
    return max(scale * max(128 + zero, 127 - zero) for scale, zero in pairs)


def other_scale(rows: npt.NDArray[Any], known: float | None) -> str:
    """A sentence if the samples ``rows`` are of another scale than those that reached ``known``.

    >>> other_scale(np.full((4, 8), 255.0), 1.0)[:43]
    'the samples reach 255, and those that the b'
    >>> other_scale(np.full((4, 8), 1.0), 1.0)
    ''
    """
    if known is None or rows.dtype.kind != "f":
        return ""
    largest = np.abs(rows[:LOOKED_AT]).reshape(min(len(rows), LOOKED_AT), -1).max(1)
    typical, most = float(np.median(largest)), float(largest.max())
    too_large, too_small = typical > BEYOND * known, 0 < most < known / WITHIN
    if not (too_large or too_small):
        return ""
    cure = "divide them, or give bytes (uint8), which are scaled to 0..1"
    return (
        f"the samples reach {most:.4g}, and those that the bundle was made with {known:.4g}: "
        f"answers to another scale are worth little; {cure if too_large else 'multiply them'}"
    )
