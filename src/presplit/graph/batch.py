"""Opening a batch that a file fixes.

Many exporters write the batch of their example, mostly 1, into the graph.

The input's first axis is opened and shapes are inferred anew. A Reshape takes the batch to come
first, alone or folded with heads or windows, and gets the target ``[-1, ...]``. Nothing else is
touched: where other nodes hold the batch, the outputs stay fixed, and `presplit.graph.read` says
so; where the batch does not come first, as in attention over ``(tokens, batch, features)``, the
graph computes something else, which `presplit export` finds by comparing.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper


def fixed_batch(model: ModelProto) -> int | None:
    """The batch to which the one input of ``model`` is fixed.

    None if it is open or there are several inputs.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[BATCH, 4] x) => (float[BATCH, 4] y) { y = Relu(x) }'''
    >>> [fixed_batch(parser.parse_model(text.replace("BATCH", batch))) for batch in ("2", "N")]
    [2, None]
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    axes = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else ()
    return axes[0].dim_value if len(axes) > 1 and axes[0].HasField("dim_value") else None


def opened(model: ModelProto, batch: int) -> ModelProto:
    """A copy of ``model`` with its input's batch open and all other shapes forgotten.

    The shapes of ``model`` are inferred before.
    """
    result = ModelProto()
    result.CopyFrom(model)
    sizes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    constants = {tensor.name for tensor in model.graph.initializer}
    live = {value.name for value in model.graph.input if value.name not in constants}
    for value in result.graph.input:
        if value.name in live:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for number, node in enumerate(result.graph.node):
        if not live.intersection(node.input):
            continue
        live.update(node.output)
        before, after = sizes.get(node.input[0], []), sizes.get(node.output[0], [])
        if (
            node.op_type == "Reshape"
            and before
            and all(after)
            and before[0] % batch == after[0] % batch == 0
        ):
            target = np.array([-1, *after[1:]], dtype=np.int64)
            node.input[1] = f"opened_target_{number}"
            result.graph.initializer.append(numpy_helper.from_array(target, node.input[1]))
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    del result.graph.value_info[:]
    return result
