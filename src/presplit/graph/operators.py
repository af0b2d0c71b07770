"""The shelf of operators: how many multiply-accumulates each does, and which operands are weights.

What the field counts is counted: convolutions, products, recurrent layers and attention. Biases,
normalisation, pooling and elementwise work are free (`FREE`). An operator on neither list is
refused by name (`presplit.graph.count`), because one that nobody counts would cost nothing. Names
are those of `presplit.graph.walk.operator`: an operator of another domain than ONNX's own has its
domain before it. To add one is a line in `COUNTED` or `FREE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from presplit.core.errors import GraphError

Dims = tuple[int, ...]


class Sizes(Protocol):
    """The sizes of one node's operands and result for one sample."""

    def operand(self, number: int) -> Dims:
        """Sizes of an operand; `GraphError` if they cannot be told."""
        ...

    def result(self) -> Dims:
        """Sizes of the first result."""
        ...

    def has(self, number: int) -> bool:
        """True if the operand is given."""
        ...

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute."""
        ...


@dataclass(frozen=True)
class Counted:
    """An operator that multiplies.

    ``macs`` gives its multiply-accumulates for one sample. ``weights`` are the operands that may be
    weights; None means all of them.
    """

    macs: Callable[[Sizes], int]
    weights: tuple[int, ...] | None


def _convolution(weight: int) -> Counted:
    """Each output sees ``channels / group * kernel`` inputs."""
    return Counted(lambda of: math.prod(of.result()) * math.prod(of.operand(weight)[1:]), (weight,))


def _transposed_convolution(of: Sizes) -> int:
    """Each input feeds ``outputs / group * kernel`` outputs."""
    return math.prod(of.operand(0)) * math.prod(of.operand(1)[1:])


def _product(first: int, second: int) -> Counted:
    """``(..., m, k) @ (..., k, n)``; ``transA`` as Gemm has it."""

    def macs(of: Sizes) -> int:
        sizes = of.operand(first)
        inner = sizes[-2] if of.attribute("transA", 0) else sizes[-1]
        return math.prod(of.result()) * inner

    return Counted(macs, (first, second))


def _recurrent(of: Sizes) -> int:
    """Both weights once a step."""
    steps = of.operand(0)[1 if of.attribute("layout", 0) else 0]
    return steps * (math.prod(of.operand(1)) + math.prod(of.operand(2)))


def _einsum(of: Sizes) -> int:
    """The products from left to right; an axis goes as soon as nothing after reads it."""
    equation = of.attribute("equation", b"").decode().replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    labels: list[set[str]] = []
    for number, term in enumerate(terms):
        axes = _labelled(term, of.operand(number))
        labels.append(set(axes))
        for label, size in axes.items():
            sizes[label] = max(size, sizes.get(label, 1))
    kept = {label for label in right if label != "."} if "->" in equation else _once(left)
    kept |= {label for label in sizes if label.startswith(".")}
    held, macs = labels[0], 0
    for number, more in enumerate(labels[1:], 1):
        held = held | more
        macs += math.prod(sizes[label] for label in held)
        held &= kept.union(*labels[number + 1 :])
    return macs


def _labelled(term: str, dims: Dims) -> dict[str, int]:
    """Sizes by label; the axes of an ellipsis are ``.1``, ``.2``, ... from the last one on."""
    before, dots, after = term.partition("...")
    inner = dims[len(before) : len(dims) - len(after)] if dots else ()
    names = [*before, *(f".{len(inner) - k}" for k in range(len(inner))), *after]
    if len(names) != len(dims):
        raise GraphError(f"Einsum reads {term!r} in an operand of {len(dims)} axes")
    return dict(zip(names, dims, strict=True))


def _once(left: str) -> set[str]:
    """The labels of a result that the equation does not spell: those that occur once."""
    return {label for label in left if label.isalpha() and left.count(label) == 1}


def _attention(of: Sizes) -> int:
    """Queries times keys, then scores times values, however heads are folded."""
    seen = of.operand(1)[-2] + (of.operand(4)[-2] if of.has(4) else 0)
    return seen * (math.prod(of.operand(0)) + math.prod(of.result()))


def _attention_with_projection(of: Sizes) -> int:
    """The product that gives queries, keys and values, and attention over all tokens."""
    sizes = of.operand(0)
    columns = of.operand(1)[-1]
    inner = sizes[1] * 2 * math.prod(sizes[:2]) * (columns // 3)
    return math.prod(sizes) * columns + inner


def _attention_of_heads(of: Sizes) -> int:
    """Attention of ONNX Runtime over separate queries, keys and values, all projected before."""
    if not of.has(1):
        raise GraphError("a MultiHeadAttention that packs queries, keys and values is not counted")
    seen = of.operand(1)[-2]
    return seen * (math.prod(of.operand(0)) + math.prod(of.result()))


def _packed(of: Sizes) -> int:
    return math.prod(of.operand(0)) * of.attribute("N", 0)


def _trees(of: Sizes) -> int:
    """A comparison for each level of each tree, and one score for each class and tree."""
    labels = of.attribute("classlabels_strings", None) or of.attribute("classlabels_int64s", [])
    places = [of.attribute(f"nodes_{key}", []) for key in ("treeids", "nodeids")]
    branches = [of.attribute(f"nodes_{key}nodeids", []) for key in ("true", "false")]
    level: dict[tuple[int, int], int] = {}
    deepest: dict[int, int] = {}
    for tree, node, *following in zip(*places, *branches, strict=True):
        here = level.setdefault((tree, node), 0)  # converters write a parent before its children
        deepest[tree] = max(deepest.get(tree, 0), here)
        for child in following:
            level.setdefault((tree, child), here + 1)
    return sum(deepest.values()) + len(deepest) * len(labels)


_WITH_BOTH = Counted(_recurrent, (1, 2))

COUNTED: Mapping[str, Counted] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    "ConvTranspose": Counted(_transposed_convolution, (1,)),
    "MatMul": _product(0, 1),
    "MatMulInteger": _product(0, 1),
    "QLinearMatMul": _product(0, 3),
    "Gemm": _product(0, 1),
    "Einsum": Counted(_einsum, None),
    "LSTM": _WITH_BOTH,
    "GRU": _WITH_BOTH,
    "RNN": _WITH_BOTH,
    "Attention": Counted(_attention, ()),
    "Gather": Counted(lambda of: 0, (0,)),  # an embedding looks its weights up
    "ai.onnx.ml.TreeEnsembleClassifier": Counted(_trees, ()),
    "com.microsoft.FusedConv": _convolution(1),
    "com.microsoft.FusedMatMul": _product(0, 1),
    "com.microsoft.FusedGemm": _product(0, 1),
    "com.microsoft.QGemm": _product(0, 3),
    "com.microsoft.MatMulIntegerToFloat": _product(0, 1),
    "com.microsoft.DynamicQuantizeMatMul": _product(0, 1),
    "com.microsoft.DynamicQuantizeLSTM": _WITH_BOTH,
    "com.microsoft.MatMulNBits": Counted(_packed, (1,)),
    "com.microsoft.Attention": Counted(_attention_with_projection, (1,)),
    "com.microsoft.QAttention": Counted(_attention_with_projection, (1,)),
    "com.microsoft.MultiHeadAttention": Counted(_attention_of_heads, ()),
}
"""Operators that multiply, or hold weights."""

_MOVES = (
    *("Cast", "CastLike", "BitCast", "CenterCropPad", "Col2Im", "Compress", "Concat", "Constant"),
    *("ConstantOfShape", "DepthToSpace", "Expand", "EyeLike", "Flatten", "GatherElements"),
    *("GatherND", "Identity", "MaxUnpool", "NonZero", "OneHot", "Pad", "Range", "Reshape"),
    *("ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Shape", "Size", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "TensorScatter", "Tile", "TopK", "Transpose", "Trilu"),
    *("Unique", "Unsqueeze", "Where", "Resize", "Upsample", "GridSample", "AffineGrid"),
    *("Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt", "SequenceConstruct"),
    *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence"),
    "ConcatFromSequence",
)
_ELEMENTWISE = (
    *("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift"),
    *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Clip", "Cos", "Cosh"),
    *("Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater"),
    *("GreaterOrEqual", "HardSigmoid", "HardSwish", "Hardmax", "IsInf", "IsNaN", "LeakyRelu"),
    *("Less", "LessOrEqual", "Log", "LogSoftmax", "Max", "Mean", "Min", "Mish", "Mod", "Mul"),
    *("Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum"),
    *("SwiGLU", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Xor", "RotaryEmbedding"),
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    *("RandomUniformLike", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("BlackmanWindow", "HammingWindow", "HannWindow"),
)
_SUMS = (
    *("ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "CumProd", "CumSum"),
    *("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization"),
    *("InstanceNormalization", "LRN", "LayerNormalization", "LpNormalization", "LpPool"),
    *("MaxPool", "MaxRoiPool", "MeanVarianceNormalization", "RMSNormalization", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "RoiAlign", "NonMaxSuppression"),
)
_MICROSOFT = (
    *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"),
    *("QLinearWhere", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearReduceMean"),
    *("QLinearConcat", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasSoftmax"),
    *("SkipLayerNormalization", "SimplifiedLayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "QuantizeLinear", "DequantizeLinear"),
)
FREE = frozenset({*_MOVES, *_ELEMENTWISE, *_SUMS, *(f"com.microsoft.{op}" for op in _MICROSOFT)})
"""Operators that do nothing that the field counts."""
