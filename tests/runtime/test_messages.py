"""The protocol's messages stand beside those of any other client in the same process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from google.protobuf import descriptor_pool

from presplit.runtime.wire import messages

THEIRS = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name=NAME, package="inference", syntax="proto3")
request = file.message_type.add(name="ModelInferRequest")
request.field.add(name="another", number=1, type=9, label=1)
descriptor_pool.Default().Add(file) if hasattr(descriptor_pool.Default(), "Add") else (
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString()))
"""
OURS = """
from presplit.runtime import Edge
from presplit.runtime.wire import messages
sent = messages.ModelInferRequest(model_name="net", raw_input_contents=[b"1"])
assert messages.ModelInferRequest.FromString(sent.SerializeToString()) == sent
"""


@pytest.mark.parametrize("name", ["open_inference.proto", "grpc_service.proto"])
def test_another_client_of_the_protocol_may_be_there_before_and_after(name: str) -> None:
    theirs = THEIRS.replace("NAME", repr(name))
    for program in (theirs + OURS, OURS + theirs):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_nothing_of_ours_is_in_the_pool_that_all_share() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")


def test_maps_and_choices_are_there_as_the_protocol_has_them() -> None:
    request = messages.ModelInferRequest()
    request.parameters["sequence"].int64_param = 7
    request.parameters["sequence"].string_param = "seven"  # one of both
    again = messages.ModelInferRequest.FromString(request.SerializeToString())
    assert again.parameters["sequence"].WhichOneof("parameter_choice") == "string_param"
    assert request.SerializeToString() == bytes.fromhex(
        "22130a0873657175656e636512071a05736576656e"
    )
