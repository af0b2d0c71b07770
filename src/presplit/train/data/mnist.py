"""MNIST in its original IDX files, found on disk or fetched with a checksum.

Source: Y. LeCun, C. Cortes, C. Burges; 60,000 training and 10,000 test images of 28 x 28. Files are
searched in the folders of `presplit.train.data.files`, plain or gzipped, and fetched into the cache
if they are nowhere.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError
from presplit.core.preparation import Preparation
from presplit.train.data.files import obtain
from presplit.train.data.samples import Dataset, Samples

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Of the uncompressed files."""


def mnist() -> Dataset:
    """Images float32 ``(n, 1, 28, 28)`` in 0..1.

    Raises `DataError` if they can be neither found nor fetched.
    """
    raw = {
        name: obtain("mnist", name, sha256=digest, mirrors=MIRRORS)
        for name, digest in SHA256.items()
    }
    parts: list[Samples] = []
    for part in ("train", "t10k"):
        images = read_idx(raw[f"{part}-images-idx3-ubyte"])
        labels = read_idx(raw[f"{part}-labels-idx1-ubyte"])
        parts.append(Samples(images[:, None].astype(np.float32) / 255, labels.astype(np.int64)))
    how = Preparation(28, 28, grey=True, how="exact")
    return Dataset("mnist", parts[0], parts[1], tuple("0123456789"), preparation=how)


def read_idx(raw: bytes) -> npt.NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes; raises `DataError` if header and length disagree.

    >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
    """
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    start = 4 + 4 * rank
    if not rank or len(raw) < start:
        raise DataError("not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{rank}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise DataError(
            f"the IDX header says {math.prod(shape)} values {shape}, the file holds "
            f"{len(raw) - start}"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
