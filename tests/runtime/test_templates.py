"""Messages made from a kept beginning are those of protobuf, and only such are known again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presplit.core.errors import InputError
from presplit.runtime.hosted import Form
from presplit.runtime.upstream import Failure, Request
from presplit.runtime.wire import messages, templates
from presplit.runtime.wire.replies import Expected
from presplit.runtime.wire.words import EXIT_KEY, SERVER_S_KEY, WHY_KEY

ARRAYS = [
    np.arange(2, dtype=np.float32).reshape(1, 2),
    np.arange(64, dtype=np.int8).reshape(1, 4, 16),
    np.zeros((1, 20_000), np.uint8),
    np.arange(6, dtype=">f4").reshape(2, 3),
    np.arange(12, dtype=np.float16).reshape(3, 4).T,
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_a_request_is_read_by_protobuf_as_it_was_meant(array: np.ndarray) -> None:
    raw = templates.request("net.from-1", "7", "boundary", array)
    read = messages.ModelInferRequest.FromString(raw)
    tensor = read.inputs[0]
    assert (read.model_name, read.id, tensor.name) == ("net.from-1", "7", "boundary")
    assert tuple(tensor.shape) == array.shape
    assert read.raw_input_contents == [array.astype(array.dtype.newbyteorder("<")).tobytes()]


def test_a_reply_is_read_by_protobuf_as_it_was_meant() -> None:
    logits = np.arange(4, dtype=np.float32).reshape(1, 4)
    raw = templates.reply("net", "7", "logits", logits, 0.25)
    read = messages.ModelInferResponse.FromString(raw + templates.early("middle", "late"))
    assert (read.model_name, read.model_version, read.id) == ("net", templates.VERSION, "7")
    assert (read.outputs[0].name, list(read.outputs[0].shape)) == ("logits", [1, 4])
    assert read.raw_output_contents == [logits.tobytes()]
    assert read.parameters[SERVER_S_KEY].double_param == 0.25
    assert read.parameters[EXIT_KEY].string_param == "middle"
    assert read.parameters[WHY_KEY].string_param == "late"


def test_a_dtype_that_does_not_travel_is_refused() -> None:
    with pytest.raises(InputError, match="float64"):
        templates.request("net", "7", "boundary", np.zeros((1, 2)))


USUAL = templates.usual_request("net", "boundary", np.dtype("float32"), (1, 2))
GOOD = templates.request("net", "7", "boundary", np.ones((1, 2), np.float32))


@given(at=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
def test_what_is_known_again_is_what_protobuf_reads(at: int, bit: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= 1 << bit
    parts = USUAL.parts(bytes(changed))
    if parts is None:
        return
    read = messages.ModelInferRequest.FromString(bytes(changed))
    assert (read.model_name, read.id) == ("net", parts[0])
    assert read.raw_input_contents == [bytes(changed[parts[1] :])]


@given(cut=st.integers(0, len(GOOD) - 1), more=st.binary(min_size=1, max_size=3))
def test_a_message_that_is_cut_or_goes_on_is_not_known_again(cut: int, more: bytes) -> None:
    assert USUAL.parts(GOOD) is not None
    assert USUAL.parts(GOOD[:cut]) is None
    assert USUAL.parts(GOOD + more) is None


def test_a_reply_to_another_model_or_of_another_size_is_not_known_again() -> None:
    usual = templates.usual_reply("net", Form("logits", "float32", (4,)))
    four, five = (np.zeros((1, count), np.float32) for count in (4, 5))
    assert usual.parts(templates.reply("net", "7", "logits", four, 0.1)) is not None
    assert usual.parts(templates.reply("not", "7", "logits", four, 0.1)) is None
    assert usual.parts(templates.reply("net", "7", "logits", five, 0.1)) is None
    assert usual.parts(templates.reply("net", "7", "scores", four, 0.1)) is None


def test_a_reply_of_another_version_of_the_model_is_none() -> None:
    request = Request("net", np.zeros((1, 2), np.float32), 4)
    expected = Expected(request, "7")
    expected.prepare()
    logits = np.arange(4, dtype=np.float32).reshape(1, 4)
    reply = messages.ModelInferResponse.FromString(
        templates.reply("net", "7", "logits", logits, 0.0)
    )
    for version in (templates.VERSION, ""):
        reply.model_version = version
        assert not isinstance(expected.read(reply.SerializeToString()), Failure)
    reply.model_version = "2"
    found = expected.read(reply.SerializeToString())
    assert found == Failure("bad_reply", "expected model version '1', got '2'")
