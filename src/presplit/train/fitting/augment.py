"""Augmentations: what changes a batch of samples, at random, before the net sees it.

All work on a whole batch at once, on the device where it is. Random numbers come from the
processor's generator, whose state is kept with a training, so that a training that goes on draws
the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from presplit.core.errors import DataError, SpecError, context
from presplit.core.shelf import Shelf


@dataclass(frozen=True)
class Augmentation:
    """``change``: samples to samples of the same shape; ``axes``: how many these have.

    4: images ``(batch, channels, height, width)``; 3: sounds ``(batch, channels, time)``; none:
    any. ``unit``: whether values must be in 0..1.
    """

    change: Callable[[Tensor], Tensor]
    axes: int | None = None
    unit: bool = False


def augmentation(names: str) -> Callable[[Tensor], Tensor]:
    """What does one after the other of ``names``, which are joined by ``+``.

    Raises `SpecError` for what is not on the shelf.

    >>> augmentation("none+flip")(torch.zeros(1, 1, 2, 2)).shape
    torch.Size([1, 1, 2, 2])
    """
    changes = [each.change for each in _found(names)]

    def change(x: Tensor) -> Tensor:
        for each in changes:
            x = each(x)
        return x

    return change


def refuse_what_cannot_be_augmented(names: str, x: Tensor) -> None:
    """Raise `DataError` if samples such as ``x``, ``(batch, ...)``, are none for ``names``."""
    for name, each in zip(names.split("+"), _found(names), strict=True):
        if each.axes is not None and x.ndim != each.axes:
            raise DataError(
                f"augment: {name} changes {_FORMS[each.axes]}, got samples of shape "
                f"{tuple(x.shape[1:])}; choose another, or give them that shape"
            )
        if not x.is_floating_point() and each.change is not _same:
            raise DataError(f"augment: {name} changes numbers with a fraction, got {x.dtype}")
        lowest, highest = torch.aminmax(x)
        if each.unit and (lowest < 0 or highest > 1):
            raise DataError(
                f"augment: {name} expects images in 0..1, got {float(lowest):.3g}.."
                f"{float(highest):.3g}; standardise inside the net"
            )


_FORMS = {3: "sounds (channels, time)", 4: "images (channels, height, width)"}


def _found(names: str) -> list[Augmentation]:
    """The augmentations of ``names``, in their order."""
    with context("augment"):
        try:
            return [AUGMENTATIONS.find(name) for name in names.split("+")]
        except SpecError as error:
            if "+" in names or "," not in names:
                raise
            raise SpecError(f"{error}; several are joined by +") from error


def _drawn(values: Tensor, x: Tensor) -> Tensor:
    """Random numbers ``values`` where ``x`` is, without waiting for it."""
    return values.to(x.device, non_blocking=x.is_cuda)


def _between(low: float, high: float, x: Tensor) -> Tensor:
    """One number for each of ``x``, in its type: ``(batch, 1, ...)``."""
    drawn = torch.empty(len(x), *[1] * (x.ndim - 1)).uniform_(low, high)
    return _drawn(drawn, x).to(x.dtype)


def _same(x: Tensor) -> Tensor:
    """Nothing is changed."""
    return x


def _shifted(x: Tensor, *, share: int = 8) -> Tensor:
    """Every image moved by up to a ``share``-th of its sides, one pixel at least.

    Zeros stand where nothing came in.
    """
    count, _, height, width = x.shape
    most = (max(1, height // share), max(1, width // share))
    padded = F.pad(x, (most[1], most[1], most[0], most[0]))
    down, right = (_drawn(torch.randint(0, 2 * side + 1, (count, 1)), x) for side in most)
    rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
    channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[
        torch.arange(count, device=x.device)[:, None, None, None], channels, rows, columns
    ]


def _nudged(x: Tensor) -> Tensor:
    """Every image moved by at most a pixel of 28."""
    return _shifted(x, share=28)


def _mirrored(x: Tensor) -> Tensor:
    """Half of the images, at random, with left and right exchanged."""
    return torch.where(_drawn(torch.rand(len(x), 1, 1, 1) < 0.5, x), x.flip(3), x)


def _cropped(x: Tensor) -> Tensor:
    """A part of every image, half of its area at least, as large as the whole.

    Its sides are to each other as those of the image, or up to a third longer.
    """
    area = torch.empty(len(x)).uniform_(0.5, 1)
    ratio = torch.empty(len(x)).uniform_(-1, 1).mul_(math.log(4 / 3) / 2).exp_()
    height, width = ((area.sqrt() * ratio).clamp_(max=1), (area.sqrt() / ratio).clamp_(max=1))
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0], turn[:, 1, 1] = width, height
    turn[:, 0, 2] = (1 - width) * torch.empty(len(x)).uniform_(-1, 1)
    turn[:, 1, 2] = (1 - height) * torch.empty(len(x)).uniform_(-1, 1)
    return _seen_through(turn, x)


def _rotated(x: Tensor) -> Tensor:
    """Every image turned by up to 15 degrees around its middle."""
    angle = torch.empty(len(x)).uniform_(-1, 1).mul_(math.radians(15))
    longer = x.shape[2] / x.shape[3]
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin() * longer, angle.sin() / longer
    return _seen_through(turn, x)


def _seen_through(turn: Tensor, x: Tensor) -> Tensor:
    """``x`` where the affine maps ``turn``, ``(batch, 2, 3)``, look; its border goes on outside."""
    grid = F.affine_grid(_drawn(turn, x).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _coloured(x: Tensor) -> Tensor:
    """Brightness, contrast and saturation of every image times 0.6..1.4, clamped to 0..1."""
    return _in_colours(x, *(_between(0.6, 1.4, x) for _ in range(3)))


def _in_colours(x: Tensor, bright: Tensor, contrast: Tensor, colour: Tensor) -> Tensor:
    """``x`` with its saturation, contrast and brightness times ``(batch, 1, 1, 1)`` each."""
    grey = x.mean(1, keepdim=True)
    offset = bright * (1 - contrast) * grey.mean((2, 3), keepdim=True)
    flat = bright * contrast * (1 - colour) * grey + offset
    return torch.addcmul(flat, x, bright * contrast * colour).clamp_(0, 1)


def _once(x: Tensor) -> Tensor:
    """Every image changed by at most one thing of nine, at a strength of its own.

    It is sheared either way, rotated by up to 30 degrees, moved either way by up to a fifth,
    enlarged by up to a half, or of another brightness, contrast or saturation (0.2 to 1.8); a tenth
    stays. After TrivialAugment, arXiv 2103.10158, which has more operations.
    """
    which, strength = torch.randint(0, 10, (len(x),)), torch.empty(len(x)).uniform_(-1, 1)
    nothing = torch.zeros(())
    by = [torch.where(which == number, strength, nothing) for number in range(1, 10)]
    angle, size, longer = by[2] * math.radians(30), 1 - by[5].abs() / 3, x.shape[2] / x.shape[3]
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos() * size
    turn[:, 0, 1] = 0.4 * by[0] - angle.sin() * longer
    turn[:, 1, 0] = 0.4 * by[1] + angle.sin() / longer
    turn[:, 0, 2], turn[:, 1, 2] = 0.4 * by[3], 0.4 * by[4]
    colours = (_drawn(1 + 0.8 * each, x).to(x.dtype).view(-1, 1, 1, 1) for each in by[6:])
    return _in_colours(_seen_through(turn, x), *colours)


def _erased(x: Tensor) -> Tensor:
    """Half of the images, with a box of 2 to 33 hundredths of their area in one colour.

    It is the colour of a pixel of another image. The paper, arXiv 1708.04896, fills the box with
    noise, which takes as many random numbers as the images have values.
    """
    count, _, height, width = x.shape
    area = torch.empty(count, 1, 1, 1).uniform_(0.02, 0.33)
    ratio = torch.empty(count, 1, 1, 1).uniform_(math.log(0.3), math.log(1 / 0.3)).exp_()
    area *= torch.rand(count, 1, 1, 1) < 0.5
    tall = ((area * ratio).sqrt_() * height).clamp_(max=height).round_()
    wide = ((area / ratio).sqrt_() * width).clamp_(max=width).round_()
    top = (torch.rand(count, 1, 1, 1) * (height - tall + 1)).floor_()
    left = (torch.rand(count, 1, 1, 1) * (width - wide + 1)).floor_()
    inside = boxes(top, left, tall, wide, x)
    other, row, column = (
        _drawn(torch.randint(most, (count,)), x) for most in (count, height, width)
    )
    return torch.where(inside, x[other, :, row, column][:, :, None, None], x)


def boxes(top: Tensor, left: Tensor, tall: Tensor, wide: Tensor, x: Tensor) -> Tensor:
    """Whether a pixel is in its image's box: bool ``(batch, 1, height, width)``, where ``x`` is.

    Numbers of pixels, ``(batch, 1, 1, 1)`` each.
    """
    top, left, tall, wide = (_drawn(each, x) for each in (top, left, tall, wide))
    rows = torch.arange(x.shape[2], device=x.device)[:, None]
    columns = torch.arange(x.shape[3], device=x.device)
    in_rows = (rows >= top) & (rows < top + tall)
    return in_rows & (columns >= left) & (columns < left + wide)


def _later(x: Tensor) -> Tensor:
    """Every sound earlier or later by up to an eighth of its length; silence comes in."""
    count, _, length = x.shape
    most = max(1, length // 8)
    start = _drawn(torch.randint(0, 2 * most + 1, (count, 1, 1)), x)
    places = (start + torch.arange(length, device=x.device)).expand_as(x)
    return F.pad(x, (most, most)).gather(2, places)


def _louder(x: Tensor) -> Tensor:
    """Every sample times 0.5..2, as often below 1 as above."""
    return x * _between(-1, 1, x).exp2()


def _noisy(x: Tensor) -> Tensor:
    """Every sample with noise of 0 to 10 hundredths of its own standard deviation."""
    spread = x.flatten(1).std(1, correction=0).view(-1, *[1] * (x.ndim - 1))
    noise = _drawn(torch.randn(x.shape), x).to(x.dtype)
    return torch.addcmul(x, noise, spread * _between(0, 0.1, x))


def _photos(x: Tensor) -> Tensor:
    """The heavy one for few photos."""
    return _erased(_coloured(_mirrored(_cropped(x))))


AUGMENTATIONS: Shelf[Augmentation] = Shelf(
    "augmentation",
    {
        "none": Augmentation(_same),
        "nudge": Augmentation(_nudged, 4),
        "shift": Augmentation(_shifted, 4),
        "shift_flip": Augmentation(lambda x: _mirrored(_shifted(x)), 4),
        "flip": Augmentation(_mirrored, 4),
        "crop": Augmentation(_cropped, 4),
        "rotate": Augmentation(_rotated, 4),
        "colour": Augmentation(_coloured, 4, unit=True),
        "trivial": Augmentation(_once, 4, unit=True),
        "erase": Augmentation(_erased, 4),
        "photos": Augmentation(_photos, 4, unit=True),
        "later": Augmentation(_later, 3),
        "louder": Augmentation(_louder),
        "noise": Augmentation(_noisy),
    },
)
"""What changes a batch of samples before the net sees it.

Images: ``nudge`` moves them by at most a pixel of 28, ``shift`` by up to an eighth of their sides;
``flip`` mirrors half of them, ``shift_flip`` does both; ``crop`` takes half of the area or more,
``rotate`` turns by up to 15 degrees, ``colour`` changes brightness, contrast and saturation,
``trivial`` does one thing of all these to each image, ``erase`` covers a box; ``photos`` is crop,
flip, colour and erase. Sounds: ``later`` moves them in
time, ``louder`` changes the loudness and ``noise`` adds some."""
