"""Sounds by class, ``train/CLASS/NAME.wav`` and ``test/CLASS/NAME.wav``."""

from __future__ import annotations

import numpy as np

from presplit.core.errors import DataError, context
from presplit.core.sound import Wav, fitted, resampled, wav, wav_head
from presplit.train.data.images import MOST_BYTES
from presplit.train.data.samples import Dataset, Samples
from presplit.train.data.tree import Classes, File, Labelled


def sounds(files: Labelled, *, rate: int | None = None, length_s: float | None = None) -> Dataset:
    """Sounds float32 ``(n, 1, samples)`` in -1..1, their channels mixed down.

    With ``rate`` in Hz, each is brought to it; without, all must have one. Of a sound longer than
    ``length_s`` the middle is taken, a shorter one lies in the middle of silence; without, the
    longest one to train with says the length. Raises `DataError` naming the file that is not what
    is expected, or the size if the sounds need more than 8 GiB.
    """
    heads = {file: _head(file) for part in (files.train, files.test) for file in _all(part)}
    common = rate or _common_rate(heads)
    longest = max(_all(files.train), key=lambda file: heads[file].resampled(common))
    samples = round(length_s * common) if length_s else heads[longest].resampled(common)
    needed = files.count * samples * 4
    if not samples or needed > MOST_BYTES:
        said = "data.length_s" if length_s else str(longest)
        raise DataError(
            f"{files.where}: {files.count:,} sounds of {samples:,} samples, the length of {said}, "
            f"need {needed / 2**30:.1f} GiB of memory, more than 0 and at most "
            f"{MOST_BYTES / 2**30:.0f} are expected; another data.length_s, or a smaller "
            "data.rate, makes them fit"
        )
    train, test = (_samples(part, common, samples) for part in (files.train, files.test))
    return Dataset(files.tree.name, train, test, files.labels, rate=common)


def _all(part: Classes) -> list[File]:
    """The files of all classes, in their order."""
    return [file for own in part.values() for file in own]


def _head(file: File) -> Wav:
    with context(str(file)):
        return wav_head(file.read())


def _common_rate(heads: dict[File, Wav]) -> int:
    """The rate that all have; raises `DataError` naming two that differ."""
    (first, head), *others = heads.items()
    for file, other in others:
        if other.rate != head.rate:
            raise DataError(
                f"{file}: expected {head.rate} Hz as {first} has, got {other.rate} Hz; data.rate "
                "brings all sounds to one rate"
            )
    return head.rate


def _samples(part: Classes, rate: int, samples: int) -> Samples:
    """The sounds of one part, each at ``rate`` and of ``samples`` values."""
    counts = [len(own) for own in part.values()]
    x = np.empty((sum(counts), 1, samples), np.float32)
    for place, file in enumerate(_all(part)):
        with context(str(file)):
            sound, own_rate = wav(file.read())
            x[place, 0] = fitted(resampled(sound, own_rate, rate), samples)
    return Samples(x, np.repeat(np.arange(len(counts)), counts))
