"""The nets whose accuracy is measured: what each is, how it is trained, what it must reach."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from benchmarks._nets import (
    EIGHTH,
    PADDED,
    PHOTO_LAYERS,
    PIXELS,
    QUARTER,
    SOUND_LAYERS,
    Builder,
    Sparse,
    bottlenecked,
    deep_behind,
    dense_mlp,
    from_dense,
    in_rounds,
    local_mlp,
    patches,
    photos,
    residual,
    sounds,
    transformer,
)
from presplit.train import Recipe

TAUGHT = Recipe(
    epochs=100, rate=6e-3, rates="uniform", augment="nudge", distil=0.7, temperature=3.0
)
PLAIN = Recipe(epochs=20, rate=3e-3, rates="uniform")
IMAGES = Recipe(
    epochs=72,
    batch=256,
    rate=0.2,
    rates="uniform",
    optimiser="sgd",
    weight_decay=5e-4,
    augment="shift_flip",
    bf16=True,
)
TAKEN = replace(IMAGES, rate=0.1)
TOKENS = Recipe(epochs=8, rate=6e-3, optimiser="adamw", weight_decay=0.05, augment="nudge")
PATCHES = Recipe(
    epochs=20,
    batch=256,
    rate=3e-3,
    optimiser="adamw",
    weight_decay=0.05,
    augment="shift_flip",
    bf16=True,
)
PHOTOS = Recipe(
    epochs=12,
    batch=64,
    rate=3e-3,
    optimiser="adamw",
    weight_decay=0.05,
    augment="flip+trivial+erase",
    label_smoothing=0.1,
)
SOUNDS = Recipe(epochs=12, rate=0.01, augment="later+noise")
LEARNS = {"distil": 0.7, "temperature": 4.0}


@dataclass(frozen=True)
class Net:
    """One row: a net, how it is trained, and what it must reach.

    ``teacher``, ``parent`` and ``start`` are rows too: what it distils from, what it is compared
    with, and the trained dense net that ``sparse`` makes it of.
    ``least``: accuracy in 0..1. ``within``: at most so far below its parent; 0 means above it.
    ``fewer``: how many times fewer weights and multiplications than its parent. ``faster``: how
    many times, in ONNX Runtime with batches of ``at``, its parent's speed. ``early``: the share of
    answers at an early exit, by thresholds chosen on held-out samples, at most ``drop`` below the
    last exit; ``sooner``: how many times faster its images are answered then, in batches and one by
    one. Of ``uneven`` classes the balanced accuracy is compared too. ``heavy`` nets are trained for
    fewer epochs without a GPU.
    """

    data: str
    build: Builder
    recipe: Recipe
    start: str = ""
    sparse: Sparse | None = None
    teacher: str = ""
    parent: str = ""
    least: float | None = None
    within: float | None = None
    fewer: tuple[float, float] = (0.0, 0.0)
    faster: float | None = None
    at: int = 1
    early: float | None = None
    drop: float = 0.0
    sooner: float | None = None
    uneven: bool = False
    heavy: bool = False


NETS = {
    "mnist teacher": Net(
        "mnist images",
        dense_mlp(PIXELS, 512, 256, 10),
        Recipe(epochs=30, batch=256, rate=2e-3, augment="nudge"),
    ),
    "mnist 2360 start": Net(
        "mnist images",
        dense_mlp(PIXELS, 100, 32, 10),
        replace(TAUGHT, epochs=12, batch=256),
        teacher="mnist teacher",
    ),
    "mnist 2360": Net(
        "mnist images",
        dense_mlp(PIXELS, 100, 32, 10),
        replace(TAUGHT, epochs=60, batch=256, distil=0.0),
        start="mnist 2360 start",
        sparse=in_rounds((1640, 400, 320), (16000, 9000, 6000, 4500, 3500, 2850, 2360)),
        least=0.98,
    ),
    "mnist 2360 parent": Net(
        "mnist images", dense_mlp(PIXELS, 40, 40, 10), replace(TAUGHT, distil=0.0)
    ),
    "mnist 5000": Net(
        "mnist images",
        local_mlp(PIXELS, 100, 50, 10, fields=30, second=30),
        TAUGHT,
        teacher="mnist teacher",
        least=0.981,
    ),
    "mnist 12000": Net(
        "mnist images",
        local_mlp(PIXELS, 200, 100, 10, fields=35, second=40),
        TAUGHT,
        teacher="mnist teacher",
        least=0.985,
    ),
    "mnist 9x fewer parent": Net("mnist", dense_mlp(PADDED, 400, 400, 10), PLAIN),
    "mnist 9x fewer": Net(
        "mnist",
        local_mlp(PADDED, 400, 400, 10, fields=80, second=40, tile=16, family="grouped"),
        PLAIN,
        parent="mnist 9x fewer parent",
        within=0.0,
        fewer=(9.0, 9.0),
        faster=1.0,
        at=64,
    ),
    "mnist exits": Net(
        "mnist images",
        bottlenecked(exits=["block2"]),
        replace(PLAIN, augment="shift"),
        early=0.6,
        drop=0.002,
    ),
    "cifar10 parent": Net("cifar10", residual(width=64), IMAGES, heavy=True),
    "cifar10 4x fewer": Net(
        "cifar10",
        residual(width=64),
        replace(TAKEN, **LEARNS),
        start="cifar10 parent",
        sparse=from_dense(QUARTER),
        teacher="cifar10 parent",
        parent="cifar10 parent",
        within=0.002,
        fewer=(4.0, 4.0),
        faster=2.3,
        heavy=True,
    ),
    "cifar10 4x fewer, a third": Net(
        "cifar10",
        residual(width=64),
        replace(TAKEN, epochs=24, **LEARNS),
        start="cifar10 parent",
        sparse=from_dense(QUARTER),
        teacher="cifar10 parent",
        parent="cifar10 parent",
        within=0.005,
        fewer=(4.0, 4.0),
        heavy=True,
    ),
    "cifar10 8x fewer": Net(
        "cifar10",
        residual(width=64),
        replace(TAKEN, epochs=24, **LEARNS),
        start="cifar10 parent",
        sparse=from_dense(EIGHTH),
        teacher="cifar10 parent",
        parent="cifar10 parent",
        within=0.005,
        fewer=(8.0, 8.0),
        faster=1.0,
        heavy=True,
    ),
    "cifar10 wide and sparse": Net(
        "cifar10",
        residual(width=128, layers=QUARTER),
        replace(IMAGES, **LEARNS),
        teacher="cifar10 parent",
        parent="cifar10 parent",
        within=0.0,
        fewer=(1.0, 1.0),
        heavy=True,
    ),
    "cifar10 exits": Net(
        "cifar10",
        deep_behind(exits=["block1", "block2"]),
        replace(IMAGES, epochs=36),
        early=0.6,
        drop=0.005,
        sooner=1.5,
        heavy=True,
    ),
    "cifar10 wide parent": Net("cifar10", residual(width=128), IMAGES, heavy=True),
    "cifar10 wide exits": Net(
        "cifar10",
        residual(width=128),
        replace(TAKEN, epochs=56, weight_decay=2.5e-4, **LEARNS),
        start="cifar10 wide parent",
        sparse=from_dense(PHOTO_LAYERS, exits=["block1", "block2"], hidden=64),
        teacher="cifar10 wide parent",
        parent="cifar10 wide parent",
        within=0.003,
        fewer=(5.0, 5.0),
        early=0.5,
        drop=0.005,
        heavy=True,
    ),
    "transformer parent": Net("mnist images", transformer(), TOKENS),
    "transformer": Net(
        "mnist images",
        transformer(),
        TOKENS,
        start="transformer parent",
        sparse=from_dense({"block*": 1 / 4}),
        parent="transformer parent",
        within=0.001,
    ),
    "cifar10 transformer parent": Net("cifar10", patches(width=128), PATCHES, heavy=True),
    "cifar10 transformer": Net(
        "cifar10",
        patches(width=128),
        replace(PATCHES, **LEARNS),
        start="cifar10 transformer parent",
        sparse=from_dense({"block*": 1 / 4}),
        teacher="cifar10 transformer parent",
        parent="cifar10 transformer parent",
        within=0.005,
        heavy=True,
    ),
    "clothes parent": Net("clothing 128", photos(), PHOTOS),
    "clothes": Net(
        "clothing 128",
        photos(),
        replace(PHOTOS, rate=1.5e-3, **LEARNS),
        start="clothes parent",
        sparse=from_dense(PHOTO_LAYERS, exits=["block1", "block2"], hidden=64),
        teacher="clothes parent",
        parent="clothes parent",
        within=0.0,
        fewer=(4.0, 4.0),
        faster=2.5,
        early=0.5,
        drop=0.005,
        uneven=True,
    ),
    "clothes wide parent": Net(
        "clothing 128", photos(width=128), replace(PHOTOS, epochs=48), heavy=True
    ),
    "clothes wide exits": Net(
        "clothing 128",
        photos(width=128),
        replace(PHOTOS, epochs=48, rate=1.5e-3, **LEARNS),
        start="clothes wide parent",
        sparse=from_dense(PHOTO_LAYERS, exits=["block1", "block2"], hidden=64),
        teacher="clothes wide parent",
        parent="clothes wide parent",
        within=0.0,
        fewer=(4.0, 4.0),
        faster=2.5,
        early=0.5,
        drop=0.005,
        uneven=True,
        heavy=True,
    ),
    "digits parent": Net("fsdd", sounds(width=64, rate=8000), SOUNDS),
    "digits": Net(
        "fsdd",
        sounds(width=64, rate=8000),
        replace(SOUNDS, rate=5e-3, **LEARNS),
        start="digits parent",
        sparse=from_dense(SOUND_LAYERS),
        teacher="digits parent",
        parent="digits parent",
        within=0.0,
        fewer=(4.0, 4.0),
        faster=3.0,
    ),
}
