"""Draws 600 small photos of three kinds of shape into photos/, laid out as Presplit reads them.

They stand for photos of your own: photos/train/CLASS/NAME.jpg and photos/test/CLASS/NAME.jpg.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
rng = np.random.default_rng(0)


def corners(kind: str) -> list[tuple[float, float]]:
    """The corners of a shape of about a third of the image, turned and moved at random."""
    count = {"triangle": 3, "square": 4, "circle": 48}[kind]
    angles = rng.uniform(0, 6.28) + np.arange(count) * 2 * np.pi / count
    x, y = rng.uniform(24, 40, 2)
    radius = rng.uniform(17, 23)
    return [(x + radius * np.cos(at), y + radius * np.sin(at)) for at in angles]


def photo(kind: str) -> Image.Image:
    """A shape in one colour on another, with noise."""
    ground, ink = rng.integers(40, 120, 3), rng.integers(130, 230, 3)
    image = Image.new("RGB", (SIDE, SIDE), tuple(ground))
    ImageDraw.Draw(image).polygon(corners(kind), fill=tuple(ink))
    noisy = np.asarray(image) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


for part, count in (("train", 160), ("test", 40)):
    for kind in ("circle", "square", "triangle"):
        folder = Path("photos", part, kind)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            photo(kind).save(folder / f"{number:03}.jpg")
print("600 photos in photos/: train/CLASS and test/CLASS for circle, square and triangle")
