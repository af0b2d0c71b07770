"""A folder of photos as people have them: 600 good ones in five classes, 11 that are none.

python scripts/first_minutes/photos.py FOLDER VIDEO

The good ones are photos of clothes where ``PRESPLIT_DATA`` holds clothing-160.zip; elsewhere they
are drawn. Some are turned by EXIF, progressive, CMYK, grey, palettes with a clear background, BMP,
WebP, long and narrow, or have spaces and accents in their names. The video shows some of them, one
after another, as a camera would.
"""

from __future__ import annotations

import io
import os
import random
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

EACH = 120
"""Photos of a class."""
CLASSES = ("circle", "square", "triangle", "cross", "stripes")
FRAMES_EACH = 6
FRAMES_S = 10.0
SHOWN = 60
"""Photos that the video shows."""


def main(folder: Path, video: Path) -> None:
    """Make both; prints what was made."""
    dice = random.Random(0)
    source = Path(os.environ.get("PRESPLIT_DATA", "nowhere")) / "clothing-160.zip"
    found = real(source) if source.exists() else drawn(dice)
    kept: list[Image.Image] = []
    for name, images in found:
        place = folder / name
        place.mkdir(parents=True)
        for number, image in enumerate(images):
            odd(place, number, image)
            if number % (5 * EACH // SHOWN) == 0:
                kept.append(image)
    bad(folder, dice)
    dice.shuffle(kept)
    filmed(video, kept)
    files = sum(file.is_file() for file in folder.rglob("*"))
    print(f"{folder}: {files} files in {len(found)} classes; {video}: {len(kept)} photos")


def real(source: Path) -> list[tuple[str, list[Image.Image]]]:
    """The first photos of the five commonest classes."""
    with zipfile.ZipFile(source) as archive:
        named = defaultdict(list)
        for name in sorted(archive.namelist()):
            part, _, rest = name.partition("/")
            if part == "train" and rest.endswith(".jpg"):
                named[rest.partition("/")[0]].append(name)
        common = sorted(named, key=lambda each: -len(named[each]))[: len(CLASSES)]
        return [
            (each, [Image.open(io.BytesIO(archive.read(name))) for name in named[each][:EACH]])
            for each in sorted(common)
        ]


def drawn(dice: random.Random) -> list[tuple[str, list[Image.Image]]]:
    """Shapes before all sorts of backgrounds, in all sorts of sizes."""
    return [(name, [shape(name, dice) for _ in range(EACH)]) for name in CLASSES]


def shape(name: str, dice: random.Random) -> Image.Image:
    """One picture of such a thing."""
    width, height = dice.choice([(160, 120), (240, 320), (320, 240), (640, 480)])
    grain = np.random.default_rng(dice.getrandbits(32)).normal(0, 12, (height, width, 3))
    ground = np.array([dice.randrange(40, 200) for _ in range(3)])
    image = Image.fromarray(np.clip(ground + grain, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    colour = tuple((part + 110) % 256 for part in ground)
    size = min(width, height) * dice.uniform(0.25, 0.42)
    x, y = width * dice.uniform(0.4, 0.6), height * dice.uniform(0.4, 0.6)
    box = (x - size, y - size, x + size, y + size)
    match name:
        case "circle":
            pen.ellipse(box, fill=colour)
        case "square":
            pen.rectangle(box, fill=colour)
        case "triangle":
            pen.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=colour)
        case "cross":
            third = size / 3
            pen.rectangle((x - third, y - size, x + third, y + size), fill=colour)
            pen.rectangle((x - size, y - third, x + size, y + third), fill=colour)
        case _:
            for step in range(5):
                top = y - size + step * size * 0.45
                pen.rectangle((x - size, top, x + size, top + size * 0.2), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(dice.uniform(0, 1.5)))


def odd(place: Path, number: int, image: Image.Image) -> None:
    """Save ``image`` as photo ``number``, each tenth in a way that is less usual."""
    image = image.convert("RGB")
    name = place / f"IMG_{number:04}.jpg"
    kind = number // 10 % 10 if number % 10 == 3 else -1
    if kind == 0:
        turned = Image.Exif()
        turned[0x0112] = 6  # to be turned by a quarter before it is looked at
        image.rotate(90, expand=True).save(name, exif=turned, quality=88)
    elif kind == 1:
        image.save(name, progressive=True, quality=80)
    elif kind == 2:
        image.convert("CMYK").save(name, quality=90)
    elif kind == 3:
        image.convert("L").save(name)
    elif kind == 4:
        image.quantize(64).save(name.with_suffix(".png"), transparency=0)
    elif kind == 5:
        image.save(name.with_suffix(".bmp"))
    elif kind == 6:
        image.resize((900, 160)).save(name)
    elif kind == 7:
        image.save(place / f"Urlaub \u00e0 la plage {number}.JPEG")
    elif kind == 8:
        image.save(name.with_suffix(".webp"), quality=80)
    else:
        image.save(name, quality=90)


def bad(folder: Path, dice: random.Random) -> None:
    """Eleven files that look like photos and are none; 16 bits may mean anything."""
    places = sorted(each for each in folder.iterdir() if each.is_dir())
    good = (places[0] / "IMG_0000.jpg").read_bytes()
    png = io.BytesIO()
    Image.open(io.BytesIO(good)).convert("RGB").save(png, "PNG")
    scan = io.BytesIO()
    Image.fromarray(np.arange(2**14, dtype=np.uint16).reshape(128, 128)).save(scan, "PNG")
    contents = {
        "empty.jpg": b"",
        "half.jpg": good[: len(good) // 2],
        "head.jpg": good[:200],
        "text.jpg": b"This is where the photo should be.\n",
        "page.png": b"<!doctype html><title>404 Not Found</title>",
        "half.png": png.getvalue()[: len(png.getvalue()) // 3],
        "scan.png": scan.getvalue(),
        "paper.jpg": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n",
        "broken.jpg": good[:300] + dice.randbytes(64) + good[600:900],
        "zip.png": b"PK\x03\x04" + bytes(60),
        "signature.png": b"\x89PNG\r\n\x1a\n",
    }
    for number, (name, content) in enumerate(contents.items()):
        (places[number % len(places)] / name).write_bytes(content)


def frames(images: list[Image.Image]) -> Iterator[np.ndarray]:
    """What a camera sees while the photos are held before it."""
    for image in images:
        frame = np.asarray(image.convert("RGB").resize((320, 320)))[:, :, ::-1]
        for _ in range(FRAMES_EACH):
            yield np.ascontiguousarray(frame)


def filmed(video: Path, images: list[Image.Image]) -> None:
    """The frames as a video."""
    import cv2

    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(video), code, FRAMES_S, (320, 320))
    for frame in frames(images):
        writer.write(frame)
    writer.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
