"""Any ONNX classifier becomes a bundle without torch, and all splits compute what the file does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from presplit.bundle import Bundle, read
from presplit.lab.view import open_net
from presplit.runtime.engines.onnxruntime import Engine
from presplit.train import add_exits
from presplit.train.nets.to_onnx import to_onnx
from presplit.train.zoo import mobilenet_v2, resnet8, vit

Command = Callable[..., tuple[int, str, str]]
run_without_torch = run_path(str(Path(__file__).parents[1] / "test_house.py"))["run_without_torch"]
model = run_path(str(Path(__file__).parents[1] / "graph" / "texts.py"))["model"]

CLOSE = 2e-5
"""Relative to the largest value: float32 sums of a few hundred terms, taken in another order."""
SHAPE = (3, 16, 16)


def plain_cnn() -> nn.Module:
    """As many write it: no names, a flatten before the classifier."""
    torch.manual_seed(0)
    convolutions = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
    ]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(16 * 49, 10)).eval()


def save(
    net: nn.Module, path: Path, shape: tuple[int, ...] = SHAPE, *, batch: int | None = None
) -> Path:
    """Write ``net`` by torch's own exporter, the batch open or fixed."""
    axes = ({0: torch.export.Dim("batch")},) if batch is None else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.rand(batch or 2, *shape),), path, dynamic_shapes=axes, verbose=False
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain CNN in a file, forty samples and their labels."""
    path = tmp_path_factory.mktemp("onnx")
    save(plain_cnn(), path / "Cats (v2).onnx")
    draw = np.random.default_rng(0)
    x = draw.random((40, *SHAPE), np.float32)
    with torch.no_grad():
        answers = plain_cnn()(torch.from_numpy(x)).argmax(-1).numpy()
    answers[::4] = draw.integers(0, 10, 10)  # not all right, and better than by guessing
    np.save(path / "x.npy", x)
    np.save(path / "y.npy", answers)
    return path


def same_at_every_split(
    bundle: Bundle, file: Path, *, batch: int = 3, one_by_one: int | None = None
) -> None:
    """Head and tail give what ONNX Runtime makes of ``file``, for every split and exit."""
    net = bundle.net
    original = Engine(onnx.load(str(file)).SerializeToString())  # weights beside the file included
    x = np.random.default_rng(1).random((batch, *net.boundaries[0].shape), np.float32)
    name = onnx.load(str(file)).graph.input[0].name
    parts = np.split(x, batch // one_by_one) if one_by_one else [x]
    runs = [original.run({name: part}) for part in parts]
    expected = {
        output: np.concatenate([run[output] for run in runs]) for output in original.outputs
    }
    *_, final = expected
    renamed = {"logits": final, **{f"logits.{exit_.name}": exit_.name for exit_ in net.exits[:-1]}}
    for split in range(net.last + 1):
        before = [exit_.name for exit_ in net.exits[:-1] if exit_.after <= split]
        after = [exit_.name for exit_ in net.exits[:-1] if exit_.after > split]
        found: dict[str, np.ndarray] = {}
        here = x
        if split:
            found = Engine(bundle.segment(0, split, exits=before)).run({"boundary": x})
            here = found.pop("logits" if split == net.last else f"boundary_{split:02d}")
            found |= {"logits": here} if split == net.last else {}
        if split < net.last:
            found |= Engine(bundle.segment(split, net.last, exits=after)).run({"boundary": here})
        assert found.keys() == renamed.keys()
        for output, array in found.items():
            whole = expected[renamed[output]]
            np.testing.assert_allclose(
                array, whole, rtol=0, atol=CLOSE * max(1.0, float(np.abs(whole).max()))
            )


def test_a_file_becomes_a_bundle_and_a_plan_where_torch_cannot_be_imported(
    folder: Path, tmp_path: Path
) -> None:
    words = [
        "--from",
        folder / "Cats (v2).onnx",
        "--samples",
        folder / "x.npy",
        "--labels",
        folder / "y.npy",
    ]
    commands = [
        ["export", *words, "--out", tmp_path / "c.bundle", "--json"],
        ["plan", tmp_path / "c.bundle", "--json"],
    ]
    for arguments in commands:
        done = run_without_torch(
            "from presplit.cli.main import "
            f"main\nsys.exit(main({[str(word) for word in arguments]!r}))"
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        json.loads(done.stdout)
    bundle = read(tmp_path / "c.bundle")
    assert bundle.manifest.name == "cats-v2" and "torch" not in bundle.manifest.versions
    assert [boundary.shape for boundary in bundle.net.boundaries] == [
        SHAPE,
        (8, 16, 16),
        (16, 7, 7),
        (10,),
    ]
    same_at_every_split(bundle, folder / "Cats (v2).onnx")


def test_samples_give_the_ranges_and_labels_the_evidence(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
    words = [
        "--samples",
        folder / "x.npy",
        "--labels",
        folder / "y.npy",
        "--out",
        tmp_path / "c.bundle",
    ]
    code, out, problem = command("export", "--from", folder / "Cats (v2).onnx", *words)
    assert (code, problem) == (0, "") and out.endswith(
        f"Next: presplit plan {tmp_path / 'c.bundle'} --save\n"
    )
    bundle = read(tmp_path / "c.bundle")
    ports = bundle.manifest.ports
    assert all({"float32", "float16", "int8", "int8+zstd"} <= {*port.encodings} for port in ports)
    middle = Engine(bundle.segment(0, 1)).run({"boundary": x})["boundary_01"]
    for number, values in ((0, x), (1, middle)):
        assert ports[number].encodings["int8"].scale == pytest.approx(
            float(values.max()) / 255, rel=1e-5
        )
    logits = Engine(bundle.segment(0, 3)).run({"boundary": x})["logits"]
    np.testing.assert_array_equal(bundle.evidence()[1], [logits.argmax(-1) == y])


def test_forms_that_are_asked_for_are_exported_and_shown(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    file = folder / "Cats (v2).onnx"
    given = ["--samples", folder / "x.npy", "--out", tmp_path / "c.bundle"]
    code, out, problem = command("export", "--from", file, *given, "--forms", "float32, int8")
    assert code == 0 and "no --labels" in problem
    bundle = read(tmp_path / "c.bundle")
    assert bundle.forms == ("float32", "int8") and "form int8: " in out
    facts = json.loads(command("inspect", tmp_path / "c.bundle", "--json")[1])
    assert facts["forms"]["int8"]["bytes"] < facts["forms"]["float32"]["bytes"]
    assert facts["forms"]["int8"]["accuracy"] is None
    refuses(command("export", "--from", file, "--forms", "float32,int8"), "give --samples x.npy")
    words = ["export", "--from", file, *given, "--forms"]
    refuses(command(*words, "int8"), "forms: expected float32, which is always there")
    refuses(command(*words, "float32,int4"), "and int8 if wanted, got float32, int4")


def test_without_samples_only_codecs_without_a_range_are_offered(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    code, out, problem = command(
        "export", "--from", folder / "Cats (v2).onnx", "--out", tmp_path / "c.bundle"
    )
    assert code == 0 and "Next: presplit serve" in out
    assert (
        "no --samples" in problem
        and "the bundle has no int8" in problem
        and "no --labels" in problem
    )
    bundle = read(tmp_path / "c.bundle")
    assert [set(port.encodings) for port in bundle.manifest.ports] == [{"float32", "float16"}] * 4
    assert command("plan", tmp_path / "c.bundle")[2].endswith(
        "can be planned; export it again with labels\n"
    )
    assert command("run", tmp_path / "c.bundle", folder / "x.npy")[0] == 0


def test_the_command_tries_the_codecs_that_it_is_told(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    words = ["--from", folder / "Cats (v2).onnx", "--samples", folder / "x.npy"]
    words += ["--out", tmp_path / "c.bundle"]
    tried = {"all": {"bfloat16", "int2+lz4", "topk-10"}, "float16, int8+lz4": {"int8+lz4"}}
    for text, some in tried.items():
        assert command("export", *words, "--codecs", text)[0] == 0
        port = read(tmp_path / "c.bundle").manifest.ports[1]
        assert some <= {*port.encodings, *port.refused}
    assert {*port.encodings, *port.refused} == {"float32", "float16", "int8+lz4"}
    code, _, problem = command("export", *words, "--codecs", "int8,int9")
    assert code == 2 and "--codecs: no codec named 'int9' (nearest: int" in problem


def test_several_outputs_are_exits(command: Command, tmp_path: Path) -> None:
    net = add_exits(resnet8(width=8), ["block1", "block2"], example=torch.zeros(1, *SHAPE)).eval()
    (tmp_path / "net.onnx").write_bytes(to_onnx(net, torch.zeros(1, *SHAPE)).SerializeToString())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((70, *SHAPE), np.float32))
    np.save(tmp_path / "y.npy", np.arange(70) % 10)
    words = ["--samples", tmp_path / "x.npy", "--labels", tmp_path / "y.npy"]
    assert command("export", "--from", tmp_path / "net.onnx", *words)[0] == 0
    bundle = read(tmp_path / "net.bundle")
    assert [exit_.name for exit_ in bundle.net.exits] == ["logits_0", "logits_1", "final"]
    assert bundle.evidence()[0].shape == (3, 70)
    same_at_every_split(bundle, tmp_path / "net.onnx")


def transformers_vit() -> nn.Module:
    hf = pytest.importorskip("transformers", exc_type=(ImportError, RuntimeError))
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = hf.ViTForImageClassification(
                hf.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=10)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).logits

    return Logits().eval()


@pytest.mark.parametrize("batch", [1, 3, None])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(plain_cnn, id="cnn"),
        pytest.param(lambda: vit(width=16, depth=1, size=16), id="vit"),
        pytest.param(mobilenet_v2, id="mobilenet", marks=pytest.mark.long),
        pytest.param(transformers_vit, id="transformers ViT", marks=pytest.mark.long),
    ],
)
def test_a_file_of_any_batch_is_cut(
    command: Command, make: Callable[[], nn.Module], batch: int | None, tmp_path: Path
) -> None:
    save(make().eval(), tmp_path / "net.onnx", batch=batch)
    code, _, problem = command("export", "--from", tmp_path / "net.onnx")
    assert code == 0, problem
    same_at_every_split(read(tmp_path / "net.bundle"), tmp_path / "net.onnx", one_by_one=batch)


# What is refused.


def refuses(said: tuple[int, str, str], part: str) -> None:
    assert said[:2] == (2, ""), said
    assert part in said[2] and said[2].count("\n") == 1, said[2]


def test_one_of_a_run_and_a_file_is_expected(command: Command, folder: Path) -> None:
    file, x = folder / "Cats (v2).onnx", folder / "x.npy"
    refuses(command("export"), "expected a run directory or --from MODEL.onnx, got neither")
    refuses(
        command("export", "runs/x", "--from", file),
        "expected a run directory or --from MODEL.onnx, got both",
    )
    refuses(
        command("export", "runs/x", "--samples", x),
        "--samples and --labels belong to --from MODEL.onnx",
    )
    refuses(command("export", "--from", file, "--labels", x), "--labels needs the samples")
    refuses(command("export", "--from", "nowhere.onnx"), "nowhere.onnx: no such file")
    refuses(command("export", "--from", x), "x.npy: not an ONNX file")


@pytest.mark.parametrize(
    ("samples", "part"),
    [
        (
            np.zeros((3, 3, 16, 15), np.float32),
            "samples: expected float32 of shape (n, 3, 16, 16), at least one, got float32 of shape",
        ),
        (
            np.zeros((0, *SHAPE), np.float32),
            "samples: expected float32 of shape (n, 3, 16, 16), at least one, got",
        ),
        (np.full((1, *SHAPE), np.nan, np.float32), "expected finite values"),
        (
            np.zeros((1, *SHAPE), np.int64),
            "samples: expected float32, or uint8 which is scaled",
        ),
    ],
)
def test_samples_that_the_file_does_not_take(
    command: Command, folder: Path, tmp_path: Path, samples: np.ndarray, part: str
) -> None:
    np.save(tmp_path / "bad.npy", samples)
    refuses(
        command("export", "--from", folder / "Cats (v2).onnx", "--samples", tmp_path / "bad.npy"),
        part,
    )


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.zeros(39, np.int64), "expected whole numbers of shape (40,), got int64 of shape (39,)"),
        (
            np.zeros(40, np.float32),
            "expected whole numbers of shape (40,), got float32",
        ),
        (np.full(40, 10), "expected classes in 0..9, got 10..10"),
        (np.full(40, -1), "expected classes in 0..9, got -1..-1"),
    ],
)
def test_labels_that_do_not_fit_the_samples(
    command: Command, folder: Path, tmp_path: Path, labels: np.ndarray, part: str
) -> None:
    np.save(tmp_path / "bad.npy", labels)
    words = [
        "--samples",
        folder / "x.npy",
        "--labels",
        tmp_path / "bad.npy",
        "--out",
        tmp_path / "c.bundle",
    ]
    refuses(command("export", "--from", folder / "Cats (v2).onnx", *words), f"labels: {part}")
    assert not (tmp_path / "c.bundle").exists()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "net (float[1, 4] x) => (float[1, 4] y) <float[4, 4] w> { h = MatMul(x, w) r = Relu(h) "
            "m = ReduceMean <keepdims = 1, axes = [0]> (r) a = Add(r, m) y = MatMul(a, w) }",
            "its batch of 1 cannot be opened",
        ),
        (
            "net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> { h = MatMul(x, w) r = Relu(h) "
            "m = ReduceMean <keepdims = 1, axes = [0]> (r) a = Add(r, m) y = MatMul(a, w) }",
            "samples of one batch depend on each other",
        ),
    ],
)
def test_samples_that_depend_on_their_batch(
    command: Command, tmp_path: Path, text: str, part: str
) -> None:
    net = model(text)
    net.opset_import[0].version = 13
    (tmp_path / "net.onnx").write_bytes(net.SerializeToString())
    refuses(
        command("export", "--from", tmp_path / "net.onnx", "--out", tmp_path / "net.bundle"), part
    )
    assert not (tmp_path / "net.bundle").exists()


def test_operators_that_know_no_quantisation_decode_int8_too(
    command: Command, tmp_path: Path
) -> None:
    net = model(
        "net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w> "
        "{ h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }"
    )
    net.opset_import[0].version, net.ir_version = 9, 4
    (tmp_path / "old.onnx").write_bytes(net.SerializeToString())
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    said = command("export", "--from", tmp_path / "old.onnx", "--samples", tmp_path / "x.npy")
    assert said[0] == 0, said
    assert "int8" in read(tmp_path / "old.bundle").manifest.ports[0].encodings


def test_the_command_takes_the_output_that_it_is_told(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "tagged.onnx"
    text = """net (float[N, 4] x) => (int64[N] label, float[N, 3] shares) <float[4, 3] w> {
        y = MatMul(x, w)
        shares = Softmax<axis = 1>(y)
        label = ArgMax<axis = 1, keepdims = 0>(shares) }"""
    onnx.save(model(text), str(file))
    code, _, problem = command("export", "--from", file)
    assert code == 2 and f"as in presplit export --from {file} --output shares" in problem
    assert command("inspect", file)[0] == 2
    code, out, problem = command("inspect", file, "--output", "shares")
    assert code == 0 and out.endswith(f"export --from {file} --output shares\n"), problem
    with open_net(file, outputs=["shares"]) as net:
        assert net.bundle.net.exits[-1].classes == 3
    code, _, problem = command("export", "--from", file, "--output", "shares")
    assert code == 0, problem
    same = Engine(read(tmp_path / "tagged.bundle").segment(0, 1)).run(
        {"boundary": np.eye(4, dtype="f")}
    )
    weight = onnx.numpy_helper.to_array(model(text).graph.initializer[0])
    np.testing.assert_allclose(same["logits"], weight, rtol=1e-6)
    code, _, problem = command("export", tmp_path, "--output", "shares")
    assert code == 2 and "--output belongs to --from MODEL.onnx" in problem
    for verb in ("inspect", "view"):
        code, _, problem = command(verb, tmp_path / "tagged.bundle", "--output", "shares")
        assert code == 2 and "--output belongs to MODEL.onnx, got the bundle" in problem


def test_labels_that_are_answered_as_by_guessing_are_told(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    words = ("export", "--from", folder / "Cats (v2).onnx", "--samples", folder / "x.npy")
    file = onnx.load(str(folder / "Cats (v2).onnx")).SerializeToString()
    (right,) = Engine(file).run({"input": np.load(folder / "x.npy")}).values()
    np.save(tmp_path / "own.npy", right.argmax(1))
    np.save(tmp_path / "next.npy", (right.argmax(1) + 1) % 10)
    for labels, said in (("own", False), ("next", True)):
        named = ("--labels", tmp_path / f"{labels}.npy", "--out", tmp_path / f"{labels}.bundle")
        code, _, problem = command(*words, *named)
        assert code == 0, problem
        assert ("guessing among 10 classes gives 10.0%" in problem) == said
