"""Labelled samples as plain arrays: small enough to hold in memory, simple enough to index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError
from presplit.core.preparation import Preparation


@dataclass(frozen=True, eq=False)
class Samples:
    """``x``: float32 ``(n, *shape)``, images in 0..1; ``y``: int64 ``(n,)`` labels. Read-only.

    uint8 images are scaled to 0..1. Raises `DataError` for sizes that disagree, values that are not
    finite, and labels that are not whole numbers from 0 on.

    >>> Samples(np.full((1, 2), 255, np.uint8), np.array([3])).x.tolist()
    [[1.0, 1.0]]
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        given, labels = np.asarray(self.x), np.asarray(self.y)
        x = in_units(given)
        y = np.ascontiguousarray(labels, np.int64)
        if len(x) != len(y) or len(x) == 0 or x.ndim < 2 or y.ndim != 1:
            raise DataError(
                f"x must be (n, ...) and y (n,) with n >= 1, got {x.shape} and {y.shape}"
            )
        if not np.isfinite(x).all():
            raise DataError("x holds values that are not finite")
        if not np.array_equal(y, labels) or y.min() < 0:
            raise DataError(
                f"y must hold whole numbers from 0 on, got {labels.min()}..{labels.max()} "
                f"({labels.dtype})"
            )
        x.flags.writeable = y.flags.writeable = False
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, places: npt.NDArray[np.int64] | slice) -> Samples:
        """The samples at ``places``."""
        return Samples(self.x[places], self.y[places])


def in_units(given: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """``given`` as float32, contiguous; uint8 images are scaled to 0..1.

    >>> in_units(np.array([[0, 255]], np.uint8)).tolist()
    [[0.0, 1.0]]
    """
    x = np.ascontiguousarray(given, np.float32)
    return x / np.float32(255) if given.dtype == np.uint8 else x


@dataclass(frozen=True)
class Dataset:
    """A training and a test set with the classes' names.

    ``rate``: of sounds, samples a second; ``left_out``: a sentence for each file that is not in it
    because it is none; ``preparation``: what an image file goes through to be such a sample.
    """

    name: str
    train: Samples
    test: Samples
    labels: tuple[str, ...]
    rate: int | None = None
    left_out: tuple[str, ...] = ()
    preparation: Preparation | None = None

    def padded(self, features: int) -> Dataset:
        """The same with every sample flattened and zero-padded to ``features`` values.

        arXiv 2407.11763 does so. Raises `DataError` if a sample has more.
        """
        train, test = (Samples(_pad(part.x, features), part.y) for part in (self.train, self.test))
        how = self.preparation
        if how is not None:
            how = msgspec.structs.replace(how, flat=features)
        return replace(self, train=train, test=test, rate=None, preparation=how)


def _pad(x: npt.NDArray[np.float32], features: int) -> npt.NDArray[np.float32]:
    flat = x.reshape(len(x), -1)
    if flat.shape[1] > features:
        raise DataError(
            f"a sample has {flat.shape[1]} values, which is more than pad_to = {features}"
        )
    return np.pad(flat, ((0, 0), (0, features - flat.shape[1])))


def hold_out(samples: Samples, share: float, *, seed: int = 0) -> tuple[Samples, Samples]:
    """``samples`` in two parts, at random, with the same share of every class.

    The first stays for training, the second is ``share`` (0..1) of it, held out. One sample at
    least of every class stays for training, as long as there are enough others to hold out.

    >>> train, held = hold_out(Samples(np.zeros((10, 2)), np.arange(10)), 0.2)
    >>> len(train), len(held)
    (8, 2)
    """
    held = round(share * len(samples))
    if not 0 < held < len(samples):
        raise DataError(
            f"a share of {share} of {len(samples)} samples leaves nothing to train or to hold out"
        )
    order = np.random.default_rng(seed).permutation(len(samples))
    # The k-th sample of a class of n stands at (k + 1/2) / n: whatever is cut off the front has of
    # each class the same share, as nearly as whole samples can. The last of each goes last of all.
    counts = np.bincount(samples.y)
    standing = np.empty(len(samples))
    for label in np.flatnonzero(counts):
        own = order[samples.y[order] == label]
        standing[own] = (np.arange(counts[label]) + 0.5) / counts[label]
        standing[own[-1]] = 1
    order = order[np.argsort(standing[order], kind="stable")]
    return samples.take(np.sort(order[held:])), samples.take(np.sort(order[:held]))
