"""Any ONNX model, on the engine that bundles run on: to try a file, or a part of a bundle.

The edge and the server take their engines from the shelf in `presplit.runtime.engines`.
"""

from presplit.runtime.engines.onnxruntime import Engine

__all__ = ["Engine"]
