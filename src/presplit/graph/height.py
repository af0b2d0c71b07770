"""1-D convolutions as 2-D ones of height 1, which ONNX Runtime runs faster.

Its fast kernels, with channels in blocks, are for images only (docs/sparsity.md has the times).
From a convolution on, all that keeps channels and places apart stays an image, and is flattened
again before anything else reads it. The numbers are the same, and so are the names of tensors.
"""

from __future__ import annotations

from collections import Counter

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from presplit.graph.walk import attribute, is_own, needs, rename

POINTWISE = frozenset(
    {
        *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus"),
        *("Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Clip", "Erf", "Identity"),
        *("Add", "Sub", "Mul", "Div", "Max", "Min"),
    }
)
"""Operators that do the same to each number, whatever the shape."""
POOLS = ("MaxPool", "AveragePool")
HEIGHT, AXIS = "axis/height", 2


def as_images(model: ModelProto) -> ModelProto:
    """``model``, changed in place: its 1-D convolutions run over images of height 1."""
    if any(_convolves(node) for node in model.graph.node):
        _Raising(model).run()
    return model


class _Raising:
    """What is known while the nodes of a graph are gone through in their order."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.ranks = {name: len(tensor.dims) for name, tensor in self.constants.items()}
        for value in (*model.graph.input, *model.graph.value_info):
            self.ranks[value.name] = len(value.type.tensor_type.shape.dim)
        self.images: set[str] = set()
        """Tensors that are images under the name that they had."""
        self.raised: dict[str, str] = {}
        self.flat: dict[str, str] = {}
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        """Change the graph."""
        self._raise_weights()
        self.graph.initializer.append(helper.make_tensor(HEIGHT, TensorProto.INT64, [1], [AXIS]))
        for node in list(self.graph.node):
            if self._stays_image(node):
                self._raise(node)
            else:
                new = {name: self._flattened(name, node) for name in needs(node)}
                rename(node, lambda name, new=new: new.get(name, name))
                self.nodes.append(node)
        kept = [NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        for value in self.graph.value_info:
            if value.name in self.images:
                _raise_shape(value)

    def _raise_weights(self) -> None:
        """Give constant kernels their height, where only such convolutions read them."""
        reads = Counter(name for node in self.graph.node for name in needs(node))
        kernels = Counter(node.input[1] for node in self.graph.node if _convolves(node))
        for name, count in kernels.items():
            if name in self.constants and count == reads[name]:
                self.constants[name].dims.insert(AXIS, 1)
                self.images.add(name)

    def _stays_image(self, node: NodeProto) -> bool:
        if not is_own(node):
            return False
        if _convolves(node):
            return True
        first, *others = node.input or [""]
        if node.op_type in POINTWISE:
            some = any(name in self.images for name in node.input)
            return some and all(map(self._fits, node.input))
        if first not in self.images or len(node.output) > 1:
            return False
        if node.op_type in POOLS:
            return len(attribute(node, "kernel_shape", ())) == 1
        if node.op_type == "Gather":
            return attribute(node, "axis", 0) == 1 and self.ranks.get(others[0]) == 1
        if node.op_type == "Concat":
            return attribute(node, "axis", 0) == 1 and self.images.issuperset(others)
        return node.op_type == "BatchNormalization"

    def _fits(self, name: str) -> bool:
        """Whether an operand of a pointwise operator fits an image."""
        scalar = name in self.constants and not self.constants[name].dims
        return not name or name in self.images or scalar

    def _raise(self, node: NodeProto) -> None:
        """Let ``node`` take images, and give one."""
        if _convolves(node):
            for place in (0, 1):
                node.input[place] = self._as_image(node.input[place], node)
        for each in node.attribute:
            if each.name in ("kernel_shape", "strides", "dilations"):
                each.ints.insert(0, 1)
            elif each.name == "pads":
                each.ints[:] = [0, each.ints[0], 0, each.ints[1]]
        (made,) = node.output
        if made in self.outputs:
            node.output[0] = f"{made}/image"
        self.images.add(node.output[0])
        self.nodes.append(node)
        if made in self.outputs:
            self._add("Squeeze", node.output[0], made, node)
            self.flat[node.output[0]] = made

    def _as_image(self, name: str, node: NodeProto) -> str:
        if name in self.images:
            return name
        if name not in self.raised:
            self.raised[name] = f"{name}/image"
            self._add("Unsqueeze", name, self.raised[name], node)
        return self.raised[name]

    def _flattened(self, name: str, node: NodeProto) -> str:
        if name not in self.images or name in self.constants:
            return name
        if name not in self.flat:
            self.flat[name] = f"{name}/flat"
            self._add("Squeeze", name, self.flat[name], node)
        return self.flat[name]

    def _add(self, operator: str, name: str, made: str, like: NodeProto) -> None:
        """Change the rank of a tensor, in the submodule to which the node ``like`` belongs."""
        added = helper.make_node(operator, [name, HEIGHT], [made], made)
        added.metadata_props.extend(like.metadata_props)
        self.nodes.append(added)


def _convolves(node: NodeProto) -> bool:
    """True for a convolution over one dimension."""
    own = is_own(node) and node.op_type == "Conv"
    return own and len(attribute(node, "kernel_shape", ())) == 1


def _raise_shape(value: ValueInfoProto) -> None:
    dims = value.type.tensor_type.shape.dim
    old = list(dims)
    del dims[:]
    dims.extend(old[:AXIS])
    dims.add().dim_value = 1
    dims.extend(old[AXIS:])
