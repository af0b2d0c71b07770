"""A bundle is what training hands to the edge and the server: segments, manifest, plan.

This room needs neither torch nor onnx.
"""

from presplit.bundle.manifest import Manifest
from presplit.bundle.read import Bundle, judged_places, read
from presplit.bundle.samples import as_input
from presplit.bundle.trust import Trust
from presplit.bundle.write import digest, sign_bundle, write, write_plan

__all__ = [
    "Bundle",
    "Manifest",
    "Trust",
    "as_input",
    "digest",
    "judged_places",
    "read",
    "sign_bundle",
    "write",
    "write_plan",
]
