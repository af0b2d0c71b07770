"""Which of a file's outputs are the classifier's, and what it calls its classes.

Files of scikit-learn (skl2onnx) give a label beside the probabilities, others give features or a
loss. Exits are told by their logits, so the outputs to keep can be named; what only the others
need goes with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from presplit.core.errors import GraphError
from presplit.graph.walk import attribute, needs

ML = "ai.onnx.ml"
"""The domain of classical machine learning's operators."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_CLASSIFIER = ("logit", "prob", "score", "class", "softmax")
"""What those who write files call the output of a classifier."""
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def kept(model: ModelProto, names: Sequence[str], where: str) -> ModelProto:
    """``model`` itself with the outputs ``names`` alone, in this order; all of them for none.

    A ZipMap, which turns probabilities into a dictionary, stands for the probabilities. Raises
    `GraphError` for a name that no output has, and, where no names are given, for outputs of which
    some can be no classifier's.
    """
    if not names:
        _refuse_mixed(model, where)
        return model
    outputs = {value.name: value for value in model.graph.output}
    made = {name: node for node in model.graph.node for name in node.output}
    found: list[ValueInfoProto] = []
    for name in dict.fromkeys(names):
        if name not in outputs:
            raise GraphError(f"{where}: no output is called {name!r}; it has {_listed(model)}")
        node = made.get(name)
        if node is not None and node.op_type == "ZipMap":
            sizes = ["batch", len(_named_by(node, {}))]
            found.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, sizes))
        else:
            found.append(ValueInfoProto.FromString(outputs[name].SerializeToString()))
    del model.graph.output[:]
    model.graph.output.extend(found)
    _drop_unneeded(model)
    return model


def likeliest(names: Sequence[str]) -> str:
    """Of outputs that may be a classifier's, the one that is called like one, or else the first.

    >>> likeliest(["features", "class_scores"]), likeliest(["a", "b"])
    ('class_scores', 'a')
    """
    told = [name for name in names if any(word in name.lower() for word in _CLASSIFIER)]
    return [*told, *names][0]


def class_names(model: ModelProto, count: int) -> tuple[str, ...]:
    """What ``model``, as it is in the file, calls its ``count`` classes; nothing if it does not.

    Classes that are called 0, 1, ... have no names of their own.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        found = _named_by(node, constants) if node.domain == ML else []
        if len(found) == count and found != [str(number) for number in range(count)]:
            return tuple(found)
    return ()


def _named_by(node: NodeProto, constants: dict[str, TensorProto]) -> list[str]:
    """The classes that one operator lists."""
    for key in _LABELS:
        listed = attribute(node, key, None)
        if listed:
            return [_text(each) for each in listed]
    if node.op_type == "ArrayFeatureExtractor" and node.input[0] in constants:
        return [_text(each) for each in numpy_helper.to_array(constants[node.input[0]]).ravel()]
    return []


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _drop_unneeded(model: ModelProto) -> None:
    """Drop nodes that no output needs, and then constants that nothing reads."""
    wanted = {value.name for value in model.graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(needs(node))
            nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    for place in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[place].name not in wanted:
            del model.graph.initializer[place]


def _refuse_mixed(model: ModelProto, where: str) -> None:
    """Raise `GraphError` if some of several outputs can be no classifier's."""
    zipped = {n.output[0] for n in model.graph.node if n.op_type == "ZipMap"}
    outputs = model.graph.output
    likely = [value.name for value in outputs if value.name in zipped or _may_be_logits(value)]
    if len(outputs) < 2 or (len(likely) == len(outputs) and not zipped):
        return
    cure = likeliest(likely) if likely else "NAME"
    file = where if where.endswith(".onnx") else "FILE"
    raise GraphError(
        f"{where}: it has the outputs {_listed(model)}; name the one that tells the classes apart, "
        f"as in presplit export --from {quote(file)} --output {cure}"
    )


def _may_be_logits(value: ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return False
    tensor = value.type.tensor_type
    is_row = not tensor.HasField("shape") or len(tensor.shape.dim) == 2
    return tensor.elem_type in _FLOATS and is_row


def _listed(model: ModelProto) -> str:
    """The outputs with their types.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[N, 4] x) => (float[N, 4] y, int64[N] label) {
    ...         y = Relu(x) label = ArgMax<axis = 1, keepdims = 0>(x) }'''
    >>> _listed(parser.parse_model(text))
    'y (float[N, 4]), label (int64[N])'
    """
    return ", ".join(f"{value.name} ({_kind(value)})" for value in model.graph.output)


def _kind(value: ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return "dictionaries" if value.type.HasField("sequence_type") else "no tensor"
    tensor = value.type.tensor_type
    kind = TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = [str(d.dim_value) if d.dim_value else d.dim_param or "batch" for d in tensor.shape.dim]
    return f"{kind}[{', '.join(sizes)}]" if tensor.HasField("shape") else kind
