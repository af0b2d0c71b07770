"""Image files and frames become what a net takes, by Pillow: in training and on the edge alike."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import InputError, library
from presplit.core.preparation import Preparation
from presplit.core.types import Floats

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
LARGE = 2**21
"""Pixels from which on a JPEG is decoded smaller than it is."""
SPARE = 3
_ORIENTATION = 0x0112
"""The EXIF tag for how the camera was held."""
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""The modes of Pillow in which a channel has at most 8 bits."""
_DAMAGED = (
    *(OSError, EOFError, ValueError, SyntaxError, KeyError, IndexError, TypeError),
    *(OverflowError, MemoryError, struct.error, zlib.error, UserWarning, RuntimeWarning),
)
"""What Pillow raises for files that are no images, or are damaged.

It only warns of some damage, see `strictly`.
"""


def prepared(raw: bytes, how: Preparation) -> Floats:
    """What the net takes, float32 of ``how.shape``, from the bytes of an image file.

    Raises `InputError` if they are no image, or not one that can be prepared so.
    """
    return values(of_that_size(pixels(raw, how), how), how)


def prepared_frame(frame: npt.NDArray[np.uint8], how: Preparation) -> Floats:
    """As `prepared`, from the pixels of a camera's frame: uint8 ``(height, width, 3)``, RGB."""
    picture = _brought(_pillow().fromarray(np.ascontiguousarray(frame)), how)
    return values(of_that_size(np.asarray(picture, np.uint8), how), how)


def pixels(raw: bytes, how: Preparation) -> npt.NDArray[np.uint8]:
    """Uint8 ``(height, width, 3)``, or ``(height, width)`` if ``how`` is grey.

    With "exact" it keeps the size that it has. Raises `InputError`.
    """
    image = _pillow()
    try:
        with image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            _refuse(opened, image)
            _in_draft(opened, how)
            opened.load()
            turned = _upright(opened, image) if how.upright else opened
        return np.asarray(_brought(turned, how), np.uint8)
    except image.UnidentifiedImageError as error:
        problem = f"no {', '.join(FORMATS)}, or damaged at its beginning" if raw else "it is empty"
        raise InputError(f"not a readable image ({problem})") from error
    except (*_DAMAGED, image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"not a readable image ({reason})") from error


def size_of(raw: bytes) -> tuple[int, int]:
    """Width and height that an image file says of itself, which is quick; `InputError` if none."""
    image = _pillow()
    try:
        with image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            return opened.size
    except (*_DAMAGED, image.UnidentifiedImageError, image.DecompressionBombError) as error:
        raise InputError("not a readable image") from error


def of_that_size(found: npt.NDArray[np.uint8], how: Preparation) -> npt.NDArray[np.uint8]:
    """``found``; raises `InputError` unless it has the size of ``how``, as "exact" wants it."""
    if found.shape[:2] != (how.height, how.width):
        raise InputError(
            f"expected {how.width} x {how.height} pixels, as the images that the net was trained "
            f"on have, got {found.shape[1]} x {found.shape[0]}; bring it to that size"
        )
    return found


def values(found: npt.NDArray[np.uint8], how: Preparation) -> Floats:
    """Float32 of ``how.shape`` from pixels of its size."""
    rows = found[..., None] if found.ndim == 2 else found
    if how.bgr:
        rows = rows[..., ::-1]
    x = rows / np.float32(how.divide)
    if how.mean:
        x -= np.asarray(how.mean, np.float32)
    if how.deviation:
        x /= np.asarray(how.deviation, np.float32)
    if not how.channels_last:
        x = x.transpose(2, 0, 1)
    if how.flat is not None:
        x = np.pad(x.ravel(), (0, how.flat - x.size))
    return np.ascontiguousarray(x, np.float32)


@contextlib.contextmanager
def strictly() -> Generator[None]:
    """Within it, what Pillow only warns of is an error; not for several threads at once."""
    with warnings.catch_warnings():
        for kind in (UserWarning, RuntimeWarning):
            warnings.simplefilter("error", kind)
        # What it warns of while it reads EXIF data says nothing of the pixels.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL.TiffImagePlugin")
        yield


def _refuse(opened: Any, image: Any) -> None:
    """Raise `InputError` for an image of deep channels, or `ValueError` for a huge one."""
    if opened.mode not in _EIGHT_BITS:
        raise InputError(f"expected at most 8 bits a channel, got Pillow's mode {opened.mode!r}")
    if opened.width * opened.height > image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{opened.width} x {opened.height} pixels, could be a decompression bomb")


def _in_draft(opened: Any, how: Preparation) -> None:
    """Let a large JPEG be decoded to a half, a quarter or an eighth, above what is wanted of it.

    Its own transform gives these sizes, without most of the work and of the memory. What is left is
    scaled down by `SPARE` at least, by the filter that was asked for.
    """
    if how.how == "exact" or opened.width * opened.height < LARGE:
        return
    side = SPARE * max(how.height, how.width, how.shorter or 0)
    opened.draft(None, (side, side))  # does nothing for other formats


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


def _brought(picture: Any, how: Preparation) -> Any:
    """The picture with the channels and the size of ``how``."""
    plain = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
    plain = plain.convert("L" if how.grey else "RGB")
    size = (how.width, how.height)
    filter_ = getattr(_pillow().Resampling, how.resample.upper())
    if how.how == "fit":
        ops = library("PIL.ImageOps", need="reading images", extra="edge")
        return ops.fit(plain, size, filter_)
    if how.how == "stretch":
        return plain.resize(size, filter_)
    if how.how == "crop" and how.shorter is not None:
        return _middle(plain.resize(_scaled(plain.size, how.shorter), filter_), size)
    return plain


def _scaled(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """``size`` with its shorter side of so many pixels; the longer one is rounded down.

    So does torchvision's Resize.

    >>> _scaled((640, 427), 256)
    (383, 256)
    """
    width, height = size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter


def _middle(picture: Any, size: tuple[int, int]) -> Any:
    """The middle of a picture that is at least of that size, as torchvision's CenterCrop has it."""
    left = round((picture.width - size[0]) / 2.0)
    top = round((picture.height - size[1]) / 2.0)
    return picture.crop((left, top, left + size[0], top + size[1]))


def _pillow() -> Any:
    return library("PIL.Image", need="reading images", extra="edge")
