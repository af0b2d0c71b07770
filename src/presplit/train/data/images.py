"""Images by class, ``train/CLASS/NAME.png`` and ``test/CLASS/NAME.png``, decoded by Pillow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from presplit.bundle.photo import pixels, strictly, values
from presplit.core.errors import DataError, InputError
from presplit.core.preparation import Preparation
from presplit.core.progress import advance, doing
from presplit.train.data.bad import Bad
from presplit.train.data.samples import Dataset, Samples
from presplit.train.data.tree import Classes, File, Labelled

MOST_BYTES = 2**33
"""No data set that is held in memory as float32 is larger."""


def images(
    files: Labelled, *, size: int | None = None, grey: bool = False, skip_bad: bool = False
) -> Dataset:
    """Images float32 ``(n, 3, height, width)`` in 0..1, or ``(n, 1, ..)`` if ``grey``.

    With ``size`` in pixels, each image is scaled until its shorter side fits, and its middle
    ``size`` x ``size`` is taken; without, all must have one size. Photographs are turned upright as
    their EXIF data says, where that can be read; transparency is dropped: `Preparation`, which the
    data set carries. Raises `DataError` naming all files that are not what is expected, which
    ``skip_bad`` leaves out, or the size if the images need more than 8 GiB.
    """
    bad = Bad(files.bad, skip=skip_bad)
    with strictly():
        first, how = _preparation(files, size, grey, bad)
        needed = files.count * int(np.prod(how.shape)) * 4
        if needed > MOST_BYTES:
            raise DataError(
                f"{files.where}: {files.count:,} images of {how.width} x {how.height} need "
                f"{needed / 2**30:.1f} GiB of memory, at most {MOST_BYTES / 2**30:.0f} are "
                "expected; a smaller data.size, or data.grey, makes them fit"
            )
        read = [_read(part, first, how, bad) for part in (files.train, files.test)]
    bad.settle(files.where, of=files.count + len(files.bad))
    for (_, y), part in zip(read, (files.train, files.test), strict=True):
        bad.refuse_empty(part, y)
    train, test = (Samples(x, y) for x, y in read)
    return Dataset(
        files.tree.name, train, test, files.labels, left_out=bad.sentences, preparation=how
    )


def _preparation(
    files: Labelled, size: int | None, grey: bool, bad: Bad
) -> tuple[File, Preparation]:
    """What is done to each image; without a size, that of the first one that can be read."""
    all_files = [file for own in files.train.values() for file in own]
    if size:
        return all_files[0], Preparation(size, size, grey, how="fit")
    for file in all_files:
        try:
            found = pixels(file.read(), Preparation(1, 1, grey, how="exact"))
        except (InputError, DataError):
            continue  # it is told with the others
        return file, Preparation(found.shape[0], found.shape[1], grey, how="exact")
    for file in all_files:
        _pixels(file, Preparation(1, 1, grey, how="exact"), bad)
    bad.settle(files.where, of=files.count + len(files.bad))
    raise DataError(f"{files.where}: none of its images to train with can be read")


def _read(
    classes: Classes, first: File, how: Preparation, bad: Bad
) -> tuple[np.ndarray, np.ndarray]:
    """The images of one part, each of the size of ``how``, and their labels."""
    count = sum(len(files) for files in classes.values())
    x, y = np.empty((count, *how.shape), np.float32), list[int]()
    with doing("reading images", count, "files"):
        for label, file in _labelled(classes):
            advance()
            found = _pixels(file, how, bad)
            if found is None:
                continue
            if found.shape[:2] != (how.height, how.width):
                bad.note(
                    file,
                    f"expected {how.width} x {how.height} pixels as {first} has, got "
                    f"{found.shape[1]} x {found.shape[0]}; data.size brings all images to one size",
                )
                continue
            x[len(y)] = values(found, how)
            y.append(label)
    return x[: len(y)], np.asarray(y, np.int64)


def _labelled(classes: Classes) -> Iterator[tuple[int, File]]:
    """Each file with the number of its class."""
    for label, files in enumerate(classes.values()):
        yield from ((label, file) for file in files)


def _pixels(file: File, how: Preparation, bad: Bad) -> np.ndarray | None:
    """The pixels of an image; None, and a note, if it is none."""
    try:
        return pixels(file.read(), how)
    except InputError as error:
        bad.note(file, str(error))
    except DataError as error:  # it names the file itself
        bad.note(file, str(error).removeprefix(f"{file}: "))
    return None
