"""What is done to an image before the net takes it: the same in training and on the edge.

A bundle carries it; `presplit.bundle.photo` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from presplit.core.errors import SpecError
from presplit.core.value import Positive, Value

Pixels = Annotated[int, Meta(ge=1, le=2**20)]
How = Literal["fit", "crop", "stretch", "exact"]
Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

IMAGENET = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
"""Of the photographs by which the nets of torchvision and others were trained, in 0..1."""


class Preparation(Value, frozen=True):
    """From the pixels of an image file to what the net takes, step by step in this order.

    The image is turned ``upright`` as its EXIF data says, transparency is dropped, and it becomes
    ``grey`` or has three channels. It gets ``height`` x ``width`` pixels: ``how`` is "fit" (the
    largest middle part of that form, scaled by the filter ``resample``), "crop" (its shorter side
    is scaled to ``shorter``, the middle taken), "stretch" (scaled, form or no form) or "exact" (it
    must have them). Bytes are divided by ``divide``; ``mean`` is taken away, and what is left
    divided by ``deviation``, for each channel. ``bgr`` and ``channels_last`` say their order;
    ``flat`` is the number of values where the net takes a row, filled up with zeros.

    >>> Preparation(8, 8, mean=(0.5,))
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: Preparation.mean: expected 3 values, one a channel, got 1
    """

    height: Pixels
    width: Pixels
    grey: bool = False
    how: How = "fit"
    shorter: Pixels | None = None
    resample: Filter = "bilinear"
    upright: bool = True
    divide: Positive = 255.0
    mean: tuple[float, ...] = ()
    deviation: tuple[Positive, ...] = ()
    bgr: bool = False
    channels_last: bool = False
    flat: Annotated[int, Meta(ge=1, le=2**31)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mean", "deviation"):
            found = len(getattr(self, name))
            if found not in (0, self.channels):
                raise SpecError(
                    f"Preparation.{name}: expected {self.channels} values, one a channel, got "
                    f"{found}"
                )
        if (self.shorter is not None) != (self.how == "crop"):
            raise SpecError(
                "Preparation.shorter: how = crop needs it, and nothing else has it; got "
                f"{self.shorter} and how = {self.how}"
            )
        if self.shorter is not None and self.shorter < max(self.height, self.width):
            raise SpecError(
                f"Preparation.shorter: expected at least {max(self.height, self.width)}, the "
                f"longer side of what is cropped, got {self.shorter}"
            )
        if self.flat is not None and self.flat < self.channels * self.height * self.width:
            raise SpecError(
                f"Preparation.flat: expected at least {self.channels * self.height * self.width} "
                f"values, as many as an image has, got {self.flat}"
            )

    @property
    def channels(self) -> int:
        """1 if it is grey, else 3."""
        return 1 if self.grey else 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample that the net takes.

        >>> Preparation(4, 6).shape, Preparation(4, 6, grey=True, flat=30).shape
        ((3, 4, 6), (30,))
        """
        if self.flat is not None:
            return (self.flat,)
        if self.channels_last:
            return (self.height, self.width, self.channels)
        return (self.channels, self.height, self.width)


def preparation(words: Sequence[str], shape: tuple[int, ...]) -> Preparation:
    """What ``words`` say is done to images for a net that takes ``shape``.

    Each is ``KEY=VALUE`` with a field of `Preparation`, values of channels separated by commas, or
    one of two names: "plain" changes nothing, "imagenet" stands for the mean and deviation of
    ImageNet and the crop with which its nets are evaluated. What nobody says is told by the shape.
    Raises `SpecError` for anything else.

    >>> found = preparation(["imagenet", "resample=bicubic"], (3, 224, 224))
    >>> found.how, found.shorter, found.resample, found.mean
    ('crop', 256, 'bicubic', (0.485, 0.456, 0.406))
    >>> preparation(["size=8"], (3, 8, 8))
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: --prepare size=8: expected imagenet, plain or KEY=VALUE, KEY \
one of height, width, grey, how, shorter, resample, upright, divide, mean, deviation, bgr, \
channels_last, flat
    """
    said: dict[str, Any] = _by_shape(shape)
    fields = Preparation.__struct_fields__
    for word in words:
        key, equals, value = word.partition("=")
        if word == "imagenet":
            side = max(said.get("height", 224), said.get("width", 224))
            said |= {"how": "crop", "shorter": round(side * 256 / 224), **IMAGENET}
        elif equals and key in fields:
            said[key] = value.split(",") if key in ("mean", "deviation") else value
        elif word != "plain":
            raise SpecError(
                f"--prepare {word}: expected imagenet, plain or KEY=VALUE, KEY one of "
                f"{', '.join(fields)}"
            )
    try:
        found = msgspec.convert(said, Preparation, strict=False)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise SpecError(
            f"--prepare{' ' * bool(where)}{where.rstrip('`')}: {problem[:1].lower()}{problem[1:]}"
        ) from error
    if found.shape != shape:
        raise SpecError(
            f"--prepare: the net takes samples of shape {shape}, and images prepared so have "
            f"{found.shape}"
        )
    return found


def _by_shape(shape: tuple[int, ...]) -> dict[str, Any]:
    """What the shape of a sample tells: size, channels and their place."""
    if len(shape) == 1:
        return {"flat": shape[0]}
    if len(shape) == 3 and shape[0] in (1, 3):
        return {"height": shape[1], "width": shape[2], "grey": shape[0] == 1}
    if len(shape) == 3 and shape[2] in (1, 3):
        return {
            "height": shape[0],
            "width": shape[1],
            "grey": shape[2] == 1,
            "channels_last": True,
        }
    raise SpecError(
        f"--prepare: expected a net that takes images of one or three channels, or a row of "
        f"values, got samples of shape {shape}"
    )
