"""Shapes of operators that ONNX's shape inference does not know.

ONNX Runtime's quantiser and optimiser write those of ``com.microsoft``; trees are of
``ai.onnx.ml``. Each is replaced, for inference only, by operators of ONNX's own whose result has
the same shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from presplit.graph.outputs import ML
from presplit.graph.walk import attribute, is_own


class StandIn(NamedTuple):
    """Nodes, and the constants they need."""

    nodes: list[NodeProto]
    constants: list[TensorProto]


class _Same(NamedTuple):
    """Which operator has the same shape, and which operands it reads."""

    operator: str
    operands: tuple[int, ...]
    attributes: tuple[str, ...] = ()
    to_float: bool = False


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = (
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "kernel_shape",
    "pads",
    "strides",
)
_GEMM = ("transA", "transB")

SAME = {
    "FusedConv": _Same("Conv", (0, 1), _CONV),
    "FusedGemm": _Same("Gemm", (0, 1), _GEMM),
    "QGemm": _Same("Gemm", (0, 3), _GEMM),
    "MatMulIntegerToFloat": _Same("MatMul", (0, 1), to_float=True),
    "DynamicQuantizeMatMul": _Same("MatMul", (0, 1), to_float=True),
    "DynamicQuantizeLSTM": _Same("LSTM", (0, 1, 2), ("direction", "hidden_size")),
    "QLinearAdd": _Same("Add", (0, 3)),
    "QLinearMul": _Same("Mul", (0, 3)),
    "QLinearSigmoid": _Same("Identity", (0,)),
    "QLinearLeakyRelu": _Same("Identity", (0,)),
    "QLinearSoftmax": _Same("Identity", (0,)),
    "QLinearWhere": _Same("Where", (0, 1, 4)),
    "QLinearGlobalAveragePool": _Same("GlobalAveragePool", (0,)),
    "QLinearAveragePool": _Same("AveragePool", (0,), _POOL),
    "QLinearReduceMean": _Same("ReduceMean", (0,), ("axes", "keepdims")),
    "Gelu": _Same("Identity", (0,)),
    "FastGelu": _Same("Identity", (0,)),
    "QuickGelu": _Same("Identity", (0,)),
    "BiasGelu": _Same("Identity", (0,)),
    "BiasSoftmax": _Same("Identity", (0,)),
    "SkipLayerNormalization": _Same("Identity", (0,)),
    "SimplifiedLayerNormalization": _Same("Identity", (0,)),
    "SkipSimplifiedLayerNormalization": _Same("Identity", (0,)),
    "Attention": _Same("Identity", (0,)),
    "QAttention": _Same("Identity", (0,), to_float=True),
    "MultiHeadAttention": _Same("Identity", (0,)),
    "QuantizeLinear": _Same("QuantizeLinear", (0, 1, 2), ("axis",)),
    "DequantizeLinear": _Same("DequantizeLinear", (0, 1, 2), ("axis",)),
}
"""The operator of the same shape by operator of ``com.microsoft``."""


def stand_in(node: NodeProto) -> StandIn | None:
    """What gives the shapes of ``node``; None for ONNX's own and for what is not known."""
    if node.domain == ML and node.op_type == "TreeEnsembleClassifier":
        return _trees(node)
    if is_own(node) or node.domain != "com.microsoft":
        return None
    if node.op_type == "QLinearConcat":
        joined = list(node.input[2::3])
        return _plain(node, "Concat", joined, {"axis": attribute(node, "axis", 0)})
    if node.op_type == "FusedMatMul":
        return _fused(node)
    if node.op_type == "MatMulNBits":
        return _packed(node)
    same = SAME.get(node.op_type)
    if same is None or attribute(node, "channels_last", 0):
        return None
    given = {name: attribute(node, name, None) for name in same.attributes}
    kept = {name: value for name, value in given.items() if value is not None}
    operands = [node.input[k] for k in same.operands if k < len(node.input)]
    # a product of 8-bit operands whose own scale is not given is left in float32
    unscaled = node.op_type == "QGemm" and not (len(node.input) > 7 and node.input[7])
    return _plain(node, same.operator, operands, kept, to_float=same.to_float or unscaled)


def _plain(
    node: NodeProto,
    operator: str,
    operands: list[str],
    attributes: dict[str, Any],
    *,
    to_float: bool = False,
) -> StandIn:
    results = [node.output[0]] if operator != "LSTM" else list(node.output)
    if not to_float:
        return StandIn([helper.make_node(operator, operands, results, **attributes)], [])
    inner = f"{node.output[0]}/unscaled"
    return StandIn(
        [
            helper.make_node(operator, operands, [inner], **attributes),
            helper.make_node("Cast", [inner], [node.output[0]], to=TensorProto.FLOAT),
        ],
        [],
    )


def _packed(node: NodeProto) -> StandIn:
    """A product with a weight ``(K, N)`` of few bits, here one without values."""
    size = [attribute(node, name, 0) for name in ("K", "N")]
    name = f"{node.output[0]}/weight"
    weight = TensorProto(name=name, dims=size, data_type=TensorProto.FLOAT)
    product = helper.make_node("MatMul", [node.input[0], name], [node.output[0]])
    return StandIn([product], [weight])


def _trees(node: NodeProto) -> StandIn:
    """A label for each sample, and a score for each class."""
    labels = attribute(node, "classlabels_strings", None) or attribute(
        node, "classlabels_int64s", []
    )
    name = node.output[1]
    ones = numpy_helper.from_array(np.ones((1, len(labels)), np.float32), f"{name}/classes")
    given = [node.input[0]]
    nodes = [
        helper.make_node("ArgMax", given, [f"{name}/place"], axis=1, keepdims=1),
        helper.make_node("Cast", [f"{name}/place"], [f"{name}/one"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/one", ones.name], [name]),
    ]
    if node.output[0]:
        label = helper.make_node("ArgMax", given, [node.output[0]], axis=1, keepdims=0)
        nodes.append(label)
    return StandIn(nodes, [ones])


def _fused(node: NodeProto) -> StandIn | None:
    """A product of which operands may be transposed."""
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        return None
    first = "...km" if attribute(node, "transA", 0) else "...mk"
    second = "...nk" if attribute(node, "transB", 0) else "...kn"
    return _plain(node, "Einsum", list(node.input[:2]), {"equation": f"{first},{second}->...mn"})
