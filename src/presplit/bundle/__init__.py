"""A bundle is what training hands to the edge and the server: segments, manifest, plan. No torch, no onnx."""

from presplit.bundle.manifest import Manifest
from presplit.bundle.read import Bundle, read
from presplit.bundle.write import digest, write, write_plan

__all__ = ["Bundle", "Manifest", "digest", "read", "write", "write_plan"]
