"""png and jpeg-50, -75, -90: an image of one or three channels travels as a file of that format.

A byte of the file stands for a step of the channel's range, so an 8-bit image loses nothing by PNG,
whether the net takes it as bytes, in 0..1, or normalised by mean and deviation. It is native.
Source: PNG (ISO/IEC 15948) and JPEG (ITU T.81), by Pillow.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.codecs.native import alone, payload, raw, same
from presplit.core.encoding import Encoding, Picture, Seen, most_bytes
from presplit.core.errors import InputError, library
from presplit.core.types import Boundary, Floats

SMALLEST, LARGEST = 8, 16_384
"""Sides of an image in pixels: below, headers outweigh it; Pillow's JPEG ends at 65,500."""
MODES = {1: "L", 3: "RGB"}
"""Pillow's modes, by channels."""
SCAN = b"\xff\xda"
"""How a scan of a JPEG begins; inside one these bytes cannot stand."""


class Image:
    """PNG, or JPEG of a ``quality`` from 1 to 95.

    >>> png = Image()
    >>> pixels = (np.arange(192).reshape(1, 3, 8, 8) / 255).astype(np.float32)
    >>> encoding = png.calibrate(Seen.of(pixels), (3, 8, 8))
    >>> bool((png.decode(png.encode(pixels, encoding), encoding, (3, 8, 8)) == pixels).all())
    True
    """

    def __init__(self, quality: int | None = None) -> None:
        self.quality = quality
        self.name = "png" if quality is None else f"jpeg-{quality}"

    def calibrate(self, seen: Seen | None, shape: tuple[int, ...]) -> Picture | None:
        """What bytes stand for: 0..1 or 0..255 where values lie so, else each channel's range.

        None for what is no image: other channels than 1 or 3, sides out of 8..16384.
        """
        if seen is None or len(shape) != 3 or len(seen.channels) not in MODES:
            return None
        if min(shape[1:]) < SMALLEST or max(shape[1:]) > LARGEST:
            return None
        _pillow()
        low, high = zip(*_ranges(seen), strict=True)
        return Picture(low, high, self.quality)

    def encode(self, values: Floats, encoding: Encoding) -> npt.NDArray[Any] | None:
        """The file; what lies outside the range saturates."""
        low, span = _range(encoding)
        with np.errstate(over="ignore"):  # infinity saturates as any other value does
            steps = (alone(values)[0] - low) * (np.float32(255) / span)
        np.rint(steps, out=steps)
        pixels = np.clip(steps, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        image = _pillow().fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        file = io.BytesIO()
        if self.quality is None:
            image.save(file, "PNG")
        else:
            image.save(file, "JPEG", quality=self.quality, optimize=True)
        fits = file.tell() <= most_bytes(Boundary("image", values.shape[1:]))
        return payload(file.getbuffer()) if fits else None

    def decode(self, codes: npt.NDArray[Any], encoding: Encoding, shape: tuple[int, ...]) -> Floats:
        """What its pixels stand for."""
        low, span = _range(encoding)
        pixels = _pixels(raw(codes), "PNG" if self.quality is None else "JPEG", shape)
        return (pixels.astype(np.float32) * span / np.float32(255) + low)[None]

    def decoder(self, encoding: Encoding, shape: tuple[int, ...]) -> None:
        """It is native."""

    def error(self, values: Floats, encoding: Encoding) -> Floats:
        """Half a step for PNG; JPEG promises nothing."""
        _, span = _range(encoding)
        share = 0.501 / 255 if self.quality is None else 1.0
        return np.broadcast_to(np.float32(share) * span, values.shape)


def _ranges(seen: Seen) -> list[tuple[float, float]]:
    """What a byte of 0 and of 255 stand for in each channel."""
    if seen.whole and seen.low >= 0 and 1 < seen.high <= 255:
        return [(0.0, 255.0)] * len(seen.channels)
    if seen.low >= 0 and seen.high <= 1:
        return [(0.0, 1.0)] * len(seen.channels)
    # A channel that is the same everywhere has no range of its own.
    return [(low, high) if high > low else (low, low + 1.0) for low, high in seen.channels]


def _range(encoding: Encoding) -> tuple[Floats, Floats]:
    """The lowest value and the width of each channel's range, float32 ``(channels, 1, 1)``."""
    assert isinstance(encoding, Picture), "this codec calibrates no other"
    low = np.array(encoding.low, np.float32).reshape(-1, 1, 1)
    return low, np.array(encoding.high, np.float32).reshape(-1, 1, 1) - low


def _pixels(data: bytes, kind: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The pixels ``shape`` in a file; raises `InputError` if it holds anything else."""
    channels, height, width = shape
    if kind == "JPEG":  # a hostile one repeats scans of the whole image, a few bytes each
        same("scan of a JPEG", 1, data.count(SCAN))
    try:
        with _pillow().open(io.BytesIO(data), formats=[kind]) as image:
            # Opening reads the header alone, so nothing is decoded that has another size.
            same(
                "as width, height and mode",
                (width, height, MODES[channels]),
                (*image.size, image.mode),
            )
            found = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # Pillow's exceptions for damaged files share no class
        raise InputError(f"payload: damaged {kind} ({type(error).__name__}: {error})") from error
    return found.reshape(height, width, channels).transpose(2, 0, 1)


def _pillow() -> Any:
    return library("PIL.Image", need="sending images as files", extra="edge")
