"""What a model may hold before an engine sees it: listed operators, all of its own, of sane sizes.

An ONNX file is a program. The standard operators only compute; what does more comes by other doors,
and those are shut here: weights in other files, domains that load libraries, functions nested by
thousands. A few bytes may also ask for many gigabytes: a weight is as long as it says, and a
constant that says how large a tensor becomes is bounded. Sizes that depend on the input can only be
bounded by running the model where memory is limited (`presplit.runtime.quarantine`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from presplit.bundle.protobuf import SPAN, VARINT, Damaged, Field, Walker
from presplit.core.errors import BundleError

MOST_ELEMENTS = 2**28
"""Elements of a tensor whose size the model itself says: a gigabyte of float32."""
MOST_ATTRIBUTE = 2**16
"""The largest pad, stride or side of a kernel."""
MOST_DEPTH = 8
"""Bodies of If, Loop and Scan inside each other."""
MOST_SIZES = 64
"""Integers of a constant that can be the sizes of a tensor."""
CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators that run others, how often may depend on the input; none in a model of a stranger."""
_SIZING = {
    "ConstantOfShape": 0,
    "Expand": 1,
    "Tile": 1,
    "Pad": 1,
    "Resize": 3,
    "OneHot": 1,
    "Range": 1,
    "CenterCropPad": 1,
    "MaxUnpool": 2,
    "HannWindow": 0,
    "HammingWindow": 0,
    "BlackmanWindow": 0,
}
"""Operators whose result is as large as an input says, and which input that is."""
_SIZES = ("pads", "strides", "dilations", "kernel_shape", "output_padding", "output_shape", "shape")
_BITS = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64},
    **{14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4},
}
"""Bits of an element by the number of its type in TensorProto."""
_INTEGERS = (6, 7)

_OPERATORS = (
    "Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention "
    "AveragePool BatchNormalization Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr "
    "BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress "
    "Concat ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh "
    "CumProd CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout "
    "DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather "
    "GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater "
    "GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid "
    "HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization "
    "LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max "
    "MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod "
    "Mul Multinomial Neg NonMaxSuppression NonZero Not OneHot Optional OptionalGetElement "
    "OptionalHasElement Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear "
    "RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range "
    "Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign "
    "RotaryEmbedding Round STFT Scatter ScatterElements ScatterND Selu SequenceAt "
    "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink "
    "Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split "
    "SplitToSequence Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh TensorScatter ThresholdedRelu "
    "Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor"
)
OPERATORS = frozenset(_OPERATORS.split(" "))
"""Operators of ONNX itself; those that read text or decode images are not among them."""
_MICROSOFT = (
    "Attention BiasGelu BiasSoftmax DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul "
    "FastGelu FusedConv FusedGemm FusedMatMul Gelu MatMulIntegerToFloat MatMulNBits "
    "MultiHeadAttention QAttention QGemm QLinearAdd QLinearAveragePool QLinearConcat "
    "QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid "
    "QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu SimplifiedLayerNormalization "
    "SkipLayerNormalization SkipSimplifiedLayerNormalization"
)
MICROSOFT = frozenset(_MICROSOFT.split(" "))
"""Operators of ONNX Runtime's own domain that quantised and fused models hold."""
CLASSICAL = frozenset({"TreeEnsembleClassifier"})
"""Operators of classical machine learning; what else there is becomes ONNX's own when packed."""
DOMAINS = {
    "": OPERATORS,
    "ai.onnx": OPERATORS,
    "ai.onnx.ml": CLASSICAL,
    "com.microsoft": MICROSOFT,
}


def check(model: bytes, *, strict: bool = False) -> None:
    """Raise `BundleError` unless the ONNX ``model`` holds only what is said above.

    ``strict`` also refuses bodies that run again and again (`CONTROL`).
    """
    walker = Walker(model)
    try:
        _model(walker, strict)
    except Damaged as error:
        raise BundleError(f"the engine does not take the model: {error}") from error


@dataclass
class _Graph:
    """What is known of a graph: integers that are constants, by name, and who reads sizes."""

    constants: dict[str, int] = field(default_factory=dict[str, int])
    sized: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def _model(walker: Walker, strict: bool) -> None:
    # Pieces of a bundle are joined: there may be several graphs here, which are one.
    whole = _Graph()
    for found in walker.fields(0, len(walker.raw)):
        if found.number == 7:
            _graph(walker, _span(found), whole, strict, MOST_DEPTH)
        elif found.number == 8:
            _opset(walker, _span(found))
        elif found.number in (20, 25):
            raise Damaged("it holds functions or training, and only operators are run")
    _check_sizes(whole)


def _opset(walker: Walker, inside: Field) -> None:
    for found in walker.fields(inside.start, inside.stop):
        if found.number == 1 and (domain := walker.text(found)) not in DOMAINS:
            raise Damaged(f"operators of {domain[:64]!r} are not run here")


def _graph(walker: Walker, inside: Field, known: _Graph, strict: bool, depth: int) -> None:
    if not depth:
        raise Damaged(f"more than {MOST_DEPTH} bodies inside each other")
    for found in walker.fields(inside.start, inside.stop):
        if found.number == 1:
            _node(walker, _span(found), known, strict, depth)
        elif found.number == 5:
            name, size = _tensor(walker, _span(found))
            _keep(known, name, size)
        elif found.number in (11, 12, 13):
            _value(walker, _span(found))
        elif found.number == 15:
            raise Damaged("sparse weights are not read here")


def _node(walker: Walker, inside: Field, known: _Graph, strict: bool, depth: int) -> None:
    kinds: list[str] = []
    domains: list[str] = []
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: list[Field] = []
    texts = {1: inputs, 2: outputs, 4: kinds, 7: domains}
    for found in walker.fields(inside.start, inside.stop):
        if found.number in texts:
            texts[found.number].append(walker.text(found))
        elif found.number == 5:
            attributes.append(_span(found))
        elif found.number == 8 and found.stop > found.start:
            raise Damaged("overloaded operators are not run here")
    if len(kinds) != 1 or len(domains) > 1:
        raise Damaged("a node without one kind")
    kind = _operator(kinds[0], "".join(domains), strict)
    for each in attributes:
        size = _attribute(walker, each, known, strict, depth)
        if kind == "Constant" and outputs:
            _keep(known, outputs[0], size)
    place = _SIZING.get(kind)
    if place is not None and place < len(inputs):
        known.sized.append((kind, inputs[place]))


def _operator(kind: str, domain: str, strict: bool) -> str:
    """The operator's name; raises `Damaged` if it is not listed."""
    if domain not in DOMAINS:
        raise Damaged(f"operators of {domain[:64]!r} are not run here")
    if kind in CONTROL and DOMAINS[domain] is OPERATORS:
        if strict:
            raise Damaged(f"{kind} is not run for strangers: how long it takes cannot be known")
        return kind
    if strict and DOMAINS[domain] is CLASSICAL:
        raise Damaged(f"{kind[:64]} is not run for strangers: its trees are not looked through")
    if kind not in DOMAINS[domain]:
        raise Damaged(f"the operator {kind[:64]!r} is not run here")
    return kind


def _attribute(walker: Walker, inside: Field, known: _Graph, strict: bool, depth: int) -> int:
    """How large the integers in an attribute would make a tensor."""
    names: list[str] = []
    numbers: list[int] = []
    seen: list[int] = []
    size = 0
    for found in walker.fields(inside.start, inside.stop):
        if found.number in (5, 6, 14, 22):
            seen.append(found.number)
        if found.number == 1:
            names.append(walker.text(found))
        elif found.number in (3, 8):
            numbers += walker.integers(found)
        elif found.number in (5, 10):
            size = _tensor(walker, _span(found))[1]
        elif found.number in (6, 11):
            _graph(walker, _span(found), known, strict, depth - 1)
        elif found.number in (22, 23):
            raise Damaged("sparse weights are not read here")
    # Written twice, the two are one tensor, of the sizes of both.
    if len(seen) != len(set(seen)) or len(names) != 1:
        raise Damaged("an attribute that is written twice")
    if names[0] in _SIZES and any(abs(number) > MOST_ATTRIBUTE for number in numbers):
        raise Damaged(f"{names[0]} beyond {MOST_ATTRIBUTE}")
    if names[0] not in ("shape", "output_shape", "value_int", "value_ints"):
        return size  # the nodes of a thousand trees are no sizes, and their product is a long one
    grown = _product(numbers)
    if names[0] in ("shape", "output_shape") and grown > MOST_ELEMENTS:
        raise Damaged(f"a tensor of {grown} elements")
    return max(size, grown if names[0] in ("value_int", "value_ints") else 0)


def _tensor(walker: Walker, inside: Field) -> tuple[str, int]:
    """The name of a tensor, and how large its integers would make another, if it holds a few.

    Raises `Damaged` unless its values lie in it and are as many as it says.
    """
    name, kinds, dims = "", list[int](), list[int]()
    data: dict[int, int] = {}
    held: list[Field] = []
    for found in walker.fields(inside.start, inside.stop):
        if found.number == 1:
            dims += walker.integers(found)
        elif found.number == 2:
            kinds.append(walker.int32(found))
        elif found.number == 8:
            name = walker.text(found)
        elif found.number in (3, 13) or (found.number == 14 and walker.int32(found)):
            raise Damaged("weights in other files are not read here")
        elif found.number in (4, 5, 6, 7, 9, 10, 11):
            data[found.number] = data.get(found.number, 0) + found.stop - found.start
            held.append(found)
    if len(kinds) != 1 or any(size < 0 for size in dims):
        raise Damaged("a tensor without one type and sizes from 0 on")
    count = math.prod(dims)
    _check_length(kinds[0], count, data)
    if kinds[0] not in _INTEGERS or count > MOST_SIZES:
        return name, 0
    return name, _product(_values(walker, held, kinds[0]))


def _check_length(kind: int, count: int, data: dict[int, int]) -> None:
    """Raise `Damaged` unless ``data``, bytes by field, can be ``count`` elements of a ``kind``."""
    raw = data.pop(9, None)
    if raw is not None and not data:
        if kind in _BITS and raw == (count * _BITS[kind] + 7) // 8:
            return
        raise Damaged(f"a tensor of {count} elements in {raw} bytes")
    # In the typed fields each element takes a byte at least; two or four may share one number.
    if raw is not None or count > 4 * sum(data.values()):
        raise Damaged(f"a tensor of {count} elements in {sum(data.values())} bytes")


def _values(walker: Walker, held: list[Field], kind: int) -> list[int]:
    """The few integers of a tensor."""
    found: list[int] = []
    for each in held:
        if each.number != 9:
            found += walker.int32s(each) if each.number == 5 else walker.integers(each)
            continue
        width = _BITS[kind] // 8
        found += [
            int.from_bytes(walker.raw[at : at + width], "little", signed=True)
            for at in range(each.start, each.stop, width)
        ]
    return found


def _value(walker: Walker, inside: Field) -> None:
    """A declared input, output or value: its sizes that are numbers must be sane."""
    for count in _declared(walker, inside, (2, 1, 2)):
        if count > MOST_ELEMENTS:
            raise Damaged(f"a tensor of {count} elements")


def _declared(walker: Walker, inside: Field, path: tuple[int, ...]) -> Iterator[int]:
    """The products of sizes below ``path`` of fields: ValueInfo, its type, its tensor's shape."""
    if not path:
        sizes: list[int] = []
        for dim in walker.fields(inside.start, inside.stop):
            if dim.number == 1:
                each = _span(dim)
                inner = walker.fields(each.start, each.stop)
                sizes += [size.value for size in inner if size.number == 1 and size.wire == VARINT]
        yield _product(sizes)
        return
    seen = 0
    for found in walker.fields(inside.start, inside.stop):
        if found.number == path[0]:
            seen += 1
            yield from _declared(walker, _span(found), path[1:])
    if seen > 1:
        raise Damaged("a shape that is written twice")


def _keep(known: _Graph, name: str, size: int) -> None:
    """Keep the largest that is known by ``name``; graphs inside may name theirs alike."""
    if size:
        known.constants[name] = max(size, known.constants.get(name, 0))


def _check_sizes(known: _Graph) -> None:
    """Raise `Damaged` if a constant asks for a tensor that is too large."""
    for kind, name in known.sized:
        if known.constants.get(name, 0) > MOST_ELEMENTS:
            raise Damaged(f"{kind} asks for a tensor of {known.constants[name]} elements")


def _product(sizes: list[int]) -> int:
    """How many elements a tensor of ``sizes`` has; those below 1 are known elsewhere."""
    return math.prod(size for size in sizes if size > 1)


def _span(found: Field) -> Field:
    if found.wire != SPAN:
        raise Damaged("expected a message inside")
    return found
