"""Patterns as pictures: a dot for each connection that exists, or its share where many meet.

A picture is a PNG with few shades (W3C, "Portable Network Graphics", section 11), written here in a
few lines so that no library is needed, and set into the page as data.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from presplit.core import units
from presplit.core.types import Pattern
from presplit.report.markup import Html, element

SIDE = 96
"""Dots of a picture's longer side at most: more are joined, and the shade is how many exist."""
SHADES = 15
INK = (0x2B, 0x83, 0xC4)
"""A blue that is seen on white and on black."""
MOST = 24
"""Layers that are shown; a longer list is cut, and said to be."""


@dataclass(frozen=True)
class Connections:
    """A sparse layer: its name, its pattern, and the pattern's family in words."""

    name: str
    pattern: Pattern
    family: str = ""


def pictures(layers: Sequence[Connections]) -> Html:
    """A picture of each layer with its density and fan-in, at most `MOST` of them."""
    shown = [_figure(each) for each in layers[:MOST]]
    return element("div", *shown, class_="patterns")


def shades(pattern: Pattern, side: int = SIDE) -> npt.NDArray[np.float64]:
    """The share of connections that exist in each cell of a picture, rows of outputs, 0..1.

    >>> shades(Pattern(n_in=4, tile=2, index=np.array([[0, 1], [2, 3]]))).tolist()
    [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    tiles = np.zeros((len(pattern.index), pattern.n_in))
    rows, columns = np.nonzero(pattern.index >= 0)
    tiles[rows, pattern.index[rows, columns]] = 1.0
    return _joined(_joined(tiles, side).T, side).T


def _joined(values: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Rows joined by their means until there are at most ``side``."""
    every = math.ceil(len(values) / side)
    if every == 1:
        return values
    starts = np.arange(0, len(values), every)
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(values, starts, axis=0) / counts[:, np.newaxis]


def _figure(layer: Connections) -> Html:
    pattern, drawn = layer.pattern, shades(layer.pattern)
    height, width = drawn.shape
    reads = f"{pattern.fan_in} of {pattern.n_in} inputs"
    words = f"each output reads {reads}" if pattern.is_regular else f"outputs read up to {reads}"
    image = element(
        "img",
        src=f"data:image/png;base64,{base64.b64encode(png(drawn)).decode()}",
        width=str(width),
        height=str(height),
        alt=f"Connections of {layer.name}: {pattern.n_out} outputs down, {pattern.n_in} inputs "
        "across",
        class_="pixels",
        style=f"aspect-ratio:{min(2.5, max(0.8, pattern.n_in / pattern.n_out)):.3g}",
    )
    family = f"{layer.family}, " if layer.family else ""
    density = f"{family}density {pattern.density:.3g}"
    caption = element("figcaption", f"{density}: {words}, {_tiles(pattern)}")
    return element("figure", element("h3", layer.name), image, caption)


def _tiles(pattern: Pattern) -> str:
    count = units.count(len(pattern.index))
    if pattern.tile == 1:
        return f"{count} outputs"
    return f"{count} tiles of {pattern.tile} outputs that share them"


def png(values: npt.NDArray[np.float64]) -> bytes:
    """A PNG of ``values`` in 0..1, ``(rows, columns)``: 0 lets the page be seen, 1 does not."""
    height, width = values.shape
    levels = np.ceil(values * SHADES).astype(np.uint8)
    if width % 2:
        levels = np.pad(levels, ((0, 0), (0, 1)))
    packed = levels[:, ::2] << 4 | levels[:, 1::2]
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    opacity = bytes(round(255 * level / SHADES) for level in range(SHADES + 1))
    header = struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", bytes(INK) * (SHADES + 1)),
            _chunk(b"tRNS", opacity),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
