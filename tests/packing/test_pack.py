"""A bundle is packed from any ONNX classifier: what is compared, measured, offered and refused."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core.errors import BundleError, GraphError, InputError, SpecError
from presplit.core.tensors import INPUT
from presplit.packing import pack
from presplit.packing.session import Session

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
RANDOM = np.random.default_rng(0)


def model(text: str, weights: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A small net with seeded weights of these shapes."""
    made = onnx.parser.parse_model(f"{HEAD} {text}")
    random = np.random.default_rng(1)
    for name, shape in weights.items():
        values = (random.standard_normal(shape) / 2).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    return made


def perceptron() -> onnx.ModelProto:
    return model(
        "net (float[N,8] x) => (float[N,4] early, float[N,4] y)"
        "{ a = MatMul(x, W1) b = Relu(a) early = MatMul(b, W2) c = MatMul(b, W3) d = Relu(c)"
        "  y = MatMul(d, W4) }",
        {"W1": (8, 16), "W2": (16, 4), "W3": (16, 16), "W4": (16, 4)},
    )


def x_and_labels(net: onnx.ModelProto, samples: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and the labels that the net itself gives them."""
    x = RANDOM.standard_normal((samples, 8)).astype(np.float32)
    return x, Session(net.SerializeToString()).run({"x": x})["y"].argmax(-1)


def over_the_batch(statistic: str) -> onnx.ModelProto:
    """A net that takes a statistic of its batch away."""
    return model(
        "net (float[N,8] x) => (float[N,4] y)"
        f"{{ a = MatMul(x, W1) m = {statistic}<axes=[0], keepdims=1>(a) b = Sub(a, m) r = Relu(b)"
        "  y = MatMul(r, W2) }",
        {"W1": (8, 16), "W2": (16, 4)},
    )


@pytest.mark.parametrize("statistic", ["ReduceMean", "ReduceMin"])
@pytest.mark.parametrize("given", [True, False])
def test_a_net_that_depends_on_its_batch_is_refused(
    tmp_path: Path, statistic: str, given: bool
) -> None:
    x = RANDOM.random((30, 8), dtype=np.float32) if given else None
    with pytest.raises(GraphError, match="samples of one batch depend on each other: at exit"):
        pack(over_the_batch(statistic), tmp_path / "net.bundle", samples=x)
    assert list(tmp_path.iterdir()) == []


def test_torch_that_differs_alone_or_in_batches_is_refused(tmp_path: Path) -> None:
    net = perceptron()
    session = Session(net.SerializeToString())

    def off_by(one: float, many: float) -> tuple[str, object]:
        def run(x: np.ndarray) -> list[np.ndarray]:
            found = session.run({"x": x})
            return [found["early"], found["y"] + (one if len(x) == 1 else many)]

        return "torch", run

    for reference, said in (
        (off_by(0.0, 0.5), "differ from torch at exit 'final' by"),
        (off_by(0.5, 0.0), "a sample alone gets logits that differ"),
    ):
        with pytest.raises(GraphError, match=said):
            pack(net, tmp_path / "net.bundle", reference=reference)  # type: ignore[arg-type]


def test_evidence_is_what_the_pieces_answer(tmp_path: Path) -> None:
    net = perceptron()
    x, y = x_and_labels(net)
    bundle = pack(net, tmp_path / "net.bundle", samples=x, labels=y)
    scores, hits = bundle.evidence()
    assert hits[-1].all() and scores.shape == (2, len(x))
    assert not hits[0].all()


def tail_hits(bundle: Bundle, split: int, codec: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether each sample is answered correctly if ``split`` really travels by ``codec``."""
    values = x
    if split:
        head = bundle.runnable(0, split)
        values = Session(head.onnx).run({head.input: x})[head.boundary or ""]
    codes = CODECS[codec].encode(values, bundle.encoding(split, codec))
    tail = bundle.runnable(split, bundle.net.last, codec=codec)
    return Session(tail.onnx).run({tail.input: codes})["logits"].argmax(-1) == y


def test_what_each_codec_costs_is_what_the_tail_answers_behind_it(tmp_path: Path) -> None:
    net = perceptron()
    x, y = x_and_labels(net)
    bundle = pack(net, tmp_path / "net.bundle", samples=x, labels=y)
    for split in range(bundle.net.last):
        for codec in bundle.manifest.ports[split].entry:
            measured = bundle.worth(split, codec)
            assert measured.tolist() == tail_hits(bundle, split, codec, x, y).astype(float).tolist()
        smaller = bundle.worth(split, "int8+zstd")
        assert smaller.tolist() == bundle.worth(split, "int8").tolist()


def of_ids() -> onnx.ModelProto:
    """A net that looks the first of its token ids up in a table of 8,192 rows."""
    made = onnx.parser.parse_model(
        f"{HEAD} net (float[N,4] x) => (float[N,4] y)"
        "{ i = Cast<to=7>(x) e = Gather(T, i) f = Flatten(e) h = MatMul(f, W1) r = Relu(h)"
        "  y = MatMul(r, W2) }"
    )
    table = np.zeros((8192, 4), np.float32)
    table[:16] = np.tile(np.eye(4), (4, 1))
    first = np.zeros((16, 8), np.float32)
    first[:4, :4] = np.eye(4)
    second = np.eye(8, 4, dtype=np.float32)
    for name, values in {"T": table, "W1": first, "W2": second}.items():
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    return made


def test_token_ids_are_offered_no_codec_that_mixes_them_up(tmp_path: Path) -> None:
    x = RANDOM.integers(0, 16, (100, 4)).astype(np.float32)
    x[:, 1] = 8191
    y = x[:, 0].astype(np.int64) % 4
    bundle = pack(of_ids(), tmp_path / "net.bundle", samples=x, labels=y)
    port = bundle.manifest.ports[0]
    assert "integers" in port.encodings and "int8" not in port.encodings
    assert port.refused["int8"].startswith(("it changes the answers to", "the net does not take"))
    assert bundle.worth(0, "integers").mean() == 1.0


def quantised(folder: Path) -> Path:
    """A small net as a QDQ file, quantised by ONNX Runtime."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    net = model(
        "net (float[N,3,8,8] x) => (float[N,4] y)"
        "{ a = Conv<pads=[1,1,1,1]>(x, W1) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, W2)"
        "  d = Relu(c) e = GlobalAveragePool(d) f = Flatten(e) y = Gemm<transB=1>(f, W3) }",
        {"W1": (8, 3, 3, 3), "W2": (16, 8, 3, 3), "W3": (4, 16)},
    )
    onnx.save(net, folder / "float.onnx")
    batches = [{"x": RANDOM.random((4, 3, 8, 8), dtype=np.float32)} for _ in range(3)]
    quantize_static(
        folder / "float.onnx",
        folder / "qdq.onnx",
        SimpleNamespace(get_next=iter([*batches, None]).__next__),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    return folder / "qdq.onnx"


def test_a_quantised_file_is_packed_and_answers_as_it_does(tmp_path: Path) -> None:
    file = quantised(tmp_path)
    x = RANDOM.random((50, 3, 8, 8), dtype=np.float32)
    expected = Session(file.read_bytes()).run({"x": x})["y"].argmax(-1)
    bundle = pack(file, samples=x, labels=expected)
    assert bundle.path == tmp_path / "qdq.bundle"
    assert bundle.evidence()[1][-1].mean() > 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": np.zeros((3, 7), np.float32)}, r"samples: expected float32 of shape \(n, 8\)"),
        ({"samples": np.zeros((3, 8), np.int64)}, "expected float32, or uint8 which is scaled"),
        ({"samples": np.zeros((0, 8), np.float32)}, "at least one"),
        ({"samples": np.full((3, 8), np.inf, np.float32)}, "samples: expected finite values"),
        ({"labels": np.zeros(3, np.int64)}, "labels: they need the samples"),
        (
            {"samples": np.zeros((3, 8), np.float32), "labels": np.array([0, 1, 4])},
            r"labels: expected classes in 0\.\.3, got 0\.\.4",
        ),
        ({"name": "My Net"}, "name: expected small letters"),
    ],
)
def test_samples_and_labels_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        pack(perceptron(), tmp_path / "net.bundle", **change)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_without_samples_only_codecs_that_need_no_range_are_there(tmp_path: Path) -> None:
    bundle = pack(perceptron(), tmp_path / "net.bundle")
    assert {*bundle.manifest.ports[0].encodings} == {"float32", "float16"}


MEMORY = """
import resource, sys
import numpy as np, onnx
from onnx import numpy_helper
from presplit.packing import pack
made = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> '
    'net (float[N,3,96,96] x) => (float[N,4] y) '
    '{ a = Conv<pads=[1,1,1,1]>(x, A) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, B) d = Relu(c) '
    '  e = GlobalAveragePool(d) f = Flatten(e) y = MatMul(f, W) }')
for name, shape in {"A": (32, 3, 3, 3), "B": (32, 32, 3, 3), "W": (32, 4)}.items():
    made.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32) / 99, name))
x = np.random.default_rng(0).random((200, 3, 96, 96), dtype=np.float32)
pack(made, sys.argv[1] + "/warm.bundle", samples=x[:4])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pack(made, sys.argv[1] + "/net.bundle", samples=x)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_many_samples_are_seen_in_small_batches(tmp_path: Path) -> None:
    """All boundaries of all samples would be 470 MB."""
    assert resource.getpagesize()  # Linux gives the peak in kB
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100e6, done.stdout


def test_the_input_of_every_tail_has_the_one_name(tmp_path: Path) -> None:
    bundle = pack(perceptron(), tmp_path / "net.bundle")
    assert {bundle.runnable(k, bundle.net.last).input for k in range(bundle.net.last)} == {INPUT}


@pytest.mark.parametrize(
    "text",
    [
        "net (float16[N,8] x) => (float16[N,4] y)"
        "{ a = MatMul(x, H1) b = Relu(a) y = MatMul(b, H2) }",
        "net (uint8[N,8] x) => (float[N,4] y)"
        "{ f = Cast<to=1>(x) a = MatMul(f, W1) b = Relu(a) y = MatMul(b, W2) }",
        "net (int64[N,2] x) => (float[N,4] y)"
        "{ e = Gather(W1, x) a = Flatten(e) b = Relu(a) y = MatMul(b, W3) }",
    ],
    ids=["float16", "uint8", "token ids"],
)
def test_a_file_of_other_numbers_is_packed_as_it_computes(text: str, tmp_path: Path) -> None:
    """Float16 leaves coarser roundings, and samples that stand in for none fit the input."""
    net = model(text, {"W1": (8, 16), "W2": (16, 4), "W3": (32, 4)})
    for name, of in (("H1", 0), ("H2", 1)):
        half = numpy_helper.to_array(net.graph.initializer[of]).astype(np.float16)
        net.graph.initializer.append(numpy_helper.from_array(half, name))
    assert pack(net, tmp_path / "net.bundle").net.last >= 2


def test_the_command_says_which_codecs_a_boundary_does_not_have(tmp_path: Path) -> None:
    from presplit.cli.inspect import describe, text

    x = RANDOM.integers(0, 16, (100, 4)).astype(np.float32)
    x[:, 1] = 8191
    bundle = pack(of_ids(), tmp_path / "net.bundle", samples=x)
    assert "boundary 0 is not sent as float16: " in text(describe(bundle))


def test_a_model_that_is_no_file_must_be_told_where_its_bundle_goes() -> None:
    with pytest.raises(InputError, match="path: say where the bundle goes"):
        pack(perceptron())


def test_small_logits_and_a_single_sample_hide_no_dependence_on_the_batch(tmp_path: Path) -> None:
    tiny = over_the_batch("ReduceMean")
    tiny.graph.node[-1].output[0] = "large"
    tiny.graph.node.append(onnx.helper.make_node("Mul", ["large", "tiny"], ["y"]))
    tiny.graph.initializer.append(numpy_helper.from_array(np.float32(1e-5), "tiny"))
    one = RANDOM.random((1, 8), dtype=np.float32)
    for net, x in ((tiny, None), (over_the_batch("ReduceMean"), one)):
        with pytest.raises(GraphError, match="samples of one batch depend on each other"):
            pack(net, tmp_path / "net.bundle", samples=x)


def test_a_net_that_draws_random_numbers_is_refused_for_that(tmp_path: Path) -> None:
    net = perceptron()
    session = Session(net.SerializeToString())

    def run(x: np.ndarray) -> list[np.ndarray]:
        found = session.run({"x": x})
        return [found["early"], found["y"] + RANDOM.random(found["y"].shape, dtype=np.float32)]

    with pytest.raises(GraphError, match="torch gives other logits for the same samples each time"):
        pack(net, tmp_path / "net.bundle", reference=("torch", run))


def of_bytes() -> onnx.ModelProto:
    """A net that takes bytes and scales them itself."""
    return model(
        "net (uint8[N,8] x) => (float[N,4] y)"
        "{ f = Cast<to=1>(x) s = Constant<value_float=127.5>() c = Sub(f, s) d = Div(c, s)"
        "  a = MatMul(d, W1) r = Relu(a) y = MatMul(r, W2) }",
        {"W1": (8, 16), "W2": (16, 4)},
    )


def test_bytes_for_a_net_that_scales_them_itself_stay_as_they_are(tmp_path: Path) -> None:
    x = RANDOM.integers(0, 256, (100, 8)).astype(np.uint8)
    y = Session(of_bytes().SerializeToString()).run({"x": x})["y"].argmax(-1)
    bundle = pack(of_bytes(), tmp_path / "net.bundle", samples=x, labels=y)
    assert bundle.manifest.whole_input and bundle.evidence()[1][-1].all()


def test_bytes_for_a_net_of_floats_are_scaled(tmp_path: Path) -> None:
    x = RANDOM.integers(0, 256, (50, 8)).astype(np.uint8)
    bundle = pack(perceptron(), tmp_path / "net.bundle", samples=x)
    assert not bundle.manifest.whole_input
    assert bundle.encoding(0, "int8").scale == pytest.approx(1 / 255, rel=0.05)
    raw = pack(perceptron(), tmp_path / "net.bundle", samples=x.astype(np.float32))
    assert raw.manifest.whole_input  # it was given bytes that nobody scaled


def test_every_codec_that_fits_is_offered_with_its_bytes_or_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    net = model(
        """net (float[N, 3, 8, 8] x) => (float[N, 4] y)
        { c = Conv <pads = [1, 1, 1, 1]> (x, k) r = Relu(c) f = Flatten(r) y = MatMul(f, w) }""",
        {"k": (5, 3, 3, 3), "w": (320, 4)},
    )
    x = RANDOM.integers(0, 256, (200, 3, 8, 8)).astype(np.uint8)
    y = np.arange(200) % 4
    bundle = pack(net, tmp_path / "net.bundle", samples=x, labels=y, codecs=[*CODECS])
    for number, port in enumerate(bundle.manifest.ports[:-1]):
        boundary = bundle.net.boundaries[number]
        told = {*port.encodings, *port.refused}
        assert {"bfloat16", "int8-channel", "int2+lz4", "topk-10"} <= told - {"integers"}
        assert ("jpeg-50" in told) == (number == 0)
        for codec, encoding in port.encodings.items():
            mean, most = (
                bundle.payload_bytes(number, codec),
                bundle.payload_p99_bytes(number, codec),
            )
            fixed = encoding.nbytes(boundary)
            assert fixed is None or mean == most == fixed
            assert 0 < mean <= most <= 2 * boundary.nbytes + 1024
            assert bundle.worth(number, codec).shape == (200,)
    # Noise is not what JPEG is for, and each of its 192 values matters.
    refused = bundle.manifest.ports[0].refused
    assert re.match(r"it changes the answers to \d+ of (the first \d+ of )?200", refused["int2"])
    assert refused["int2+zstd"] == refused["int2"]
    assert refused["jpeg-50"] == f"so does jpeg-75, which loses less: {refused['jpeg-75']}"


def test_only_the_codecs_that_are_named_are_tried(tmp_path: Path) -> None:
    net = perceptron()
    x, y = x_and_labels(net)
    bundle = pack(net, tmp_path / "net.bundle", samples=x, labels=y, codecs=["int8+zstd"])
    assert {*bundle.manifest.ports[1].encodings} == {"float32", "int8+zstd"}
    assert 0 < bundle.payload_bytes(1, "int8+zstd") < 100
    with pytest.raises(SpecError, match="no codec named 'int9'"):
        pack(net, tmp_path / "other.bundle", samples=x, codecs=["int9"])


def test_bytes_that_vary_are_unknown_without_labels(tmp_path: Path) -> None:
    net = perceptron()
    bundle = pack(net, tmp_path / "net.bundle", samples=x_and_labels(net)[0])
    assert bundle.payload_bytes(0, "int8") == bundle.net.boundaries[0].size
    with pytest.raises(BundleError, match=r"how many bytes int8\+zstd needs .* with labels"):
        bundle.payload_bytes(0, "int8+zstd")
