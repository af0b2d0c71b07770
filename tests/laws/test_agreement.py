"""Torch, the whole ONNX graph and the joined segments agree.

They do so at every split and exit and with every codec, on random small nets.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.packing import pack
from presplit.patterns import PATTERNS
from presplit.runtime.engines.onnxruntime import Engine
from presplit.train import MultiExit, add_exits, export, initialise, sparsify
from presplit.train.nets.calling import exit_logits
from presplit.train.nets.to_onnx import to_onnx
from presplit.train.zoo import (
    mixer,
    mlp,
    mobilenet_v2,
    resnet8,
    small_cnn,
    spectrogram_cnn,
    vgg,
    vit,
    waveform_cnn,
)
from presplit.train.zoo.cnn import Residual

EPS = float(np.finfo(np.float32).eps)
CLOSE = 512 * EPS
"""Relative to the largest value: float32 sums of at most so many terms in different orders."""
FAR, DEEP = 8 * CLOSE, ("torchvision MobileNetV2", "timm MobileNetV2")
"""The same for nets of some fifty layers with normalisations, whose differences add up."""
BATCHES = (1, 5)

Arrays = dict[str, np.ndarray]


def random_net(family: str, seed: int) -> tuple[MultiExit, tuple[int, ...]]:
    """A stem, plain or residual blocks and hidden linear layers, some of them sparse, with exits.

    Any of the blocks and hidden layers may be followed by an exit; one is at least.
    """
    draw = np.random.default_rng(seed)
    width, density = int(draw.choice([8, 16])), float(draw.choice([0.25, 0.5]))
    row: dict[str, nn.Module] = {"stem": nn.Conv2d(1, width, 3, padding=1)}
    for number in range(draw.integers(1, 3)):
        if draw.random() < 0.5:
            row[f"block{number}"] = Residual(width, width, stride=int(draw.integers(1, 3)))
        else:
            row[f"block{number}"] = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
    row |= {"pool": nn.AdaptiveAvgPool2d(2), "flat": nn.Flatten()}
    sizes = [4 * width, *(int(size) for size in draw.choice([16, 32, 64], draw.integers(1, 3)))]
    for number, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        row[f"fc{number}"] = nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU())
    row["classifier"] = nn.Linear(sizes[-1], 5)
    names = [name for name in row if name.startswith(("block", "fc"))]
    sparse = sparsify(
        nn.Sequential(OrderedDict(row)),
        layers={"block*": density, f"fc{draw.integers(0, len(sizes) - 1)}.*": density},
        family=family,
        seed=seed,
    )
    after = [name for name in names if draw.random() < 0.5] or names[:1]
    return with_exits(sparse, after, torch.zeros(1, 1, 8, 8)), (1, 8, 8)


def with_exits(model: nn.Module, after: list[str], example: Tensor) -> MultiExit:
    """``model`` with exits and values that leave nothing at its default, ready to evaluate."""
    net = add_exits(model, after, example=example)
    initialise(net, seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    assert tensor is not None
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw))
    return net.eval()


def packed(model: nn.Module, x: np.ndarray, path: Path) -> tuple[onnx.ModelProto, Bundle]:
    """One exported graph, and the same graph cut into a bundle."""
    whole = to_onnx(model, torch.from_numpy(x[:1].copy()))
    names = model.exit_names if isinstance(model, MultiExit) else None
    return whole, pack(whole, path, samples=x, exit_names=names)


def check(
    model: nn.Module,
    whole: onnx.ModelProto,
    bundle: Bundle,
    shape: tuple,
    close: float = CLOSE,
) -> None:
    """Torch, ``whole`` and all splits of ``bundle`` agree at every exit, for all `BATCHES`.

    Codecs are tried at the ends and in the middle.
    """
    names = model.exit_names if isinstance(model, MultiExit) else ("final",)
    last = bundle.net.last
    coded = {0, 1, last // 2, last - 1}
    one_graph = Engine(whole.SerializeToString())
    splits = [Split(bundle, split, coded=split in coded) for split in range(last + 1)]
    for batch in BATCHES:
        x = np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)
        with torch.no_grad():
            logits = exit_logits(model, torch.from_numpy(x.copy()))
        expected = {name: tensor.numpy() for name, tensor in zip(names, logits, strict=True)}
        same(dict(zip(names, one_graph.run({"input": x}).values(), strict=True)), expected, close)
        for split in splits:
            same(split.run(x), expected, close)
            split.check_codecs(x, close)


class Split:
    """A bundle cut once into a head and a tail.

    The head has the exits before the cut, and the tail, by codec, those after it.
    """

    def __init__(self, bundle: Bundle, split: int, *, coded: bool) -> None:
        net, self.bundle, self.split = bundle.net, bundle, split
        early = [e for e in net.exits if e.after < net.last]
        here, there = (
            [e.name for e in early if (e.after <= split) == side] for side in (True, False)
        )
        self.place = "logits" if split == net.last else f"boundary_{split:02d}"
        self.head = Engine(bundle.segment(0, split, exits=here)) if split else None
        codecs: list[str] = []
        if split < net.last:
            codecs = [*bundle.manifest.ports[split].entry] if coded else ["float32"]
        self.tails = {
            codec: Engine(bundle.segment(split, net.last, exits=there, codec=codec))
            for codec in codecs
        }

    def run(self, x: np.ndarray) -> Arrays:
        """The logits of every exit by its name, head and tail together."""
        found = self.head.run({"boundary": x}) if self.head else {self.place: x}
        values = found.pop(self.place)
        found |= (
            self.tails["float32"].run({"boundary": values}) if self.tails else {"logits": values}
        )
        return {name.partition(".")[2] or "final": array for name, array in found.items()}

    def check_codecs(self, x: np.ndarray, close: float) -> None:
        """The tail decodes a codec's codes to the very values that numpy decodes them to."""
        values = self.head.run({"boundary": x})[self.place] if self.head else x
        for name, tail in self.tails.items():
            encoding = self.bundle.encoding(self.split, name)
            codes = CODECS[name].encode(values, encoding)
            decoded = CODECS[name].decode(codes, encoding, values.shape[1:])
            same(
                tail.run({"boundary": codes}),
                self.tails["float32"].run({"boundary": decoded}),
                close,
            )


def same(found: Arrays, expected: Arrays, close: float = CLOSE) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape and found[name].dtype == np.float32
        np.testing.assert_allclose(
            found[name], array, rtol=0, atol=close * max(1.0, float(np.abs(array).max()))
        )


def check_random_net(family: str, seed: int, path: Path) -> None:
    model, shape = random_net(family, seed)
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    check(model, *packed(model, x, path), shape)


@pytest.mark.parametrize("family", PATTERNS)
def test_random_nets_agree_whole_and_cut(family: str, tmp_path: Path) -> None:
    check_random_net(family, [*PATTERNS].index(family), tmp_path / "net.bundle")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 104))
@pytest.mark.parametrize("family", PATTERNS)
def test_more_random_nets_agree_whole_and_cut(family: str, seed: int, tmp_path: Path) -> None:
    check_random_net(family, seed, tmp_path / "net.bundle")


class Viewing(nn.Module):
    """Flattens by the batch size, as much code does.

    It also adds what it has computed three layers before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.pool = nn.AvgPool2d(2)
        self.hidden = nn.Linear(36, 36)
        self.classifier = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float ``(batch, 2, 8, 8)``."""
        flat = self.pool(self.stem(x)).view(x.size(0), -1)
        return self.classifier(torch.relu(self.hidden(flat)) + flat)


def dropped() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(12, 12),
        nn.Tanh(),
        nn.Linear(12, 4),
    )


def concatenating() -> nn.Module:
    class Dense(nn.Module):
        """A block that gives its input beside what it makes of it (arXiv 1608.06993)."""

        def __init__(self, n_in: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(n_in, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, torch.relu(self.conv(x))], 1)

    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9 * 9, 4)]
    return nn.Sequential(Dense(1), Dense(5), *head)


Models = dict[str, tuple[nn.Module, list[str], tuple[int, ...]]]
"""A model, the submodules that exits follow, the shape of a sample."""

AD_HOC: Models = {
    "one input axis, dropout, BatchNorm1d": (dropped(), ["2", "5"], (7,)),
    "view by batch size, average pooling": (Viewing(), ["pool"], (2, 8, 8)),
    "concatenated skips": (concatenating(), ["0"], (1, 6, 6)),
    "no exit": (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), [], (3, 2, 2)),
    "small_cnn": (sparsify(small_cnn(width=8, size=8), density=0.5), ["bottleneck"], (1, 8, 8)),
    "resnet8": (
        sparsify(resnet8(width=8, channels=1), density=0.25),
        ["block1", "block2"],
        (1, 8, 8),
    ),
}


def from_transformers() -> Models:
    """Classifiers of Hugging Face, built from their configurations."""
    import transformers as hf

    resnet = hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], num_labels=10)
    mobilenet = hf.MobileNetV2Config(image_size=32, depth_multiplier=0.35, num_labels=10)
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    vision = hf.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=10)
    return {
        "ResNet": (hf.ResNetForImageClassification(resnet), ["resnet.encoder.stages.0"], IMAGE),
        "MobileNetV2": (
            hf.MobileNetV2ForImageClassification(mobilenet),
            ["mobilenet_v2.layer.4"],
            IMAGE,
        ),
        "ViT": (hf.ViTForImageClassification(vision), ["vit.layers.0"], IMAGE),
    }


def from_torchvision() -> Models:
    """Classifiers of torchvision with random weights."""
    import torchvision.models as tv

    small = {"num_layers": 2, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 128}
    vision = tv.VisionTransformer(image_size=32, patch_size=8, **small, num_classes=10)
    return {
        "ResNet": (tv.resnet18(num_classes=10), ["layer2"], IMAGE),
        "MobileNetV2": (tv.mobilenet_v2(width_mult=0.35, num_classes=10), ["features.6"], IMAGE),
        "ViT": (vision, ["encoder.layers.encoder_layer_0"], IMAGE),
    }


def from_timm() -> Models:
    """Classifiers of timm with random weights."""
    import timm

    small = {"embed_dim": 64, "depth": 2, "num_heads": 4, "img_size": 32, "patch_size": 8}
    return {
        "ResNet": (timm.create_model("resnet10t", num_classes=10), ["layer2"], IMAGE),
        "MobileNetV2": (timm.create_model("mobilenetv2_035", num_classes=10), ["blocks.2"], IMAGE),
        "ViT": (
            timm.create_model("vit_tiny_patch16_224", num_classes=10, **small),
            ["blocks.0"],
            IMAGE,
        ),
    }


LIBRARIES = {"transformers": from_transformers, "torchvision": from_torchvision, "timm": from_timm}
LARGE = ("MobileNetV2", "ViT")
"""Nets of many layers, each of which is a split that is tried."""
OTHERS = [
    pytest.param(f"{name} {model}", marks=[pytest.mark.long] if model in LARGE else [])
    for name in LIBRARIES
    for model in ("ResNet", *LARGE)
]
IMAGE = (3, 32, 32)
ZOO: Models = {
    "tabular mlp": (mlp([30, 64, 64, 5]), ["relu1"], (30,)),
    "vgg": (vgg(widths=(32, 64)), ["stage1"], IMAGE),
    "mobilenet_v2": (mobilenet_v2(widths=(16, 32)), ["stage1"], IMAGE),
    "vit": (vit(width=32, depth=2, dropout=0.1), ["block1"], IMAGE),
    "mixer": (mixer(width=32, depth=2), ["block1"], IMAGE),
    "spectrogram_cnn": (spectrogram_cnn(width=32), ["block1"], (1, 49, 10)),
    "waveform_cnn": (waveform_cnn(), ["block1", "block2"], (1, 2000)),
}


LONGER = ("mobilenet_v2", "mixer", "waveform_cnn", "vgg", "spectrogram_cnn")
OURS = [pytest.param(name, marks=[pytest.mark.long] if name in LONGER else []) for name in ZOO]


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_models_that_were_not_written_for_this_agree_at_every_split(
    name: str, tmp_path: Path
) -> None:
    source, _, own = name.partition(" ")
    try:
        plain, after, shape = ZOO[name] if name in ZOO else LIBRARIES[source]()[own]
    except (
        ImportError,
        RuntimeError,
    ) as error:  # one that was built for another torch fails in its own way
        pytest.skip(f"{source} does not import: {error}")
    torch.manual_seed(0)
    model = with_exits(sparsify(plain, density=0.25), after, torch.zeros(2, *shape))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    whole, bundle = packed(model, x, tmp_path / "net.bundle")
    assert [e.name for e in bundle.net.exits] == [*after, "final"]
    assert len({boundary.name for boundary in bundle.net.boundaries}) == len(bundle.net.boundaries)
    close = FAR if name in DEEP else CLOSE
    check(model, whole, bundle, shape, close)


@pytest.mark.parametrize("name", AD_HOC)
def test_exported_bundles_agree_with_torch_and_the_whole_graph(name: str, tmp_path: Path) -> None:
    plain, after, shape = AD_HOC[name]
    torch.manual_seed(0)
    model = with_exits(plain, after, torch.zeros(1, *shape))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    whole, bundle = packed(model, x, tmp_path / "net.bundle")
    assert [e.name for e in bundle.net.exits] == [*after, "final"]
    check(model, whole, bundle, shape)


def test_exits_may_be_added_in_another_order_than_they_run(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    model = with_exits(net, ["3", "1"], torch.zeros(1, 8))
    x = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    whole, bundle = packed(model, x, tmp_path / "net.bundle")
    assert [e.name for e in bundle.net.exits] == ["1", "3", "final"]
    check(model, whole, bundle, (8,))


def test_every_pair_of_segments_in_a_row_joins(tmp_path: Path) -> None:
    """Three tiers (device, gateway, server) are the same row cut twice."""
    model = mlp([12, 8, 8, 8, 3]).eval()
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    bundle = export(model, x, tmp_path / "net.bundle")
    last = bundle.net.last
    expected = {"logits": model(torch.from_numpy(x)).detach().numpy()}
    for device, gateway in itertools.combinations(range(1, last), 2):
        values = {"boundary": x}
        for start, stop in itertools.pairwise((0, device, gateway, last)):
            (values["boundary"],) = Engine(bundle.segment(start, stop)).run(values).values()
        same({"logits": values["boundary"]}, expected)
