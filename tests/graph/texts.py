"""ONNX models written as text, their declared weights filled with numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser


def model(text: str, *, opset: int = 20, ir: int = 10) -> onnx.ModelProto:
    """The model of ``text`` (ONNX's textual syntax, without a header).

    What it declares without a value is random: normal, or 0 and 1 for 8-bit numbers.
    """
    runtime = ', "com.microsoft": 1' if "com.microsoft" in text else ""
    found = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}{runtime}]> {text}')
    random = np.random.default_rng(0)
    for declared in found.graph.value_info:
        tensor = declared.type.tensor_type
        shape = [axis.dim_value for axis in tensor.shape.dim]
        if tensor.elem_type in (TensorProto.INT8, TensorProto.UINT8):
            values = random.integers(0, 2, size=shape)
        else:
            values = random.normal(size=shape)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        found.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), declared.name))
    del found.graph.value_info[:]
    return found
