"""The protocol's messages stand beside those of any other client in the same process."""

from __future__ import annotations

import subprocess
import sys

from presplit.runtime.wire import messages

PROGRAM = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(
    name="open_inference.proto", package="inference", syntax="proto3"
)
request = file.message_type.add(name="ModelInferRequest")
request.field.add(name="another", number=1, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

from presplit.runtime import Edge
from presplit.runtime.wire import messages
sent = messages.ModelInferRequest(model_name="net", raw_input_contents=[b"1"])
assert messages.ModelInferRequest.FromString(sent.SerializeToString()) == sent
"""

LATER = """
from google.protobuf import descriptor_pool
from presplit.runtime.wire import messages

assert messages.ModelInferRequest().ByteSize() == 0
pool = descriptor_pool.Default()
finders = {
    pool.FindMessageTypeByName: "inference.ModelInferRequest",
    pool.FindFileByName: "open_inference.proto",
}
for find, name in finders.items():
    try:
        find(name)
    except KeyError:
        continue
    raise SystemExit(f"the pool of all holds {name}")
"""


def test_another_client_of_the_protocol_may_have_been_there_before() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_client_may_come_later_because_the_pool_of_all_holds_nothing_of_ours() -> None:
    done = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_maps_and_choices_are_there_as_the_protocol_has_them() -> None:
    request = messages.ModelInferRequest()
    request.parameters["sequence"].int64_param = 7
    request.parameters["sequence"].string_param = "seven"  # one of both
    again = messages.ModelInferRequest.FromString(request.SerializeToString())
    assert again.parameters["sequence"].WhichOneof("parameter_choice") == "string_param"
    assert request.SerializeToString() == bytes.fromhex(
        "22130a0873657175656e636512071a05736576656e"
    )
