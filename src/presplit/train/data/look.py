"""A look at somebody's data, before a spec is written for it.

What is there, how much of each class, what is bad, and which settings suit it. The settings are
starting points that train in a few minutes on a laptop, no optimum.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from presplit.bundle.photo import size_of, strictly
from presplit.core.errors import DataError, InputError
from presplit.core.progress import track
from presplit.core.sound import Wav, wav_head
from presplit.train.data import DATASETS, Dataset, load
from presplit.train.data.archives import ARCHIVES, archive
from presplit.train.data.tree import File, Folder, Labelled, Zip, labelled

LOOKED_AT = 300
"""Files whose size is looked at before all are read."""
SIDE = 48
"""Pixels a side that photographs are brought to: a net learns them in minutes on a laptop."""
MOST_RATE = 16_000
"""Hz: speech and most noises are told apart by what is below half of it."""


@dataclass(frozen=True)
class Look:
    """What was found: ``data``, as `load` gives it with the settings here.

    ``size``, ``grey``, ``rate`` and ``length_s`` are settings for `load`, None or False where they
    are not wanted; ``sizes`` are the smallest and the largest image, ``(width, height)``.
    ``is_parted``: whether its owner says what is to test with; ``is_named``: it has a name here,
    and no path.
    """

    data: Dataset
    kind: str
    size: int | None = None
    grey: bool = False
    rate: int | None = None
    length_s: float | None = None
    sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
    is_parted: bool = True
    is_named: bool = False

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Samples of each class, to train and to test with."""
        parts = (self.data.train, self.data.test)
        found = [np.bincount(part.y, minlength=len(self.data.labels)) for part in parts]
        pairs = zip(*(each.tolist() for each in found), strict=True)
        return dict(zip(self.data.labels, pairs, strict=True))

    @property
    def unevenness(self) -> float:
        """How many times as large as the rarest class the commonest one is."""
        counts = [train for train, _ in self.counts.values() if train]
        return max(counts) / min(counts)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.data.train.x.shape[1:]


def look(name: str) -> Look:
    """Look at the data set ``name``, as `load` takes it; bad files of a folder are left out.

    Raises `DataError` if there is nothing that could be trained with, and what `load` raises.
    """
    if name in ARCHIVES:
        return _by_class(name, archive(name), is_named=True)
    if name in DATASETS:
        data = DATASETS[name]()
        return Look(data, _kind_of(data), is_named=True)
    if not os.path.exists(name):
        load(name)  # it says what there is
    suffix = name.lower().rpartition(".")[2]
    if suffix in ("csv", "npz"):
        data = load(name)
        return Look(data, _kind_of(data), is_parted=suffix == "npz")
    files = labelled(Zip(name) if suffix == "zip" else Folder(name))
    return _by_class(name, files, is_named=False)


def _by_class(name: str, files: Labelled, *, is_named: bool) -> Look:
    """A look at images or sounds."""
    found = _images(name, files) if files.kind == "images" else _sounds(name, files)
    return replace(found, is_parted=files.is_parted, is_named=is_named)


def _kind_of(data: Dataset) -> str:
    """What samples are, by their shape."""
    if data.rate:
        return "sounds"
    shape = data.train.x.shape[1:]
    is_square = len(shape) == 3 and shape[1] == shape[2] and shape[1] >= 8
    return "images" if is_square else "rows"


def _images(name: str, files: Labelled) -> Look:
    sizes = _sizes(_some(files))
    if not sizes:
        raise DataError(f"{files.where}: none of its images to train with can be read")
    shorter = int(statistics.median(min(size) for size in sizes))
    is_small = len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] and shorter <= 2 * SIDE // 3
    size = None if is_small else max(8, min(SIDE, shorter))
    data = load(name, size=size, skip_bad=True)
    x = data.train.x
    grey = bool((x[:, 0] == x[:, 1]).all() and (x[:, 0] == x[:, 2]).all())
    if grey:
        data = load(name, size=size, grey=True, skip_bad=True)
    ends = min(sizes, key=math.prod), max(sizes, key=math.prod)
    return Look(data, "images", size=size, grey=grey, sizes=ends)


def _some(files: Labelled) -> list[File]:
    """Some of the files to train with, of every class."""
    all_files = [file for own in files.train.values() for file in own]
    return all_files[:: max(1, len(all_files) // LOOKED_AT)]


def _sizes(files: Sequence[File]) -> list[tuple[int, int]]:
    """The sizes of those images that can be read."""
    found: list[tuple[int, int]] = []
    with strictly():
        for file in track(files, "looking at images", "files"):
            try:
                found.append(size_of(file.read()))
            except (InputError, DataError):
                continue  # it is told with the others when all are read
    return found


def _sounds(name: str, files: Labelled) -> Look:
    heads = _heads([file for own in files.train.values() for file in own])
    if not heads:
        raise DataError(f"{files.where}: none of its sounds to train with can be read")
    rates = Counter(head.rate for head in heads)
    usual = rates.most_common(1)[0][0]
    rate = None if len(rates) == 1 and usual <= MOST_RATE else min(usual, MOST_RATE)
    lengths = sorted(head.samples / head.rate for head in heads)
    long = lengths[int(0.95 * (len(lengths) - 1))]
    length_s = round(long, 2) if lengths[-1] > 1.5 * long and long >= 0.01 else None
    data = load(name, rate=rate, length_s=length_s, skip_bad=True)
    return Look(data, "sounds", rate=rate, length_s=length_s)


def _heads(files: Sequence[File]) -> list[Wav]:
    """What those sounds that can be read say of themselves."""
    found: list[Wav] = []
    for file in track(files, "looking at sounds", "files"):
        try:
            found.append(wav_head(file.read()))
        except DataError:
            continue
    return found
