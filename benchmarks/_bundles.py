"""The bundles that planning is tried on: two CNNs, an MLP, a transformer, trained for seconds.

They tell classes of made-up samples apart; times and bytes are those of any net of that shape. A
process of its own makes them (``python -m benchmarks._bundles FOLDER``), so that what is timed
afterwards runs without torch, as an edge does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FORMS = ("float32", "int8")
CODECS = ("float32", "int8", "int4")
TRAIN, HELD_OUT = 320, 64
STEPS = 40


@dataclass(frozen=True)
class Kind:
    """A net of the benchmark: its input, where exits hang, how slow its edge is made."""

    shape: tuple[int, ...]
    exits: tuple[str, ...]
    factor: float


KINDS = {
    "cnn": Kind((3, 96, 96), ("block1", "bottleneck"), 8.0),
    "residual": Kind((3, 32, 32), ("block1",), 12.0),
    "mlp": Kind((1, 28, 28), ("relu2",), 15.0),
    "transformer": Kind((3, 32, 32), ("block2",), 8.0),
}


def make(folder: Path, names: Sequence[str]) -> None:
    """Write those called ``names`` as ``folder/NAME.bundle``."""
    import torch

    from presplit.train.zoo import mlp, resnet8, small_cnn, vit

    torch.set_num_threads(1)
    nets: dict[str, Callable[[], torch.nn.Module]] = {
        "cnn": lambda: small_cnn(width=64, channels=3, size=96),
        "residual": lambda: resnet8(width=64),
        "mlp": lambda: mlp((784, 2048, 2048, 1024, 10)),
        "transformer": lambda: vit(width=192, depth=4),
    }
    for name in names:
        torch.manual_seed(0)
        _make(nets[name](), KINDS[name], folder / f"{name}.bundle")


def _make(net: object, kind: Kind, path: Path) -> None:
    """One bundle: classes are noisy copies of ten patterns."""
    import numpy as np
    import torch

    from presplit.train import add_exits, export
    from presplit.train.data.samples import Samples

    random = np.random.default_rng(0)
    patterns = random.random((10, *kind.shape))
    labels = random.integers(0, 10, TRAIN + HELD_OUT)
    noise = random.random((len(labels), *kind.shape))
    x = (0.5 * patterns[labels] + 0.5 * noise).astype(np.float32)
    assert isinstance(net, torch.nn.Module)
    model = add_exits(net, list(kind.exits), example=torch.from_numpy(x[:1]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(STEPS):
        some = random.integers(0, TRAIN, 16)
        loss = torch.zeros(())
        for logits in _logits(model, torch.from_numpy(x[some])):
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[some]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    held_out = Samples(x[TRAIN:], labels[TRAIN:])
    bundle = export(model, held_out, path, forms=FORMS, codecs=CODECS)
    print(path.name, bundle.net.last, "segments", bundle.forms, file=sys.stderr, flush=True)


def _logits(model: object, x: object) -> list:
    """Those of every exit."""
    from presplit.train.nets.calling import exit_logits

    return list(exit_logits(model, x))  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
