"""The texts that ``presplit init`` writes: a spec and a net for the data that it has looked at."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presplit.train.data.look import Look

SEEN = 90_000
"""Samples that a training goes through, all epochs together: a minute or few on a laptop."""
UNEVEN = 3
"""How many times as large as the rarest class the commonest one is when that is told."""
EPOCHS = (4, 60)
"""The fewest and the most epochs that are proposed."""
WIDTH, BOTTLENECK, HIDDEN = 32, 16, 64
"""Channels of the net for images and sounds, and the size of the hidden layers of that for rows."""


def spec_text(look: Look, name: str, source: str, model: str) -> str:
    """A commented ``spec.toml``; ``source`` is what it calls the data, ``model`` the word of code.

    ``name`` is what the net is called.
    """
    parts = [
        "# What to train, and on what. Change any line; what is left out keeps its usual value.",
        "# Train it with: presplit train THIS-FILE",
        "",
        _line("name", name, "what the net is called: its run is runs/NAME"),
        _line("seed", 0, "the same seed gives the same net again"),
        "",
        *_data(look, source),
        "",
        *_model(look, model),
        "",
        *_sparsity(look),
        "",
        *_training(look),
        "",
        "# What the net shall run on. What is not said here can be said to presplit plan.",
        "# [plan]",
        '# device = "raspberry-pi-4"   # presplit measure --profiles lists what is known',
        '# link = "wifi"              # so are links',
        "# deadline_s = 0.1            # every answer is there by then",
    ]
    return "\n".join(parts) + "\n"


def _line(key: str, value: object, comment: str) -> str:
    """One line of TOML with its comment.

    >>> _line("size", 48, "pixels")
    'size = 48                   # pixels'
    """
    return f"{f'{key} = {json.dumps(value, ensure_ascii=False)}':<27} # {comment}"


def _data(look: Look, source: str) -> list[str]:
    train, test, classes = len(look.data.train), len(look.data.test), len(look.data.labels)
    many = f"{train:,} {look.kind} of {classes} classes to train with, {test:,} to test with"
    lines = ["[data]", _line("name", source, many)]
    if not look.is_parted and look.kind in ("images", "sounds"):
        lines += [
            "# Every fifth file of a class is kept to test with. If neighbours are nearly alike,",
            "# as frames of a video are, that is too easy: make train/CLASS and test/CLASS then.",
        ]
    if look.size is not None:
        lines.append(_line("size", look.size, "pixels a side; 64 or 96 sees more, takes longer"))
    if look.grey:
        lines.append(_line("grey", True, "all images are grey: one channel instead of three"))
    if look.rate is not None:
        lines.append(_line("rate", look.rate, "Hz that all sounds are brought to"))
    if look.length_s is not None:
        lines.append(_line("length_s", look.length_s, "the middle of longer sounds is taken"))
    if look.data.left_out:
        bad = f"{len(look.data.left_out)} bad files are left out, and named each time"
        lines.append(_line("skip_bad", True, bad))
    elif look.kind in ("images", "sounds") and not look.is_named:
        lines.append(
            "# skip_bad = true            # leave out files that cannot be read; now all can"
        )
    if look.kind == "rows" and len(look.shape) == 1:
        lines.append(_line("standardise", True, "the net itself brings each column to one scale"))
    share = 0.2 if train < 1500 else 0.1
    lines.append(
        _line("validation", share, "held out of training: from it exits learn when to answer")
    )
    return lines


def _model(look: Look, model: str) -> list[str]:
    lines = [
        "[model]",
        "# The built-in net. model.py holds the same one as code that you may change; it runs only",
        f"# if you say so: presplit train THIS-FILE --model {model}",
    ]
    if look.kind == "rows":
        sizes = "inputs, two hidden layers, classes"
        return [*lines, _line("layers", layers_of(look), sizes)]
    return [
        *lines,
        _line("kind", "cnn", "a small convolutional net"),
        _line("width", WIDTH, "channels at the beginning: 16 is quicker, 64 learns more"),
        _line("bottleneck", BOTTLENECK, "channels at the narrow place, where it is cheap to cut"),
    ]


def layers_of(look: Look) -> list[int]:
    """The sizes of the net for rows of numbers."""
    return [math.prod(look.shape), HIDDEN, HIDDEN, len(look.data.labels)]


def _sparsity(look: Look) -> list[str]:
    few = "a quarter of the connections exist, from the beginning on"
    exits = ["[exits]", "# An early exit answers by itself where it is sure; the others go on."]
    if look.kind == "rows":
        dense = "# The first and the last layer stay dense."
        lines = ["[sparsity.layers]", dense, _line("fc2", 0.25, few)]
        return [*lines, "", *exits, _line("after", ["relu1"], "the first hidden layer")]
    lines = ["[sparsity]", _line("density", 0.25, few)]
    return [*lines, "", *exits, _line("after", ["block1"], "block2 is surer and later")]


def _training(look: Look) -> list[str]:
    train = len(look.data.train)
    lines = [
        "[training]",
        _line("epochs", epochs_of(train), "more learn more, up to a point"),
        _line("batch", 64 if train >= 1500 else 32, "samples of one step"),
    ]
    if look.kind == "images":
        is_photo = look.size is not None and not look.grey
        how = "crop+flip" if is_photo else "crop"
        why = 'each epoch sees other crops, mirrored; "crop" if left and right differ'
        lines.append(_line("augment", how, why if is_photo else "each epoch sees other crops"))
    if look.unevenness >= UNEVEN:
        uneven = f"The commonest class is {look.unevenness:.0f} times as large as the rarest:"
        lines += [
            f"# {uneven} uncomment this if both matter alike.",
            '# class_weights = "balanced"',
        ]
    return lines


def epochs_of(train: int) -> int:
    """How many epochs suit so many samples.

    >>> [epochs_of(count) for count in (200, 3000, 60_000)]
    [60, 30, 4]
    """
    return max(EPOCHS[0], min(EPOCHS[1], round(SEEN / train)))


def slug(text: str) -> str:
    """``text`` as a name that a net can have.

    >>> slug("My Photos 2024"), slug("..."), slug("Äpfel")
    ('my-photos-2024', 'net', 'pfel')
    """
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-_")[:63] or "net"


def model_text(look: Look) -> str:
    """The built-in net for this data as code of the user's own."""
    labels = ", ".join(_plain(label) for label in look.data.labels[:8])
    known = {
        "LABELS": labels + ", ..." * (len(look.data.labels) > 8),
        "CLASSES": str(len(look.data.labels)),
        "SHAPE": ", ".join(map(str, look.shape)),
        "WIDTH": str(WIDTH),
        "NARROW": str(BOTTLENECK),
    }
    if look.kind == "rows":
        text, known["INPUTS"], known["HIDDEN"] = ROWS, str(math.prod(look.shape)), str(HIDDEN)
    elif look.kind == "sounds":
        text = IMAGES.replace("# FIRST\n", FIRST_OF_SOUNDS).replace("# IMPORT\n", IMPORT_OF_SOUNDS)
        known |= {"CHANNELS": "1", "STRIDE": "2", "RATE": str(look.data.rate)}
    else:
        text = IMAGES
        known |= {"CHANNELS": str(look.shape[0]), "STRIDE": "2" if look.shape[1] >= 16 else "1"}
    text = text.replace("            # FIRST\n", "").replace("# IMPORT\n", "")
    for key, value in known.items():
        text = text.replace(f"@{key}@", value)
    return text


def _plain(label: str) -> str:
    """A class's name that can stand in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in label).split())


HEAD = '''"""A net of your own, in plain PyTorch: change it as you like.

It begins as the built-in net that the spec names. Train it instead of that one by saying so:

    presplit train spec.toml --model model.py:make

Where spec.toml names layers ([sparsity] and [exits]), it means the names below.
"""

from collections import OrderedDict

'''
IMAGES = (
    HEAD
    + '''from torch import nn
# IMPORT

CLASSES = @CLASSES@  # @LABELS@


def block(n_in, n_out, *, kernel=3, stride=1, pool=1):
    """Convolution, normalisation, ReLU and, if asked for, pooling."""
    parts = OrderedDict(
        conv=nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
        norm=nn.BatchNorm2d(n_out),
        relu=nn.ReLU(),
    )
    if pool > 1:
        parts["pool"] = nn.MaxPool2d(pool)
    return nn.Sequential(parts)


def make():
    """A net for float32 samples (batch, @SHAPE@); it gives one number for each class."""
    width, narrow = @WIDTH@, @NARROW@
    return nn.Sequential(
        OrderedDict(
            # FIRST
            stem=block(@CHANNELS@, width, stride=@STRIDE@),
            block1=block(width, 2 * width, pool=2),
            block2=block(2 * width, 2 * width, pool=2),
            bottleneck=block(2 * width, narrow, kernel=1),  # the narrow place: cheap to cut here
            block3=block(narrow, 4 * width),
            block4=block(4 * width, 4 * width),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * width, CLASSES),  # no softmax: training wants logits
        )
    )
'''
)
FIRST_OF_SOUNDS = "log_mel=LogMel(@RATE@, bands=40),  # from the waveform to a picture of it\n"
IMPORT_OF_SOUNDS = "\nfrom presplit.train.layers.log_mel import LogMel\n"
ROWS = (
    HEAD
    + '''from torch import nn

CLASSES = @CLASSES@  # @LABELS@


def make():
    """A net for float32 samples (batch, @SHAPE@); it gives one number for each class."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(@INPUTS@, @HIDDEN@),
            relu1=nn.ReLU(),
            fc2=nn.Linear(@HIDDEN@, @HIDDEN@),
            relu2=nn.ReLU(),
            fc3=nn.Linear(@HIDDEN@, CLASSES),  # no softmax: training wants logits
        )
    )
'''
)
