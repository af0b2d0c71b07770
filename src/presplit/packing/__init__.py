"""From an ONNX classifier and samples to a checked bundle. Needs no torch."""

# ruff: noqa: E402 - a missing library is said in one sentence before anything imports it
from presplit.core.errors import library

library("onnxruntime", need="packing a bundle", extra="edge")

from presplit.packing.pack import pack

__all__ = ["pack"]
