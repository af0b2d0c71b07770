"""From an ONNX classifier and samples to a checked bundle. Needs no torch."""

# ruff: noqa: E402 - a missing library is said in one sentence before anything imports it
import os

from presplit.core.errors import library

# Its official builds report to their maker over the network unless told not to before they load.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
library("onnxruntime", need="packing a bundle", extra="pack")

from presplit.packing.pack import pack

__all__ = ["pack"]
