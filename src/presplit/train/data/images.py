"""Images by class, ``train/CLASS/NAME.png`` and ``test/CLASS/NAME.png``, decoded by Pillow."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import DataError, library
from presplit.train.data.samples import Dataset, Samples
from presplit.train.data.tree import Classes, File, Labelled

MOST_BYTES = 2**33
"""No data set that is held in memory as float32 is larger."""
_ORIENTATION = 0x0112
"""The EXIF tag for how the camera was held."""
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""The modes of Pillow in which a channel has at most 8 bits."""
_DAMAGED = (
    *(
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
        MemoryError,
    ),
    *(struct.error, zlib.error, UserWarning, RuntimeWarning),
)
"""What Pillow raises for files that are no images, or are damaged.

It only warns of some damage, and of huge images.
"""


def images(files: Labelled, *, size: int | None = None, grey: bool = False) -> Dataset:
    """Images float32 ``(n, 3, height, width)`` in 0..1, or ``(n, 1, ..)`` if ``grey``.

    With ``size`` in pixels, each image is scaled until its shorter side fits, and its middle
    ``size`` x ``size`` is taken; without, all must have one size. Photographs are turned upright as
    their EXIF data says, where that can be read; transparency is dropped. Raises `DataError` naming
    the file that is not what is expected, or the size if the images need more than 8 GiB.
    """
    with _warnings_as_errors():
        return _images(files, size, grey)


def _images(files: Labelled, size: int | None, grey: bool) -> Dataset:
    first = files.train[files.labels[0]][0]
    shape = (1 if grey else 3, size, size) if size else _decoded(first, size, grey).shape
    needed = files.count * int(np.prod(shape)) * 4
    if needed > MOST_BYTES:
        raise DataError(
            f"{files.where}: {files.count:,} images of {shape[2]} x {shape[1]} need "
            f"{needed / 2**30:.1f} GiB of memory, at most {MOST_BYTES / 2**30:.0f} are expected; a "
            "smaller data.size, or data.grey, makes them fit"
        )
    train, test = (_samples(part, first, shape, size, grey) for part in (files.train, files.test))
    return Dataset(files.tree.name, train, test, files.labels)


@contextlib.contextmanager
def _warnings_as_errors() -> Iterator[None]:
    """Raise what Pillow only warns of."""
    with warnings.catch_warnings():
        for kind in (UserWarning, RuntimeWarning):
            warnings.simplefilter("error", kind)
        # What it warns of while it reads EXIF data says nothing of the pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL.TiffImagePlugin")
        yield


def _samples(
    classes: Classes,
    first: File,
    shape: tuple[int, ...],
    size: int | None,
    grey: bool,
) -> Samples:
    """The images of one part, each of the ``shape`` of the ``first``."""
    counts = [len(files) for files in classes.values()]
    x = np.empty((sum(counts), *shape), np.float32)
    for place, file in enumerate(file for files in classes.values() for file in files):
        pixels = _decoded(file, size, grey)
        if pixels.shape != shape:
            raise DataError(
                f"{file}: expected {shape[2]} x {shape[1]} pixels as {first} has, got "
                f"{pixels.shape[2]} x "
                f"{pixels.shape[1]}; data.size brings all images to one size"
            )
        x[place] = pixels / np.float32(255)
    return Samples(x, np.repeat(np.arange(len(counts)), counts))


def _decoded(file: File, size: int | None, grey: bool) -> npt.NDArray[np.uint8]:
    """uint8 ``(channels, height, width)``."""
    image = library("PIL.Image", need="reading images", extra="train")
    ops = library("PIL.ImageOps", need="reading images", extra="train")
    try:
        with image.open(io.BytesIO(file.read()), formats=_FORMATS) as opened:
            if opened.mode not in _EIGHT_BITS:
                raise DataError(
                    f"{file}: expected at most 8 bits a channel, got Pillow's mode {opened.mode!r}"
                )
            opened.load()
            upright = _upright(opened, image)
        plain = upright.convert("RGBA") if upright.mode in ("P", "PA") else upright
        plain = plain.convert("L" if grey else "RGB")
        fitted = plain if size is None else ops.fit(plain, (size, size), image.Resampling.BILINEAR)
    except (*_DAMAGED, image.DecompressionBombError) as error:
        raise DataError(
            f"{file}: not a readable image ({str(error) or type(error).__name__})"
        ) from error
    pixels = np.asarray(fitted, np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def _upright(opened: Any, image: Any) -> Any:
    """The picture turned as its EXIF data says; as it lies where that is damaged.

    Pillow's own function writes the rest of the data again, and fails where any of it is damaged.
    """
    try:
        turn = opened.getexif().get(_ORIENTATION)
    except _DAMAGED:
        turn = None
    ways = image.Transpose
    turns = {
        2: ways.FLIP_LEFT_RIGHT,
        3: ways.ROTATE_180,
        4: ways.FLIP_TOP_BOTTOM,
        5: ways.TRANSPOSE,
        6: ways.ROTATE_270,
        7: ways.TRANSVERSE,
        8: ways.ROTATE_90,
    }
    known = turn if isinstance(turn, int) else None
    return opened.transpose(turns[known]) if known in turns else opened
