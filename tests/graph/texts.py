"""ONNX models written as text, their declared weights filled with numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser


def model(text: str) -> onnx.ModelProto:
    """The model of ``text`` (ONNX's textual syntax, without a header).

    What it declares without a value is random.
    """
    found = parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    random = np.random.default_rng(0)
    for declared in found.graph.value_info:
        shape = [axis.dim_value for axis in declared.type.tensor_type.shape.dim]
        values = random.normal(size=shape).astype(np.float32)
        found.graph.initializer.append(numpy_helper.from_array(values, declared.name))
    del found.graph.value_info[:]
    return found
