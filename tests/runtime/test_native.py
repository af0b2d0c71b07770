"""Native codecs from end to end: one row of bytes goes up, and what is damaged is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import grpc
import numpy as np
import onnx
import onnx.parser
import pytest

from presplit.bundle import Bundle
from presplit.codecs import CODECS
from presplit.core import errors
from presplit.core.encoding import most_bytes
from presplit.core.errors import InputError, MissingLibrary, SpecError
from presplit.core.plans import Plan
from presplit.packing import pack
from presplit.runtime import Edge
from presplit.runtime.hosted import UnknownModel
from presplit.runtime.serving.tail import Tails
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.wire import messages
from presplit.runtime.wire.client import Client

small = run_path(str(Path(__file__).with_name("small.py")))

RANDOM = np.random.default_rng(0)
SHAPE = (3, 12, 10)
SLOPES = RANDOM.random((60, 3, 1, 1)) * np.linspace(0, 1, 12)[:, None] * np.linspace(0, 1, 10)
IMAGES = (np.rint(255 * SLOPES) / 255).astype(np.float32)
WAYS = ((0, "png"), (0, "jpeg-90"), (0, "int8+lz4"), (1, "int8+zstd"), (1, "bfloat16"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A net of pictures with labels that are its own answers, and the codecs of `WAYS`."""
    net = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18]>
        net (float[N, 3, 12, 10] x) => (float[N, 4] y) <float[4, 3, 3, 3] k, float[480, 4] w>
        { c = Conv <pads = [1, 1, 1, 1]> (x, k) r = Relu(c) f = Flatten(r) y = MatMul(f, w) }"""
    )
    for name, shape in (("k", (4, 3, 3, 3)), ("w", (480, 4))):
        values = RANDOM.normal(size=shape).astype(np.float32)
        net.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    path = tmp_path_factory.mktemp("pictures") / "pictures.bundle"
    codecs = [*{codec for _, codec in WAYS}, "int8"]
    labels = np.arange(60) % 4
    return pack(net, path, name="pictures", samples=IMAGES, labels=labels, codecs=codecs)


@pytest.fixture(scope="module")
def address(pictures: Bundle) -> Iterator[str]:
    with small["listening"](pictures) as found:
        yield found


def _soon() -> float:
    """Five seconds from now."""
    return time.monotonic() + 5


def plain(bundle: Bundle, codec: str) -> np.ndarray:
    """The logits of the first image after a round trip of its boundary by ``codec``."""
    split = dict((codec, split) for split, codec in WAYS)[codec]
    with Edge.open(bundle, plan=Plan(bundle.net.last)) as edge:
        whole = edge.answer(IMAGES[0]).scores
    tails = Tails(bundle)
    if split:
        return whole
    encoding = bundle.encoding(0, codec)
    values = CODECS[codec].decode(CODECS[codec].encode(IMAGES[:1], encoding), encoding, SHAPE)
    return tails.run(bundle.manifest.model_name(0, "float32"), values, until=None)[0]


@pytest.mark.parametrize(("split", "codec"), WAYS)
def test_a_server_decodes_what_the_edge_encoded(
    pictures: Bundle, address: str, split: int, codec: str
) -> None:
    with Edge.open(pictures, server=address, plan=Plan(split, codec=codec, deadline_s=5.0)) as edge:
        answer = edge.answer(IMAGES[0])
    assert (answer.why, answer.where) == ("server", "server")
    # By int8 or bfloat16 a boundary changes by a few thousandths of these logits, about -40..40.
    loss = 1.5 if split else 1e-3
    np.testing.assert_allclose(answer.scores, plain(pictures, codec), atol=loss)
    boundary = pictures.net.boundaries[split]
    assert 0 < answer.up_bytes <= most_bytes(boundary)
    if codec != "bfloat16":
        assert answer.up_bytes < 2 * boundary.nbytes
        mean = pictures.payload_bytes(split, codec)
        assert answer.up_bytes == pytest.approx(mean, rel=0.2)
        assert mean <= pictures.payload_p99_bytes(split, codec) <= 1.3 * mean


def test_the_metadata_says_that_the_length_varies(pictures: Bundle, address: str) -> None:
    name = pictures.manifest.model_name(0, "png")
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=messages.ModelMetadataRequest.SerializeToString,
            response_deserializer=messages.ModelMetadataResponse.FromString,
        )
        found = call(messages.ModelMetadataRequest(name=name), timeout=5)
    assert [(each.datatype, list(each.shape)) for each in found.inputs] == [("UINT8", [-1, -1])]


@pytest.mark.parametrize(("split", "codec"), WAYS)
def test_a_damaged_payload_is_refused_and_the_next_is_answered(
    pictures: Bundle, address: str, split: int, codec: str
) -> None:
    name = pictures.manifest.model_name(split, codec)
    most = most_bytes(pictures.net.boundaries[split])
    shape = pictures.net.boundaries[split].shape
    values = RANDOM.random((1, *shape)).astype(np.float32)
    good = CODECS[codec].encode(values, pictures.encoding(split, codec))
    bad = {
        "cut": good[:, :-30],
        "too long": np.zeros((1, most + 1), np.uint8),
        "two samples": np.concatenate([good, good]),
        "another dtype": good.view(np.int8),
    }
    upstream = Client(address, patience_s=5.0)
    try:
        for codes in bad.values():
            asked = upstream.ask(Request(name, codes, 4), until := _soon())
            failure = asked if isinstance(asked, Failure) else asked.wait(until)
            assert isinstance(failure, Failure) and failure.why == "refused"
        asked = upstream.ask(Request(name, good, 4), until := _soon())
        assert not isinstance(asked, Failure)
        assert isinstance(asked.wait(until), np.ndarray)
    finally:
        upstream.close()


def test_a_server_without_the_library_says_so_and_is_not_at_fault(
    pictures: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tails, name = Tails(pictures), pictures.manifest.model_name(1, "int8+zstd")
    codes = np.zeros((1, 9), np.uint8)
    with pytest.raises(InputError, match="payload: "):
        tails.run(name, codes, until=None)
    real = errors.importlib.import_module

    def without(module: str) -> Any:
        if module.endswith(".zstd"):
            raise ImportError(module)
        return real(module)

    monkeypatch.setattr(errors.importlib, "import_module", without)
    for ask in (lambda: tails.run(name, codes, until=None), lambda: tails.warm(name)):
        with pytest.raises(UnknownModel, match="needs .*zstd: .*pip install "):
            ask()
    tails.warm(pictures.manifest.model_name(1, "int8"))
    with pytest.raises(MissingLibrary, match="needs .*zstd"):
        Edge.open(pictures, server="127.0.0.1:9", plan=Plan(1, codec="int8+zstd"))


def test_no_graph_takes_a_native_payload(pictures: Bundle) -> None:
    with pytest.raises(SpecError, match="'png' is decoded in front of the graph"):
        pictures.runnable(0, pictures.net.last, codec="png")
