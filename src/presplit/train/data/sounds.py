"""Sounds by class, ``train/CLASS/NAME.wav`` and ``test/CLASS/NAME.wav``."""

from __future__ import annotations

import numpy as np

from presplit.core.errors import DataError
from presplit.core.progress import track
from presplit.core.sound import Wav, fitted, resampled, wav, wav_head
from presplit.train.data.bad import Bad
from presplit.train.data.images import MOST_BYTES
from presplit.train.data.samples import Dataset, Samples
from presplit.train.data.tree import Classes, File, Labelled


def sounds(
    files: Labelled,
    *,
    rate: int | None = None,
    length_s: float | None = None,
    skip_bad: bool = False,
) -> Dataset:
    """Sounds float32 ``(n, 1, samples)`` in -1..1, their channels mixed down.

    With ``rate`` in Hz, each is brought to it; without, all must have one. Of a sound longer than
    ``length_s`` the middle is taken, a shorter one lies in the middle of silence; without, the
    longest one to train with says the length. Raises `DataError` naming all files that are not what
    is expected, which ``skip_bad`` leaves out, or the size if the sounds need more than 8 GiB.
    """
    bad = Bad(files.bad, skip=skip_bad)
    heads = _heads(files, rate, bad)
    readable = [file for file in _all(files.train) if file in heads]
    if not readable:
        bad.settle(files.where, of=files.count + len(files.bad))
        raise DataError(f"{files.where}: none of its sounds to train with can be read")
    common = rate or heads[readable[0]].rate
    longest = max(readable, key=lambda file: heads[file].resampled(common))
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
    read = [_read(part, heads, (common, samples), bad) for part in (files.train, files.test)]
    bad.settle(files.where, of=files.count + len(files.bad))
    for (_, y), part in zip(read, (files.train, files.test), strict=True):
        bad.refuse_empty(part, y)
    train, test = (Samples(x, y) for x, y in read)
    return Dataset(files.tree.name, train, test, files.labels, rate=common, left_out=bad.sentences)


def _all(part: Classes) -> list[File]:
    """The files of all classes, in their order."""
    return [file for own in part.values() for file in own]


def _heads(files: Labelled, rate: int | None, bad: Bad) -> dict[File, Wav]:
    """What each sound says of itself; without a ``rate``, all that have the first one's."""
    heads = dict[File, Wav]()
    first: File | None = None
    for file in track((*_all(files.train), *_all(files.test)), "looking at sounds", "files"):
        try:
            head = wav_head(file.read())
        except DataError as error:
            bad.note(file, str(error).removeprefix(f"{file}: "))
            continue
        first = first or file
        if rate is None and head.rate != heads.get(first, head).rate:
            bad.note(
                file,
                f"expected {heads[first].rate} Hz as {first} has, got {head.rate} Hz; data.rate "
                "brings all sounds to one rate",
            )
            continue
        heads[file] = head
    return heads


def _read(
    classes: Classes, heads: dict[File, Wav], form: tuple[int, int], bad: Bad
) -> tuple[np.ndarray, np.ndarray]:
    """The sounds of one part that have ``heads``, in ``form``: at a rate, of so many values."""
    rate, samples = form
    count = sum(len(own) for own in classes.values())
    x, y = np.empty((count, 1, samples), np.float32), list[int]()
    labelled = [(label, file) for label, own in enumerate(classes.values()) for file in own]
    for label, file in track(labelled, "reading sounds", "files"):
        if file in heads:
            try:
                sound, own_rate = wav(file.read())
                x[len(y), 0] = fitted(resampled(sound, own_rate, rate), samples)
            except DataError as error:
                bad.note(file, str(error).removeprefix(f"{file}: "))
                continue
            y.append(label)
    return x[: len(y)], np.asarray(y, np.int64)
