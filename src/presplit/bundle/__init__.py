"""A bundle is what training hands to the edge and the server: segments, manifest, plan.

This room needs neither torch nor onnx.
"""

from presplit.bundle.manifest import Manifest
from presplit.bundle.pack import Evidence, judge, pack
from presplit.bundle.read import Bundle, read
from presplit.bundle.write import digest, write, write_plan

__all__ = [
    "Bundle",
    "Evidence",
    "Manifest",
    "digest",
    "judge",
    "pack",
    "read",
    "write",
    "write_plan",
]
