"""Reading an ONNX classifier into a value that can be counted and cut.

One input, its first axis the batch; one output for each exit, the net's own logits last. What files
say in several ways is brought into one form (`presplit.graph.tidy`), a batch that the file fixes is
opened (`presplit.graph.batch`), and what is computed from shapes alone is settled
(`presplit.graph.sizes`), so that no path carries the batch's size around a boundary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, shape_inference

from presplit.core.errors import GraphError
from presplit.graph.batch import fixed_batch, opened
from presplit.graph.classical import TAKEN, unknown
from presplit.graph.file import Source, parse
from presplit.graph.outputs import ML, class_names, kept
from presplit.graph.probe import probed_at, skeleton
from presplit.graph.sizes import BATCH, Shape, settle
from presplit.graph.tidy import NUMBERS, tidy
from presplit.graph.walk import attribute, bodies, every, graphs, needs, operator

_onnx: Any = onnx  # some of its signatures name a bare PathLike, which strict typing does not know


FIT_FLOAT32 = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16),
        *(TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16),
    }
)
"""Types of which every number is a float32 too."""


STEPS: dict[int, float] = {
    TensorProto.FLOAT: 2.0**-24,
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
}
"""Half the distance from 1 to the next number, by type."""


@dataclass(frozen=True)
class Graph:
    """An ONNX classifier with what is needed to cut it.

    ``shapes`` maps tensors to their shape with None for the batch; an axis that holds several rows
    for each sample has their number, and a tensor whose shape cannot be told is left out. ``types``
    are ONNX's numbers of element types. ``outputs`` are the exits in order, the net's own logits
    last; ``nodes`` are in the order in which they run.
    """

    model: ModelProto
    input: str
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    types: Mapping[str, int]

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """All nodes, each after the nodes that it needs; those that tell the batch's size aside."""
        return tuple(node for node in self.model.graph.node if not node.output[0].startswith(BATCH))

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Constant tensors by name, those of bodies included."""
        return {
            tensor.name: tensor
            for graph in graphs(self.model.graph)
            for tensor in graph.initializer
        }

    @cached_property
    def producer(self) -> dict[str, NodeProto]:
        """The node that makes each tensor, those of bodies included."""
        inner = [body for node in self.nodes for outer in bodies(node) for body in graphs(outer)]
        steps = [*self.nodes, *(node for body in inner for node in body.node)]
        return {name: node for node in steps for name in node.output if name}

    @cached_property
    def live(self) -> frozenset[str]:
        """Tensors that depend on the input's values, those of bodies included."""
        found = {self.input}
        _spread(self.nodes, found)
        return frozenset(found - {""})

    @cached_property
    def input_type(self) -> str:
        """The type that the net takes its input as, such as ``float32``, ``uint8`` or ``int64``.

        The input itself is float32; if all that reads it casts it, this is what to.
        """
        readers = [node for node in self.nodes if self.input in needs(node)]
        kinds = {
            attribute(node, "to", None) if node.op_type == "Cast" else None for node in readers
        }
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is None or kind == TensorProto.FLOAT:
            return "float32"
        return TensorProto.DataType.Name(kind).lower()

    @cached_property
    def rounding(self) -> float:
        """The coarsest relative step of the floating-point numbers that the net computes in.

        2 ** -24 for float32, 2 ** -11 for float16, 2 ** -8 for bfloat16. Engines leave some of the
        roundings to float16 out, so two runs of such a net agree no better than this.
        """
        kinds = {self.types[name] for name in self.live if name in self.types}
        return max((STEPS[kind] for kind in kinds if kind in STEPS), default=2.0**-24)

    def ancestors(self, tensor: str) -> frozenset[str]:
        """Every tensor, constants included, that ``tensor`` is computed from, itself included."""
        seen: set[str] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                if name in self.producer:
                    waiting.extend(needs(self.producer[name]))
        return frozenset(seen)

    def batch_first(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of one sample, or None if ``tensor`` does not have the batch in front.

        The batch must be its only open axis, and its numbers must fit into float32.
        """
        shape = self.shapes.get(tensor, ())
        sample = tuple(size for size in shape[1:] if size is not None)
        fixed = len(shape) >= 2 and len(sample) == len(shape) - 1 and all(n > 0 for n in sample)
        fits = self.types.get(tensor) in FIT_FLOAT32
        return sample if fits and fixed and shape[:1] == (None,) else None

    def is_float32(self, tensor: str) -> bool:
        """True if the numbers of ``tensor`` are float32 itself."""
        return self.types.get(tensor) == TensorProto.FLOAT

    def untold(self) -> NodeProto | None:
        """The first node whose operands' shapes are told and whose own result's is not."""
        for node in self.nodes:
            told = [name in self.shapes or name in self.initializers for name in node.input if name]
            if node.output[0] in self.live and node.output[0] not in self.shapes and all(told):
                return node
        return None


def _spread(nodes: Iterable[NodeProto], found: set[str]) -> None:
    """Add to ``found`` what ``nodes`` compute from it."""
    for node in nodes:
        reached = any(name in found for name in needs(node))
        for body in bodies(node):
            if reached:  # a trip's state and its part of what is scanned
                found.update(value.name for value in body.input)
            _spread(body.node, found)
        if reached:
            found.update(node.output)


def read(
    source: Source, *, outputs: Sequence[str] = (), probabilities: Sequence[str] = ()
) -> Graph:
    """Read an ONNX classifier from a file, its bytes or a model.

    ``outputs``: those to keep, early exits first and the net's own logits last; all of them if none
    are named. ``probabilities``: which of them become their logarithms, because they are
    probabilities. Raises `GraphError` if it is not a classifier.

    >>> from onnx import parser
    >>> text = '''<ir_version: 10, opset_import: ["": 20]>
    ...     net (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }'''
    >>> read(parser.parse_model(text)).shapes["y"]
    (None, 4)
    """
    model, where = parse(source)
    model = kept(model, outputs, where)
    with _valid(where):
        model = _checked(model, probabilities)
    _refuse_unknown(model, where)
    given = _one_input(model, where)
    with _valid(where):
        shape_inference.infer_shapes(skeleton(model), strict_mode=True, data_prop=True)
    fixed = fixed_batch(model)
    as_given = model
    with _opens(fixed, where):
        model = model if fixed is None else opened(model, fixed)
        shapes, types = settle(model)
    outputs = tuple(value.name for value in model.graph.output)
    graph = Graph(model, given.name, outputs, shapes, types)
    if fixed is not None:
        _check_opened(graph, as_given, fixed, where)
    for name in graph.outputs:
        _check_output(graph, name, fixed, where)
    return graph


def load(
    source: Source, *, outputs: Sequence[str] = (), probabilities: Sequence[str] = ()
) -> ModelProto:
    """The model as it computes before it is opened and cut, in one form (`presplit.graph.tidy`).

    It takes float32 and gives logits, whatever the file's own types are; the arguments are those of
    `read`. Raises `GraphError` if it is not valid.
    """
    model, where = parse(source)
    model = kept(model, outputs, where)
    with _valid(where):
        return _checked(model, probabilities)


def classes_of(source: Source, count: int) -> tuple[str, ...]:
    """What the file calls its ``count`` classes; nothing if it does not say it."""
    return class_names(parse(source)[0], count)


def _checked(model: ModelProto, probabilities: Sequence[str] = ()) -> ModelProto:
    for each in (*every(model.graph.node), *model.opset_import):
        if each.domain == "ai.onnx":  # both are names of ONNX's own, and its checker knows one
            each.domain = ""
    _onnx.checker.check_model(model)
    return tidy(model, probabilities=probabilities)


def _refuse_unknown(model: ModelProto, where: str) -> None:
    """Raise `GraphError` for operators that run on one processor only, or are not taken."""
    classical = unknown(model)
    if classical:
        raise GraphError(
            f"{where}: the operator {classical} of {ML} is not taken; of these there are "
            f"{', '.join(TAKEN)}, and nets of ONNX's own operators"
        )
    if any(node.domain == "com.microsoft.nchwc" for node in every(model.graph.node)):
        raise GraphError(
            f"{where}: ONNX Runtime has optimised it for one kind of processor; give the file that "
            "it was made of, or optimise at level ORT_ENABLE_EXTENDED"
        )


@contextlib.contextmanager
def _valid(where: str) -> Generator[None]:
    """Turn what onnx raises for a file that is not valid into one sentence."""
    try:
        yield
    except (
        *(onnx.checker.ValidationError, shape_inference.InferenceError),
        *(ValueError, TypeError, RuntimeError, IndexError, KeyError),  # its other parts raise those
    ) as error:
        raise GraphError(f"{where}: not a valid ONNX model: {_first_line(error)}") from error


@contextlib.contextmanager
def _opens(fixed: int | None, where: str) -> Generator[None]:
    """Say that a batch cannot be opened, if that is why shapes no longer fit."""
    if fixed is None:
        with _valid(where):
            yield
        return
    try:
        yield
    except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
        reason = f"nodes inside hold it too ({_first_line(error)})"
        raise GraphError(_held(fixed, where, reason)) from error


def _held(batch: int, where: str, reason: str) -> str:
    return (
        f"{where}: its batch is fixed to {batch}, and it cannot be opened because {reason}; export "
        "the net with a dynamic batch"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _one_input(model: ModelProto, where: str) -> ValueInfoProto:
    """The model's input; raises `GraphError` unless it is one of numbers, its sizes known."""
    inputs = model.graph.input
    if len(inputs) != 1:
        raise GraphError(
            f"{where}: a classifier with one input is expected, got "
            f"{[value.name for value in inputs]}"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in NUMBERS:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise GraphError(f"{where}: input {inputs[0].name!r} must hold numbers, got {kind}")
    sizes = [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim]
    if len(sizes) < 2 or not all(sizes[1:]):
        raise GraphError(
            f"{where}: input {inputs[0].name!r} must have the batch first and all other sizes "
            f"fixed, got {sizes}; export the net with fixed sizes"
        )
    return inputs[0]


def _check_opened(graph: Graph, as_given: ModelProto, fixed: int, where: str) -> None:
    """Raise `GraphError` if a node gives no shape any more since the batch is open."""
    node = graph.untold()
    if node is not None and node.output[0] in probed_at(as_given, fixed).shapes:
        raise GraphError(_held(fixed, where, f"{operator(node)} {node.output[0]!r} holds it too"))


def _check_output(graph: Graph, name: str, fixed: int | None, where: str) -> None:
    """Raise `GraphError` unless an output is logits that depend on the input."""
    shape = graph.shapes.get(name)
    if fixed is not None and name in graph.live and (shape or (None,))[0] is not None:
        raise GraphError(_held(fixed, where, f"output {name!r} holds it too"))
    if shape is None:
        cause = graph.untold()
        what = f"output {name!r}" if cause is None else f"{operator(cause)} {cause.output[0]!r}"
        raise GraphError(
            f"{where}: the shape that {what} gives cannot be told; export the net with all sizes "
            "but the batch fixed"
        )
    numbers = graph.is_float32(name) and name in graph.live
    if numbers and shape in ((None,), (None, 1)):
        raise GraphError(
            f"{where}: output {name!r} gives one number for each sample, and a classifier of two "
            "classes needs two logits; join 0 and the logit before the sigmoid along axis 1, or "
            "export the net with two outputs"
        )
    sample = graph.batch_first(name)
    logits = sample is not None and len(sample) == 1
    if not logits or not numbers:
        raise GraphError(
            f"{where}: output {name!r} must be float32 logits (batch, classes) of the input, got "
            f"{_said(graph, name)}"
        )


def _said(graph: Graph, name: str) -> str:
    kind = TensorProto.DataType.Name(graph.types.get(name, 0)).lower()
    sizes = ["batch" if size is None else str(size) for size in graph.shapes[name]]
    return f"{kind}[{', '.join(sizes)}]" + ("" if name in graph.live else " that is constant")
