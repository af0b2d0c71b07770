"""CIFAR-10, in its original binary files or as a zip of JPEG files.

It is found on disk or fetched with a checksum.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; 50,000
training and 10,000 test images of 32 x 32 in colour. In the folders of `presplit.train.data.files`
are searched, in this order, ``cifar-10-binary.tar.gz`` and ``cifar10-jpeg.zip``
(``train/CLASS/NAME.jpg`` and ``test/CLASS/NAME.jpg``; JPEG loses a little, so compare accuracies
only with others on the same file). The first is fetched into the cache if none is there. Wherever
it lies, it is taken only with its checksum.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable

import numpy as np

from presplit.core.errors import DataError, context
from presplit.core.preparation import Preparation
from presplit.train.data.files import checked_file, folders, is_file, obtain
from presplit.train.data.images import images
from presplit.train.data.samples import Dataset, Samples
from presplit.train.data.tree import Zip, labelled

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
ARCHIVE, JPEGS = "cifar-10-binary.tar.gz", "cifar10-jpeg.zip"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
"""Of the archive as it is fetched."""
JPEGS_SHA256 = "ead45e06542622104d3e17a0e554f18656c4cf310408a9ee502d835a28cf897d"
TRAIN, TEST = tuple(f"data_batch_{k}.bin" for k in range(1, 6)), ("test_batch.bin",)
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PREPARATION = Preparation(32, 32, how="exact")
RECORD = 1 + 3 * 32 * 32


def cifar10() -> Dataset:
    """Images float32 ``(n, 3, 32, 32)`` in 0..1.

    Raises `DataError` if they can be neither found nor fetched.
    """
    for place in folders():
        if is_file(place / ARCHIVE):
            break
        if is_file(place / JPEGS):
            return read_jpegs(checked_file(place / JPEGS, JPEGS_SHA256), str(place / JPEGS))
    return read_archive(obtain("", ARCHIVE, sha256=SHA256, mirrors=MIRRORS, packing=""))


def read_archive(raw: bytes) -> Dataset:
    """The data in a ``.tar.gz`` of binary files.

    Raises `DataError` if it is damaged or a file is missing.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            files = {
                member.name.rpartition("/")[2]: archive.extractfile(member)
                for member in archive
                if member.isfile()
            }
            contents = {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{ARCHIVE}: not a readable archive ({error})") from error

    def read(name: str) -> bytes:
        if name not in contents:
            raise DataError(f"{ARCHIVE}: {name} is missing")
        return contents[name]

    return _binary(read, ARCHIVE)


def read_jpegs(raw: bytes, where: str) -> Dataset:
    """The data in a zip of ``PART/CLASS/NAME.jpg``, which is called ``where`` in errors.

    Raises `DataError` for other classes or sizes, and as `images` does.
    """
    found = images(labelled(Zip(raw, where=where)))
    if found.labels != LABELS or found.train.x.shape[1:] != (3, 32, 32):
        height, width = found.train.x.shape[2:]
        raise DataError(
            f"{where}: expected images of 32 x 32 of the classes {', '.join(LABELS)}, got "
            f"{width} x {height} of {', '.join(found.labels)}"
        )
    return Dataset("cifar10", found.train, found.test, LABELS, preparation=PREPARATION)


def read_records(raw: bytes) -> Samples:
    """The samples of one binary file: records of a label and 3 x 32 x 32 bytes.

    Raises `DataError` for anything else.

    >>> read_records(bytes([7]) + bytes(3072)).y.tolist()
    [7]
    """
    if not raw or len(raw) % RECORD:
        raise DataError(f"records are {RECORD} bytes each, the file has {len(raw)}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= len(LABELS):
        raise DataError(f"labels are 0..{len(LABELS) - 1}, the file has {records[:, 0].max()}")
    return Samples(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64))


def _binary(read: Callable[[str], bytes], where: str) -> Dataset:
    """The data in binary files, ``read`` by their names."""
    parts: list[Samples] = []
    for names in (TRAIN, TEST):
        with context(where):
            batches = [read_records(read(name)) for name in names]
        parts.append(
            Samples(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))
        )
    return Dataset("cifar10", parts[0], parts[1], LABELS, preparation=PREPARATION)
