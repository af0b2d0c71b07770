"""Where a net can be cut: the tensors through which all that comes later must pass.

A tensor is such a place if every path from the input to the logits runs through it, which holds
exactly when the paths from the input to it, times the paths from it to the logits, are all paths
there are. Skip connections need no care: nothing inside a residual block passes the test. Of places
with no multiplication between them only the smallest is kept, and those that an exit hangs on. (The
natural bottlenecks of arXiv 2205.11269 are those of these boundaries that are smaller than all
before them.)
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from presplit.core.errors import GraphError
from presplit.core.types import Boundary, Exit, Net
from presplit.graph.count import count_macs
from presplit.graph.outputs import likeliest
from presplit.graph.read import Graph
from presplit.graph.walk import needs, rename


@dataclass(frozen=True)
class Row:
    """A graph seen as a row of segments.

    It holds the net, the tensor at each boundary, and the logits of each exit.
    """

    graph: Graph
    net: Net
    tensors: tuple[str, ...]
    logits: tuple[str, ...]


def row(graph: Graph, exit_names: Sequence[str] | None = None) -> Row:
    """Every legal boundary of ``graph`` and the exits that hang on them.

    ``exit_names`` names the graph's outputs in order (default: their own names, the last one
    ``final``). Raises `GraphError` if an exit does not hang on one boundary or two hang on the
    same, if outputs tell different classes, or if an operator cannot be counted.
    """
    names = tuple(exit_names or (*graph.outputs[:-1], "final"))
    if len(names) != len(graph.outputs):
        raise GraphError(f"the graph has {len(graph.outputs)} outputs, got {len(names)} exit names")
    final = graph.outputs[-1]
    spine = _all_paths_through(graph, final)
    if final not in spine or len(spine) < 2:
        raise GraphError("no path from the input to the logits")
    hangs = [_hanging_place(graph, output, spine) for output in graph.outputs[:-1]]
    tensors = _distinct(graph, spine, keep=hangs)
    shapes = [graph.batch_first(tensor) for tensor in tensors]
    labels = [
        graph.input,
        *_told_apart([label(graph.producer[tensor]) for tensor in tensors[1:-1]]),
        "logits",
    ]
    net_boundaries = tuple(
        Boundary(name, shape) for name, shape in zip(labels, shapes, strict=True) if shape
    )
    after = [*(tensors.index(place) for place in hangs), len(tensors) - 1]
    classes = [graph.shapes[output][1] or 0 for output in graph.outputs]
    count_macs(graph, graph.nodes)  # an operator that nobody counts is refused first
    for output, count in zip(graph.outputs, classes, strict=True):
        if count != classes[-1]:
            raise GraphError(
                f"output {output!r} has {count} classes and the net's own, {final!r}, has "
                f"{classes[-1]}: all exits must tell the same classes; leave some of them out: "
                f"presplit export --from FILE --output {likeliest(graph.outputs)} "
                f"keeps that one; there are {', '.join(map(_counted, graph.outputs, classes))}"
            )
    exits = sorted(zip(after, names, classes, graph.outputs, strict=True))
    if len(set(after)) != len(after):
        raise GraphError(f"exits {list(names)} must hang on different boundaries, got {after}")
    net = Net(net_boundaries, tuple(Exit(name, place, count) for place, name, count, _ in exits))
    carried = _carried(graph, tensors)
    graph = _in_float32(graph, carried)
    tensors = tuple(carried.get(tensor, tensor) for tensor in tensors)
    return Row(graph, net, tensors, tuple(output for *_, output in exits))


def _counted(output: str, classes: int) -> str:
    return f"{output} ({classes})"


def _all_paths_through(graph: Graph, sink: str) -> list[str]:
    """The tensors on every path from the input to ``sink`` that can be cut at, in order."""
    inside = graph.ancestors(sink) & graph.live
    nodes = [node for node in graph.nodes if any(name in inside for name in node.output)]
    from_input = {graph.input: 1}
    for node in nodes:
        paths = sum(from_input.get(name, 0) for name in needs(node))
        from_input.update({name: paths for name in node.output if name in inside})
    to_sink = dict.fromkeys(inside, 0)
    to_sink[sink] = 1
    for node in reversed(nodes):
        paths = sum(to_sink.get(name, 0) for name in node.output)
        for name in needs(node):
            if name in to_sink:
                to_sink[name] += paths
    total = from_input[sink]
    order = [graph.input, *(name for node in nodes for name in node.output)]
    passed = [
        name
        for name in order
        if name in inside and from_input.get(name, 0) * to_sink[name] == total
    ]
    return [name for name in passed if graph.batch_first(name) is not None]


def _hanging_place(graph: Graph, output: str, spine: Sequence[str]) -> str:
    """The last place of the net's own row through which all that ``output`` sees must pass."""
    shared = [name for name in _all_paths_through(graph, output) if name in set(spine)]
    if not shared or shared[-1] == graph.input:
        raise GraphError(
            f"exit {output!r} does not hang on one boundary of the net: tap a place that no skip "
            "passes"
        )
    return shared[-1]


def _distinct(graph: Graph, spine: Sequence[str], *, keep: Sequence[str]) -> tuple[str, ...]:
    """Of neighbouring places without a multiplication between them, the smallest and ``keep``.

    Of equals it is the last, but for those that only move data: the permutation before a sparse
    layer belongs to it.
    """
    spine = [name for name in spine if name in keep or not _is_input_image(graph, name)]
    runs: list[list[str]] = [[spine[0]]]
    for before, tensor in zip(spine, spine[1:], strict=False):
        between = segment_nodes(graph, before, tensor)
        if before != graph.input and count_macs(graph, between) == 0:
            runs[-1].append(tensor)
        else:
            runs.append([tensor])
    chosen: list[str] = []
    for run in runs:
        sizes = {name: _sample_size(graph, name) for name in run}
        smallest = min(sizes.values())
        best = [name for name in run if sizes[name] == smallest]
        best = [
            name
            for name in best
            if name not in graph.producer or not _moves_only(graph.producer[name])
        ] or best
        best = [name for name in best if graph.is_float32(name)] or best
        kept = {name for name in run if name in keep}
        if graph.outputs[-1] in run:
            kept |= {graph.outputs[-1]}
        elif not any(name in kept for name in best):
            kept |= {best[-1]}
        chosen += [name for name in run if name in kept]
    return tuple(chosen)


def _carried(graph: Graph, tensors: Sequence[str]) -> dict[str, str]:
    """New names for the places whose numbers are of another type than float32."""
    return {name: f"{name}/float32" for name in tensors if not graph.is_float32(name)}


def _in_float32(graph: Graph, carried: Mapping[str, str]) -> Graph:
    """``graph`` with the tensors ``carried`` passing through float32, which is exact.

    Boundaries are float32, and a net in float16 or of 8-bit operators has none inside otherwise.
    """
    if not carried:
        return graph
    model = ModelProto()
    model.CopyFrom(graph.model)
    back = {name: f"{name}/back" for name in carried}
    types, shapes = dict(graph.types), dict(graph.shapes)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        made = [name for name in node.output if name in carried]
        rename(node, lambda name, made=made: name if name in made else back.get(name, name))
        nodes.append(node)
        for name in made:
            there = helper.make_node("Cast", [name], [carried[name]], to=TensorProto.FLOAT)
            here = helper.make_node("Cast", [carried[name]], [back[name]], to=types[name])
            nodes += [there, here]
            shapes[carried[name]] = shapes[back[name]] = shapes[name]
            types[carried[name]], types[back[name]] = TensorProto.FLOAT, types[name]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name in carried.values():
        shape = ["batch", *shapes[name][1:]]
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return Graph(model, graph.input, graph.outputs, shapes, types)


def _is_input_image(graph: Graph, tensor: str) -> bool:
    """True for the input with a height, as `as_images` gives it to a first convolution."""
    node = graph.producer.get(tensor)
    return node is not None and node.op_type == "Unsqueeze" and node.input[0] == graph.input


def _moves_only(node: NodeProto) -> bool:
    """True if ``node`` computes nothing new."""
    return node.op_type in {
        "Gather",
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
    }


def segment_nodes(graph: Graph, start: str, stop: str) -> list[NodeProto]:
    """The nodes between two places.

    They are those that lead from ``start`` to ``stop``, and what makes their constants.
    """
    given = graph.ancestors(start)
    inside = (graph.ancestors(stop) & graph.live) - given
    for node in graph.nodes:
        if any(name in inside for name in node.output):
            constants = (name for name in needs(node) if name not in graph.live)
            inside = inside.union(*(graph.ancestors(name) for name in constants))
    return [node for node in graph.nodes if any(name in inside for name in node.output)]


def _sample_size(graph: Graph, tensor: str) -> int:
    size = 1
    for length in graph.batch_first(tensor) or ():
        size *= length
    return size


def _told_apart(labels: Sequence[str]) -> list[str]:
    """A place inside a submodule that ends at another place gets a number after its name.

    >>> _told_apart(["stem", "block", "block"])
    ['stem', 'block/1', 'block']
    """
    left, seen = Counter(labels), Counter[str]()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == left[label] else f"{label}/{seen[label]}")
    return found


def label(node: NodeProto) -> str:
    """The submodule that made a tensor, as torch's exporter notes it, or the tensor's own name."""
    scopes = next(
        (p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]"
    )
    try:
        found = [scope for scope in ast.literal_eval(scopes) if isinstance(scope, str) and scope]
    except (ValueError, SyntaxError):
        found = []
    # "model" is what holds the user's net while it is exported
    modules = [scope for scope in found if scope not in (node.output[0], "model")]
    return modules[-1].removeprefix("model.") if modules else node.output[0]
