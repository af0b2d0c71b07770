"""Grouped convolutions as int8 kernels like them: groups that are not too narrow.

For each group ONNX Runtime's int8 convolution copies its part of the image and multiplies a matrix;
a dense one does neither. At 64 channels and 16 in a group (3 x 3, 32 x 32) that takes twice as long
as the dense convolution, although it multiplies a quarter (docs/forms.md has the times). So narrow
groups are joined, the connections between them being zeros, which int8 holds exactly; and where one
group is left, the permutation of channels before it goes into its weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from presplit.graph.walk import attribute, needs, operator

NARROW = 32
"""Channels that a group reads, at least; below, the work for each group costs more than zeros."""
TWO_NARROW = 64
"""Two groups narrower than this are slower than one."""


def regrouped(model: ModelProto, channels: Mapping[str, int], kept: Collection[str]) -> ModelProto:
    """``model``, changed in place: narrow groups of its convolutions are joined.

    ``channels``: the size of axis 1 of tensors; ``kept``: those that must stay. Depthwise
    convolutions stay as they are, because they have kernels of their own.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    gone: list[NodeProto] = []
    for node in graph.node:
        if operator(node) != "Conv" or node.input[1] not in constants:
            continue
        groups = attribute(node, "group", 1)
        weight = numpy_helper.to_array(constants[node.input[1]])
        joined = _together(groups, weight.shape[1])
        if joined > 1:
            weight = _joined(weight, groups, joined)
            _set_groups(node, groups // joined)
        moved = producers.get(node.input[0])
        order = None
        if moved is not None and moved.output[0] not in kept and groups == joined:
            order = _permutation(moved, constants, channels)
        if moved is not None and order is not None:
            weight = weight[:, np.argsort(order)]
            node.input[0] = moved.input[0]
            gone.append(moved)
        if joined > 1 or order is not None:
            name = f"{node.output[0]}/regrouped"
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight), name))
            node.input[1] = name
    _drop_unread(model, gone)
    return model


def _together(groups: int, channels: int) -> int:
    """How many groups of so many ``channels`` become one.

    >>> _together(8, 16), _together(4, 16), _together(4, 32), _together(64, 1), _together(1, 64)
    (2, 4, 1, 1, 1)
    """
    if groups == 1 or channels == 1:
        return 1
    enough = [n for n in range(1, groups + 1) if groups % n == 0 and n * channels >= NARROW]
    joined = enough[0] if enough else groups
    if groups // joined == 2 and joined * channels < TWO_NARROW:
        return groups
    return joined


def _joined(weight: npt.NDArray[np.float32], groups: int, joined: int) -> npt.NDArray[np.float32]:
    """The same weights where ``joined`` groups are one; new connections are zero."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    wide = np.zeros((weight.shape[0], inputs * joined, *weight.shape[2:]), weight.dtype)
    for number in range(groups):
        rows = slice(number * outputs, (number + 1) * outputs)
        start = number % joined * inputs
        wide[rows, start : start + inputs] = weight[rows]
    return wide


def _set_groups(node: NodeProto, groups: int) -> None:
    for each in node.attribute:
        if each.name == "group":
            each.i = groups


def _permutation(
    node: NodeProto, constants: Mapping[str, TensorProto], channels: Mapping[str, int]
) -> npt.NDArray[np.int64] | None:
    """The order in which ``node`` puts all channels, if that is what it does."""
    if operator(node) != "Gather" or attribute(node, "axis", 0) != 1:
        return None
    if node.input[1] not in constants:
        return None
    order = numpy_helper.to_array(constants[node.input[1]])
    in_order = np.arange(channels.get(node.input[0], 0))
    if order.ndim != 1 or not np.array_equal(np.sort(order), in_order):
        return None
    return order.astype(np.int64)


def _drop_unread(model: ModelProto, moves: list[NodeProto]) -> None:
    """Take out those of ``moves`` that nobody reads any more, and constants without a reader."""
    graph = model.graph
    read = {name for node in graph.node for name in needs(node)}
    read |= {value.name for value in graph.output}
    left = [node for node in graph.node if node not in moves or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(left)
    read = {name for node in left for name in needs(node)}
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
