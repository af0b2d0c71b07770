r"""The wire: the Open Inference Protocol over gRPC, raw contents.

This is the only room in which grpc is imported.

`open_inference_pb2` and `open_inference_pb2_grpc` are generated from ``open_inference.proto``. To
make them again, in this folder, with grpcio-tools 1.76.0 (its output works with protobuf 6.31.1 to
7.x and grpcio from 1.76 on)::

    python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
        open_inference.proto
    sed -i 's/^import open_inference_pb2/from . import open_inference_pb2/' \
        open_inference_pb2_grpc.py
"""

import os

from presplit.core.errors import library

os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # what goes wrong is told by statuses; its own lines say it twice

library("grpc", need="the wire between edge and server", extra="edge")
library("google.protobuf", need="the wire between edge and server", extra="edge")
