"""The wire: the Open Inference Protocol over gRPC, raw contents.

This is the only room in which grpc is imported.
"""

import os

from presplit.core.errors import library

# What goes wrong is told by statuses; gRPC's own lines would say it twice.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

library("grpc", need="the wire between edge and server", extra="edge")
library("google.protobuf", need="the wire between edge and server", extra="edge")
