"""Which axes of a net's values are one: what has to be reordered together for nothing to change.

The channels that a convolution gives are those that its normalisation scales and that the next
layers read; around a shortcut they are those of both branches. `torch.fx` follows the net, one
batch says how large everything is. An axis that leaves the net, comes from outside, or meets code
whose effect on it is not known here, is fixed.
"""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from presplit.train.nets.calling import evaluating

Axes = tuple["Axis | None", ...]
"""The axis of each dimension of a tensor; None for a dimension of one that spreads over another."""

SAME = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Sigmoid, nn.Tanh, nn.Mish, nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout1d),
    *(nn.Dropout2d, nn.AlphaDropout, nn.Softmax),
)
"""Modules that treat all entries alike."""
POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
ELEMENTWISE: tuple[Any, ...] = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.iadd, operator.imul),
    *(torch.add, torch.sub, torch.mul, torch.relu, torch.sigmoid, torch.tanh, torch.square),
    *(torch.clamp, F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.sigmoid, F.tanh, F.dropout),
    *(F.leaky_relu, F.elu, F.softplus, F.mish),
    *("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "clamp", "contiguous", "add_"),
    *("float", "clone", "relu_", "mul_"),
)
POOLED: tuple[Any, ...] = (
    *(F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d),
)
RESHAPES: tuple[Any, ...] = (
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze),
    *("flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze"),
)
SIZES: tuple[Any, ...] = (getattr, operator.getitem, operator.floordiv, "size", "dim")
"""What says how large a tensor is, if it gives no tensor."""
SUMS: tuple[Any, ...] = (torch.mean, torch.sum, torch.amax, "mean", "sum", "amax")


@dataclass(eq=False)
class Axis:
    """A set of dimensions that are one, and the dimensions of values that have it.

    ``values``: (name of a value in the net, its dimension). ``fixed``: it must not be reordered.
    """

    size: int
    fixed: bool = False
    values: list[tuple[str, int]] = field(default_factory=lambda: list[tuple[str, int]]())
    into: Axis | None = None

    def root(self) -> Axis:
        """The axis that this one has become part of."""
        found = self
        while found.into is not None:
            found = found.into
        return found


def axes_of(model: nn.Module, samples: Tensor) -> dict[tuple[str, int], Axis] | None:
    """The axis of each dimension of the values of ``model``: ``("fc1.weight", 1)`` and so on.

    ``samples``: a batch of inputs, 2 at least. Values that are not found stand in no axis that may
    be reordered. None if the net's code cannot be followed.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> found = axes_of(net, torch.zeros(2, 4))
    >>> found["0.weight", 0] is found["2.weight", 1], found["0.weight", 1].fixed
    (True, True)
    """
    follower, training = _Follower(model), model.training
    for mode in (False, True):  # code that only training runs ties channels too
        try:
            model.train(mode)
            graph = fx.symbolic_trace(model)
            with evaluating(graph), torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                ShapeProp(graph).propagate(samples[:2])
        except Exception:  # a module's own code may raise anything on values that are not there yet
            return None
        finally:
            model.train(training)
        for node in graph.graph.nodes:
            follower.follow(node)
    return {key: axis.root() for key, axis in follower.of_value.items()}


class _Follower:
    """Goes through a graph in running order, and joins axes."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self.parameters |= dict(model.named_buffers(remove_duplicate=False))
        self.of_node: dict[fx.Node, Axes] = {}
        self.of_value: dict[tuple[str, int], Axis] = {}
        self._names = {id(value): name for name, value in reversed(self.parameters.items())}

    def follow(self, node: fx.Node) -> None:
        """The axes of what ``node`` gives."""
        shape = _shape(node)
        if shape is None:
            if node.target not in SIZES:
                self._fix(node)
            return
        try:
            found = self._known(node, shape)
        except (IndexError, KeyError, TypeError):  # called in a way that is not known here
            found = None
        if found is None:
            self._fix(node)
            found = tuple(Axis(size, fixed=True) for size in shape)
        self.of_node[node] = found

    def _known(self, node: fx.Node, shape: Sequence[int]) -> Axes | None:
        """The axes of what ``node`` gives, if its effect on them is known."""
        if node.op == "get_attr":
            return self._attribute(str(node.target), shape)
        if node.op == "call_module":
            return self._module(node, self.modules[str(node.target)], str(node.target), shape)
        if node.op in ("call_function", "call_method"):
            return self._function(node, shape)
        return None

    def _fix(self, node: fx.Node) -> None:
        """What ``node`` reads stays in its order, and so do the values of its module."""
        for read in node.all_input_nodes:
            for axis in self.of_node.get(read, ()):
                if axis is not None:
                    axis.root().fixed = True
        if node.op != "call_module":
            return
        prefix = f"{node.target}."
        for name in [each for each in self.parameters if each.startswith(prefix)]:
            for place, size in enumerate(self.parameters[name].shape):
                if size > 1:
                    self._value(name, place, None).fixed = True

    def _value(self, name: str, dimension: int, axis: Axis | None) -> Axis:
        """The axis of a value's dimension, which is ``axis`` too; shared values are one."""
        value = self.parameters[name]
        key = (self._names.get(id(value), name), dimension)
        if key not in self.of_value:
            made = Axis(value.shape[dimension])
            made.values.append(key)
            self.of_value[key] = made
        own = self.of_value[key]
        return own.root() if axis is None else _joined(own, axis)

    def _attribute(self, name: str, shape: Sequence[int]) -> Axes | None:
        if name not in self.parameters:
            return None
        return tuple(
            None if size == 1 else self._value(name, place, None)
            for place, size in enumerate(shape)
        )

    def _read(self, node: fx.Node) -> Axes:
        """The axes of the first thing that ``node`` reads."""
        return self.of_node[node.all_input_nodes[0]]

    def _module(
        self, node: fx.Node, module: nn.Module, name: str, shape: Sequence[int]
    ) -> Axes | None:
        read = self._read(node)
        if isinstance(module, SAME):
            return read
        if isinstance(module, POOLS):
            return self._images(read, shape, channels=read[1])
        if isinstance(module, NORMS) or type(module) is nn.LayerNorm:
            return self._normalised(module, name, read)
        if isinstance(module, nn.Linear):
            out = self._layer(module, name, read[-1])
            return (*read[:-1], out)
        if isinstance(module, CONVOLUTIONS):
            return self._convolution(module, name, read, shape)
        if isinstance(module, nn.Flatten | nn.Unflatten):
            return self._reshaped(read, _sizes(node.all_input_nodes[0]), shape)
        return None

    def _layer(self, layer: nn.Module, name: str, read: Axis | None) -> Axis:
        """The axis of a layer's outputs."""
        self._value(f"{name}.weight", 1, read)
        out = self._value(f"{name}.weight", 0, None)
        if getattr(layer, "bias", None) is not None:
            out = self._value(f"{name}.bias", 0, out)
        return out

    def _convolution(self, layer: Any, name: str, read: Axes, shape: Sequence[int]) -> Axes | None:
        if layer.groups == 1:
            return self._images(read, shape, channels=self._layer(layer, name, read[1]))
        if layer.groups == layer.in_channels == layer.out_channels:
            channels = self._value(f"{name}.weight", 0, read[1])
            if layer.bias is not None:
                channels = self._value(f"{name}.bias", 0, channels)
            return self._images(read, shape, channels=channels)
        return None

    def _images(self, read: Axes, shape: Sequence[int], *, channels: Axis | None) -> Axes:
        """What moves over places, which keep their order."""
        for axis in read[2:]:
            if axis is not None:
                axis.root().fixed = True
        return (read[0], channels, *(Axis(size, fixed=True) for size in shape[2:]))

    def _normalised(self, module: Any, name: str, read: Axes) -> Axes | None:
        over = 1 if isinstance(module, NORMS) else len(read) - 1
        if over != 1 and len(module.normalized_shape) != 1:
            return None
        for part in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, part, None) is not None:
                self._value(f"{name}.{part}", 0, read[over])
        return read

    def _function(self, node: fx.Node, shape: Sequence[int]) -> Axes | None:
        if node.target in ELEMENTWISE:
            return self._elementwise(node, shape)
        tensors = [each for each in node.all_input_nodes if each in self.of_node]
        if len(tensors) != 1:
            return None
        read = self.of_node[tensors[0]]
        if node.target in POOLED:
            return self._images(read, shape, channels=read[1])
        if node.target in RESHAPES:
            return self._reshaped(read, _sizes(tensors[0]), shape)
        if node.target in (torch.transpose, "transpose"):
            return _swapped(node, read)
        if node.target in (torch.permute, "permute"):
            order = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
            return tuple(read[place] for place in order)  # type: ignore[index]
        if node.target in SUMS:
            return self._summed(node, read, shape)
        return None

    def _elementwise(self, node: fx.Node, shape: Sequence[int]) -> Axes:
        """Tensors of which every entry meets those at its own place."""
        found: list[Axis | None] = [None] * len(shape)
        for read in node.all_input_nodes:
            axes = self.of_node.get(read, ())
            for back in range(1, len(axes) + 1):
                axis, other = axes[-back], found[-back]
                if axis is None or axis.size != shape[-back]:
                    continue
                found[-back] = axis if other is None else _joined(other, axis)
        return tuple(found)

    def _reshaped(self, read: Axes, before: Sequence[int], shape: Sequence[int]) -> Axes:
        """Dimensions that stay whole keep their axis; what is merged or split is fixed."""
        found: list[Axis | None] = [None] * len(shape)
        wide = [place for place, size in enumerate(before) if size > 1]
        made = [place for place, size in enumerate(shape) if size > 1]
        for old, new in _runs([before[k] for k in wide], [shape[k] for k in made]):
            if len(old) == len(new) == 1:
                found[made[new[0]]] = read[wide[old[0]]]
                continue
            for place in old:
                axis = read[wide[place]]
                if axis is not None:
                    axis.root().fixed = True
            for place in new:
                found[made[place]] = Axis(shape[made[place]], fixed=True)
        return tuple(found)

    def _summed(self, node: fx.Node, read: Axes, shape: Sequence[int]) -> Axes | None:
        """The sum over some dimensions; any order of them gives the same."""
        over = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        if over is None:
            return None
        gone = {place % len(read) for place in (over if isinstance(over, tuple | list) else [over])}  # type: ignore[operator,union-attr]
        kept = len(shape) == len(read)
        return tuple(
            None if place in gone else axis
            for place, axis in enumerate(read)
            if kept or place not in gone
        )


def _joined(one: Axis, other: Axis) -> Axis:
    """Both as one axis."""
    one, other = one.root(), other.root()
    if one is not other:
        if one.size != other.size:
            one.fixed = other.fixed = True
            return one
        one.fixed = one.fixed or other.fixed
        one.values += other.values
        other.into = one
    return one


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of what ``node`` gives, if that is one tensor."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def _sizes(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node that gives one tensor."""
    found = _shape(node)
    assert found is not None
    return found


def _swapped(node: fx.Node, read: Axes) -> Axes | None:
    one, other = node.args[1], node.args[2]
    if not isinstance(one, int) or not isinstance(other, int):
        return None
    found = list(read)
    found[one], found[other] = found[other], found[one]
    return tuple(found)


def _runs(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[range, range]]:
    """The shortest runs of dimensions that hold as many entries before and after a reshape.

    >>> list(_runs((2, 3, 4), (2, 12)))
    [(range(0, 1), range(0, 1)), (range(1, 3), range(1, 2))]
    """
    old = new = 0
    while old < len(before):
        first, begin, have, made = old, new, before[old], after[new]
        old, new = old + 1, new + 1
        while have != made:
            if have < made:
                have, old = have * before[old], old + 1
            else:
                made, new = made * after[new], new + 1
        yield range(first, old), range(begin, new)
