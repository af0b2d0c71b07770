"""What is allowed in a data set and probably not meant: each doubt with its numbers and its cure.

The bounds are such that the data sets on the shelf raise none. Plans promise a loss of accuracy
with 95 % confidence, which takes held-out samples (`presplit.plan.risk`); other shares of classes
are told from chance by Pearson's chi-square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from presplit.core.types import Floats
from presplit.train.data.samples import Samples

LOSS = 0.05
"""A loss of accuracy that plans should be able to promise not to pass."""
SURE = 0.95
OTHER = 0.25
"""Share of the test samples that would need another class, beyond which shares differ much."""
SAME = 0.01
"""Share of samples that may be in another part of the data too."""
LARGE = 16.0
"""Images and sounds have values of about 1; so far they may reach."""
WIDE = 100.0
"""The same for the spread of one column of numbers."""
LOOKED_AT = 2000
"""Samples whose values are looked at, evenly spread."""
NAMED = 5


def data_doubts(
    train: Samples, held_out: Samples, test: Samples, *, names: Sequence[str], scaled: bool = False
) -> list[str]:
    """Sentences on the data that a run is trained, chosen and tested with; none where all is well.

    ``scaled``: the net brings its inputs to one scale itself.
    """
    found = [
        _few(len(held_out)),
        _missing(train, held_out, test, names),
        _other_shares(train, held_out, test, names),
        _twice(train, test, "test", "their accuracy is better than that on new ones"),
        _twice(train, held_out, "held-out", "thresholds are chosen too boldly"),
        "" if scaled else scale_doubt(train.x),
    ]
    return [sentence for sentence in found if sentence]


def scale_doubt(x: Floats) -> str:
    """A sentence if ``x``, float32 ``(n, *shape)``, is far from the scale that nets learn from.

    >>> scale_doubt(np.full((2, 1, 4, 4), 255, np.float32))[:46]
    'the samples have values from 255 to 255: nets '
    """
    some = x[np.linspace(0, len(x) - 1, min(LOOKED_AT, len(x))).astype(np.int64)]
    low, high = float(some.min()), float(some.max())
    if some.ndim > 2:
        if max(abs(low), abs(high)) <= LARGE:
            return ""
        return (
            f"the samples have values from {low:.4g} to {high:.4g}: nets learn from values of "
            "about 1; store images as bytes (uint8), which are scaled, or divide them"
        )
    spread = some.std(0)
    widest = int(spread.argmax())
    if spread[widest] <= WIDE:
        return ""
    return (
        f"column {widest + 1} has values from {some[:, widest].min():.4g} to "
        f"{some[:, widest].max():.4g}: nets learn from values of about 1; data.standardise = true "
        "brings every column there"
    )


def _few(held: int) -> str:
    loss = 1 - (1 - SURE) ** (1 / held)
    if loss <= LOSS:
        return ""
    return (
        f"{held} samples are held out: with {SURE:.0%} confidence no plan can promise to lose less "
        f"than {100 * loss:.1f} points of accuracy; more samples, or a larger data.validation, "
        "cure it"
    )


def _missing(train: Samples, held_out: Samples, test: Samples, names: Sequence[str]) -> str:
    counts = [np.bincount(part.y, minlength=len(names)) for part in (train, held_out, test)]
    untrained = [names[k] for k in np.flatnonzero((counts[0] + counts[1] == 0) & (counts[2] > 0))]
    if untrained:
        return (
            f"{_listed(untrained)}: there are test samples of it and none to train with, so all of "
            "them are answered wrong; add some, or take the class out"
        )
    scarce = [names[k] for k in np.flatnonzero((counts[1] == 0) & (counts[0] > 0))]
    if not scarce:
        return ""
    return (
        f"none is held out of {_listed(scarce)}: what thresholds promise says nothing of that; "
        "more samples, or a larger data.validation, cure it"
    )


def _other_shares(train: Samples, held_out: Samples, test: Samples, names: Sequence[str]) -> str:
    """Whether the test set has its classes in other shares than the samples to train with."""
    learned = np.bincount(np.concatenate([train.y, held_out.y]), minlength=len(names)).astype(float)
    known = learned > 0  # a class without any is another doubt
    tested = np.bincount(test.y, minlength=len(names)) * known
    if not tested.any():
        return ""
    ours, theirs = learned / learned.sum(), tested / tested.sum()
    apart = float(np.abs(ours - theirs).sum() / 2)
    freedom = max(1, int(known.sum()) - 1)
    expected = ours[known] * tested.sum()
    chi_square = float(((tested[known] - expected) ** 2 / expected).sum())
    by_chance = freedom + 4 * (2 * freedom) ** 0.5
    if apart <= OTHER or chi_square <= by_chance:
        return ""
    most = int(np.abs(ours - theirs).argmax())
    return (
        f"the test set has its classes in other shares than the samples to train with: {apart:.0%} "
        f"of them would be of another class ({names[most]}: {ours[most]:.0%} to train with, "
        f"{theirs[most]:.0%} to test with); read the accuracy in which every class counts alike"
    )


def _twice(train: Samples, other: Samples, kind: str, what: str) -> str:
    count = also_in(other.x, train.x)
    if count <= SAME * len(other):
        return ""
    return (
        f"{count:,} of {len(other):,} {kind} samples are among those to train with, byte for byte: "
        f"{what}; take copies out before the data is split"
    )


def also_in(some: Floats, others: Floats) -> int:
    """How many of the samples ``some`` are among ``others`` too, byte for byte.

    >>> also_in(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:2])
    2
    """
    if some.shape[1:] != others.shape[1:]:
        return 0
    known = {hash(row.tobytes()) for row in _thin(others)}
    likely = [k for k, row in enumerate(_thin(some)) if hash(row.tobytes()) in known]
    if not likely:
        return 0
    whole = {hash(row.tobytes()) for row in others}
    return sum(hash(some[k].tobytes()) in whole for k in likely)


def _thin(x: Floats) -> npt.NDArray[np.float32]:
    """Some hundred numbers of each sample: enough to see that it is another one."""
    flat = x.reshape(len(x), -1)
    return np.ascontiguousarray(flat[:, :: max(1, flat.shape[1] // 256)])


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)}"
