"""Weights in files that anybody wrote fill a net name by name, or are refused by name.

Reading them runs no code.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from presplit.core.errors import DataError
from presplit.train.fitting import checkpoint
from presplit.train.runs.weights import fill, read_weights
from presplit.train.zoo import mlp


@pytest.fixture
def values() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(plain().state_dict())


def plain() -> nn.Sequential:
    return mlp([64, 32, 10])


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_weights_are_found_however_they_were_wrapped(
    prefix: str, wrapper: str | None, tmp_path: Path, values: dict[str, torch.Tensor]
) -> None:
    named: dict = {f"{prefix}{name}": value for name, value in values.items()}
    saved = named if wrapper is None else {wrapper: named, "epoch": 3, "optimiser": {"a": [1]}}
    torch.save(saved, tmp_path / "net.pt")
    net = plain()
    fill(net, read_weights(tmp_path / "net.pt"), (64,))
    torch.testing.assert_close(dict(net.state_dict()), values, rtol=0, atol=0)


@pytest.mark.parametrize("old", [False, True])
def test_files_of_every_kind_hold_the_same_weights(
    old: bool, tmp_path: Path, values: dict[str, torch.Tensor]
) -> None:
    halves = {name: value.half() for name, value in values.items()}
    checkpoint.write_tensors(tmp_path / "any.bin", halves, {})
    torch.save(halves, tmp_path / "net.pth", _use_new_zipfile_serialization=not old)
    for name in ("any.bin", "net.pth"):
        net = plain()
        fill(net, read_weights(tmp_path / name), (64,))
        assert net.fc1.weight.dtype == torch.float32
        torch.testing.assert_close(net.fc1.weight.half(), halves["fc1.weight"], rtol=0, atol=0)


class Tied(nn.Module):
    """Two layers that share their weight, and a norm that counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight


def test_what_is_stored_once_or_only_counts_may_be_missing(tmp_path: Path) -> None:
    saved = Tied().state_dict()
    del saved["last.weight"], saved["norm.num_batches_tracked"]
    torch.save(saved, tmp_path / "net.pt")
    net = Tied()
    fill(net, read_weights(tmp_path / "net.pt"), (4,))
    torch.testing.assert_close(net.last.weight.detach(), saved["first.weight"])
    del saved["norm.weight"]
    torch.save(saved, tmp_path / "net.pt")
    with pytest.raises(DataError, match=r"it lacks norm\.weight; describe its own net"):
        fill(Tied(), read_weights(tmp_path / "net.pt"), (4,))


class Trap:
    """Reading it as pickle does would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["module", "trap", "wrapped trap", "scripted"])
def test_a_file_that_holds_code_is_refused_and_nothing_of_it_runs(how: str, tmp_path: Path) -> None:
    file, sprung = tmp_path / "net.pt", tmp_path / "sprung"
    if how == "scripted":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls it deprecated, and people have such files
            torch.jit.save(torch.jit.trace(plain(), torch.zeros(1, 64)), str(file))
    else:
        saved = {"module": plain(), "trap": Trap(sprung), "wrapped trap": {"model": Trap(sprung)}}
        torch.save(saved[how], file)
    with pytest.raises(DataError, match=r"net.pt: it holds more than tensors, .*state_dict\(\), F"):
        read_weights(file)
    assert not sprung.exists()


def changed(values: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict:
    named = {**values, **{name.replace("_", "."): each for name, each in changes.items()}}
    return {name: each for name, each in named.items() if each is not None}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fc1_weight": None, "fc2_bias": None}, r"it lacks fc1\.weight, fc2\.bias; describe its"),
        ({"fc3_bias": torch.ones(1)}, r"it has also fc3\.bias; describe"),
        (
            {"fc2_weight": torch.ones(12, 32), "fc2_bias": torch.ones(12)},
            r"its fc2\.weight is \(12, 32\), expected \(10, 32\), fc2\.bias is \(12,\), expected",
        ),
        ({"fc1_bias": torch.full((32,), torch.nan)}, r"fc1\.bias: it holds numbers that are not f"),
        ({"fc1_bias": torch.ones(32).int()}, r"fc1\.bias: plain float32 numbers .* got int32"),
        (
            {"fc1_weight": None, "fc1_values": torch.ones(1), "fc1_index": torch.ones(1)},
            r"its layer fc1 is sparse already: a dense net is expected",
        ),
        ({"module.fc1_weight": torch.ones(32, 64)}, r"it has also module\.fc1\.weight"),
    ],
)
def test_weights_of_another_net_are_refused_by_name(
    changes: dict, sentence: str, values: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(changed(values, **changes), tmp_path / "net.pt")
    with pytest.raises(DataError, match=sentence):
        fill(plain(), read_weights(tmp_path / "net.pt"), (64,))


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "neither a .safetensors file nor what torch.save writes, or damaged"),
        (b"junk of some length", "neither a .safetensors file nor what torch.save writes"),
        (b"PK\x03\x04 no archive at all", "neither a .safetensors file nor what torch.save"),
        (b"\x05\0\0\0\0\0\0\0{....", "not a safetensors file, or a damaged one"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(raw: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(raw)
    with pytest.raises(DataError, match=f"net.pt: {sentence}") as caught:
        read_weights(tmp_path / "net.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("saved", [[torch.ones(2)], {}, {"epoch": 3}, {1: torch.ones(2)}, 5])
def test_what_is_no_state_dict_is_refused(saved: object, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "net.pt")
    with pytest.raises(DataError, match="net.pt: a state_dict, a tensor for each name, is expecte"):
        read_weights(tmp_path / "net.pt")
