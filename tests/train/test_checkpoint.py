"""A checkpoint holds only what exists, is written whole or not at all, and refuses damage."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from presplit.core.errors import DataError
from presplit.core.types import Pattern
from presplit.patterns import PATTERNS, biregular
from presplit.train import SparseLinear, add_exits, restore, save, sparsify
from presplit.train.zoo import mlp, small_cnn

PAPER = [800, 40, 40, 10]
FAN_OUT = [2, 9, 10]


def paper_net(seed: int = 0) -> nn.Module:
    """The sparse net of arXiv 2407.11763: 800-40-40-10 with out-degrees 2, 9, 10."""
    patterns: dict[str, float | Pattern] = {
        f"fc{number}": biregular(n_in, n_out, fan_out=degree, seed=seed + number)
        for number, (n_in, n_out, degree) in enumerate(
            zip(PAPER, PAPER[1:], FAN_OUT, strict=False), start=1
        )
    }
    return sparsify(mlp(PAPER), layers=patterns)


def test_a_checkpoint_of_the_paper_s_net_holds_its_2360_values_biases_and_index(
    tmp_path: Path,
) -> None:
    save(tmp_path / "net.safetensors", paper_net())
    raw = (tmp_path / "net.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    sizes = {name: int(np.prod(entry["shape"])) for name, entry in header.items()}
    kinds = {
        kind: sum(n for name, n in sizes.items() if name.endswith(kind))
        for kind in ("values", "bias", "index")
    }
    assert kinds == {"values": 2360, "bias": 90, "index": 2360}
    assert sum(sizes.values()) == sum(kinds.values()), "nothing else is stored"
    assert len(raw) == 8 + length + 4 * (2360 + 90 + 2360) < 20_500, (
        "the dense net's weights alone are 136,000 bytes"
    )


@pytest.mark.parametrize("family", PATTERNS)
def test_a_net_of_another_seed_is_filled_with_values_and_patterns(
    family: str, tmp_path: Path
) -> None:
    saved, other = (
        sparsify(mlp([64, 64, 32, 10]), density=0.25, family=family, seed=seed) for seed in (1, 2)
    )
    save(tmp_path / "net.safetensors", saved, {"name": "first"})
    assert restore(tmp_path / "net.safetensors", other) == {"name": "first"}
    x = torch.randn(3, 64)
    torch.testing.assert_close(other(x), saved(x), rtol=0, atol=0)


def test_exits_and_statistics_are_saved_too(tmp_path: Path) -> None:
    one, other = (
        add_exits(
            sparsify(small_cnn(width=8, size=8), density=0.5),
            ["block1"],
            example=torch.zeros(1, 1, 8, 8),
        )
        for _ in range(2)
    )
    one.train()(torch.randn(4, 1, 8, 8))
    save(tmp_path / "net.safetensors", one)
    restore(tmp_path / "net.safetensors", other)
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)


def test_a_layer_under_two_names_comes_back_under_both(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer)

    one, other = tied(), tied()
    save(tmp_path / "net.safetensors", one)
    restore(tmp_path / "net.safetensors", other)
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)


def test_a_net_whose_sizes_are_not_known_yet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="heads.0.linear.weight has no size yet: run an example"):
        save(tmp_path / "net.safetensors", add_exits(mlp([8, 8, 4]), ["relu1"]))


def test_saving_again_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        net = mlp([8, 4])
        save(tmp_path / "deep" / "net.safetensors", net)
    found = mlp([8, 4])
    restore(tmp_path / "deep" / "net.safetensors", found)
    torch.testing.assert_close(found.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert os.listdir(tmp_path / "deep") == ["net.safetensors"]


@contextlib.contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond ``most`` bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(path, mlp([8, 4]), {"name": "old"})
    with full_disk(1000), pytest.raises(DataError) as caught:
        save(path, mlp([800, 100]))
    assert str(caught.value) == f"{path}: cannot be written (File too large)"
    assert restore(path, mlp([8, 4])) == {"name": "old"}
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "net.safetensors", Path("/proc/net.safetensors")):
        with pytest.raises(DataError, match="net.safetensors: cannot be written"):
            save(path, mlp([8, 4]))
    assert os.listdir(tmp_path) == ["file"]


def test_no_training_sample_is_in_a_checkpoint(tmp_path: Path) -> None:
    x = torch.rand(20, 8)
    save(tmp_path / "net.safetensors", mlp([8, 4]), x=x)
    with safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        kept = [file.get_tensor(name).flatten().tolist() for name in file.keys()]  # noqa: SIM118
    samples = {round(value, 6) for value in x.flatten().tolist()} - {
        round(float(end), 6) for end in (x.min(), x.max())
    }
    assert not samples & {round(value, 6) for row in kept for value in row}
    restore(tmp_path / "net.safetensors", mlp([8, 4]))


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="net.safetensors: no such checkpoint"):
        restore(tmp_path / "net.safetensors", mlp([8, 4]))


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 50, 0.5, 0.999])
def test_a_checkpoint_cut_short_is_refused(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(path, paper_net())
    raw = path.read_bytes()
    path.write_bytes(raw[: kept if isinstance(kept, int) else int(kept * len(raw))])
    with pytest.raises(
        DataError, match="net.safetensors: not a safetensors file, or a damaged one .*; delete it"
    ):
        restore(path, paper_net())


@pytest.mark.parametrize(
    "other",
    [
        mlp([64, 32, 16, 10]),
        mlp([64, 32]),
        sparsify(mlp([64, 32, 10]), density=0.5),
        sparsify(mlp([64, 32, 10]), density=0.25, family="bernoulli"),
        sparsify(mlp([32, 32, 10]), density=0.25),
        small_cnn(width=8, size=8),
    ],
)
def test_a_checkpoint_of_another_net_is_refused(other: nn.Module, tmp_path: Path) -> None:
    save(tmp_path / "net.safetensors", sparsify(mlp([64, 32, 10]), density=0.25))
    with pytest.raises(
        DataError,
        match="net.safetensors: it is of another net, or the net's code has changed since",
    ):
        restore(tmp_path / "net.safetensors", other)


@pytest.mark.parametrize("wrong", [64, -2])
def test_an_index_that_is_no_pattern_is_refused(wrong: int, tmp_path: Path) -> None:
    model = sparsify(mlp([64, 32, 10]), density=0.25, family="biregular")
    layer = model.get_submodule("fc1")
    assert isinstance(layer, SparseLinear)
    layer.index[3, 5] = wrong
    save(tmp_path / "net.safetensors", model)
    with pytest.raises(DataError, match=r"it is of another net, .* \(inputs must be in 0..63"):
        restore(
            tmp_path / "net.safetensors",
            sparsify(mlp([64, 32, 10]), density=0.25, family="biregular"),
        )


def test_a_folder_whose_name_is_not_utf_8_holds_checkpoints_too(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save(folder / "net.safetensors", net, {"name": "latin"})
    assert restore(folder / "net.safetensors", other) == {"name": "latin"}
    assert torch.equal(net.weight, other.weight)
