"""The things with which the blocks of the pages are tried: small, made here, trained for seconds.

Files and folders have the names by which the pages speak of them. What is made once is copied for
each page, so that no page finds what another left.
"""

from __future__ import annotations

import io
import shutil
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from presplit.cli.main import main

CATS = '''"""A small net for images of three channels and any size, with two classes."""

from torch import nn


def make():
    """A net with fresh values."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2),
    )
'''
NET = """
name = "net"
[model]
width = 8
[sparsity]
density = 0.5
[exits]
after = ["stem", "block1"]
[training]
epochs = 3
"""


class Workshop:
    """Makes each thing in its own folder when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def lay_out(self, things: tuple[str, ...], folder: Path) -> dict[str, Any]:
        """Copy the files among ``things`` into ``folder``; give the values among them."""
        values: dict[str, Any] = {}
        for thing in things:
            if thing in VALUES:
                values[thing] = VALUES[thing]()
                continue
            kind = ALSO.get(thing, thing)
            made = self._folder / kind
            if not made.exists():
                made.parent.mkdir(parents=True, exist_ok=True)
                FILES[kind](made)
            target = folder / thing
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if made.is_dir() else shutil.copy
            copy(made, target)
        return values


def _presplit(*arguments: object) -> None:
    """Call the command, which must succeed."""
    assert main([str(argument) for argument in arguments]) == 0, arguments


def _photo(is_cat: bool, rng: np.random.Generator) -> Any:
    """A bright disc or stripes, in noise: uint8 ``(80, 64, 3)``."""
    y, x = np.mgrid[:80, :64]
    disc = (x - rng.integers(20, 44)) ** 2 + (y - rng.integers(24, 56)) ** 2 < 250
    stripes = (x + rng.integers(8)) % 12 < 5
    shape = disc if is_cat else stripes
    pixels = 60 + 120 * shape[..., None] + rng.normal(0, 20, (80, 64, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def _photos(folder: Path) -> None:
    """Photos of two classes, of which those with a cat have a disc."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(_photo(name == "cat", rng))
                picture.save(folder / part / name / f"{number:03}.jpg")


def _npz(file: Path) -> None:
    """The same as arrays of 32 x 32."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"labels": np.array(["cat", "dog"])}
    for part, count in (("train", 80), ("test", 20)):
        y = np.arange(count) % 2
        images = [_photo(label == 0, rng)[:32, :32].transpose(2, 0, 1) for label in y]
        arrays |= {f"x_{part}": np.stack(images), f"y_{part}": y}
    np.savez(file, **arrays)


def _sounds(file: Path) -> None:
    """A zip of short tones, low and high."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as pack:
        for part, count in (("train", 12), ("test", 4)):
            for name, hz in (("low", 300), ("high", 1500)):
                for number in range(count):
                    tone = np.sin(np.arange(2000) / 8000 * 2 * np.pi * hz + rng.uniform(0, 6))
                    sound = (tone * 2**14).astype("<i2").tobytes()
                    buffer = io.BytesIO()
                    with wave.open(buffer, "wb") as written:
                        written.setparams((1, 2, 8000, 2000, "NONE", ""))
                        written.writeframes(sound)
                    pack.writestr(f"{part}/{name}/{number}.wav", buffer.getvalue())


def _run(folder: Path, extra: str = NET) -> None:
    """A run of the command, trained for three epochs on the digits."""
    spec = folder.parent / f"{folder.name}.toml"
    spec.write_text(extra)
    _presplit("train", spec, "--out", folder)


def _dense(folder: Path) -> None:
    """A dense run on the same."""
    _run(folder, 'name = "dense"\n[model]\nwidth = 16\n[training]\nepochs = 3\n')


def _bundle(folder: Path) -> None:
    """The bundle of a run, with a plan in it."""
    run = folder.parent / "of-net"
    _run(run)
    _presplit("export", run, "--forms", "float32,int8")
    where = ["--device", "raspberry-pi-4", "--link", "wifi", "--server", "server-cpu"]
    _presplit("plan", run / "net.bundle", *where, "--save")
    shutil.copytree(run / "net.bundle", folder)


def _onnx(file: Path) -> None:
    """A dense classifier of the digits as ONNX, as any tool may write one."""
    import torch

    from presplit.train import fit, to_onnx
    from presplit.train.data import digits
    from presplit.train.zoo import small_cnn

    net, data = small_cnn(width=8, size=8), digits()
    fit(net, data.train, epochs=2)
    file.write_bytes(to_onnx(net, torch.tensor(data.train.x[:2])).SerializeToString())


def _x(file: Path) -> None:
    """Samples for it."""
    from presplit.train.data import digits

    np.save(file, digits().train.x[:300])


def _y(file: Path) -> None:
    """Their labels."""
    from presplit.train.data import digits

    np.save(file, digits().train.y[:300])


def _images(file: Path) -> None:
    """Some samples to answer."""
    from presplit.train.data import digits

    np.save(file, digits().test.x[:12])


def _weights(file: Path) -> None:
    """Saved values of the net in cats.py."""
    import torch

    space: dict[str, Any] = {}
    exec(CATS, space)  # noqa: S102 - the text above
    torch.save(space["make"]().state_dict(), file)


def _example(name: str) -> Callable[[Path], None]:
    """A file of the examples as it is."""
    source = Path(__file__).parents[2] / "examples" / name
    return lambda file: shutil.copy(source, file) and None


FILES: dict[str, Callable[[Path], None]] = {
    "photos": _photos,
    "cats.py": lambda file: file.write_text(CATS) and None,
    "cats.npz": _npz,
    "sounds.zip": _sounds,
    "runs/net": _run,
    "runs/dense": _dense,
    "spec.toml": lambda file: file.write_text(NET) and None,
    "examples/drawn_photos.py": _example("drawn_photos.py"),
    "net.bundle": _bundle,
    "model.onnx": _onnx,
    "x.npy": _x,
    "y.npy": _y,
    "images.npy": _images,
    "net.pt": _weights,
}

ALSO = {
    "bundles/net.bundle": "net.bundle",
    "digits.bundle": "net.bundle",
    "faces.bundle": "net.bundle",
    "plates.bundle": "net.bundle",
}
"""Things under another name."""


def _samples(part: str) -> Any:
    """The digits, a fifth of them held out."""
    from presplit.train.data import digits, hold_out

    train, held_out = hold_out(digits().train, 0.2)
    return {"train": train, "held_out": held_out}[part]


def _net() -> Any:
    """A dense net of the digits, untrained."""
    from presplit.train.zoo import small_cnn

    return small_cnn(width=16, size=8)


def _plan() -> Any:
    """A plan that keeps all on the edge, for nets of seven segments."""
    from presplit.core.plans import Plan

    return Plan(7, thresholds={"block1": 0.8})


def _tensor() -> Any:
    """A batch of the digits."""
    import torch

    return torch.tensor(_samples("train").x[:64])


VALUES: dict[str, Callable[[], Any]] = {
    "train": lambda: _samples("train"),
    "held_out": lambda: _samples("held_out"),
    "model": _net,
    "dense": _net,
    "images": _tensor,
    "plan": _plan,
    "image": lambda: _samples("train").x[0],
    "x": lambda: _samples("train").x,
    "y": lambda: _samples("train").y,
}
"""Values that the Python of the pages takes for given."""
