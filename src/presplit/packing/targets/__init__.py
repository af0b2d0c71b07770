"""Model repositories of other servers of the Open Inference Protocol, written from a bundle.

Every portable tail becomes one plain ONNX file under the name by which an edge asks for it, so that
an edge may be pointed at Triton, OpenVINO Model Server or KServe and notices no difference. Each
file is run in plain ONNX Runtime before anything is kept, and compared with the bundle's own.
"""

from presplit.packing.targets.write import TARGETS, Written, write_target

__all__ = ["TARGETS", "Written", "write_target"]
