"""A float32 net in int8: QuantizeLinear and DequantizeLinear are written around what multiplies.

The form is that of ONNX Runtime's static quantisation (QDQ): activations in uint8, one scale for a
tensor, seen on held-out samples; weights in int8, symmetric, one scale for each output channel;
biases in int32. Convolutions work in it from end to end, with what stands between them: additions,
rectifiers, pools, and what only moves data. Products with fixed weights read int8 and give float32.
All else, such as LayerNormalization, Softmax and Gelu, stays float32.

Two choices differ from the library's own quantiser. Weights have 7 bits: without VNNI the products
of x86 add two neighbours in 16 bits, which 8-bit weights overflow; so every processor gives the
same numbers, and an accuracy that was measured on one holds on all. And an addition is quantised
only where all that it adds is, so that the residual stream of a transformer keeps its precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from presplit.core.encoding import Seen
from presplit.core.errors import GraphError
from presplit.graph.walk import attribute, needs, operator

OPSET = 13
"""The first opset whose DequantizeLinear has a scale for each channel."""
CODES = 255
"""The largest code of an activation."""
WEIGHTS = 64
"""The largest code of a weight: 2 * 255 * 64 is still below 2**15."""
BIASES = 2**31 - 1
"""The largest code of a bias."""

MOVERS = frozenset(
    {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Split", "MaxPool"}
)
"""Operators that give numbers which they were given: their results keep the scale."""
RECTIFIERS = frozenset({"Relu", "Clip"})
"""Operators that ONNX Runtime leaves to the rounding after them."""
JOINERS = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"})
"""Operators that compute in int8 where everything that they read is int8."""


@dataclass(frozen=True)
class Scale:
    """How an activation is coded: ``code = round(value / scale) + zero_point``, in uint8."""

    scale: np.float32
    zero_point: np.uint8

    @classmethod
    def of(cls, seen: Seen) -> Scale:
        """256 steps over the range seen, widened to hold 0, which stays exact."""
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        scale = max((high - low) / CODES, 2.0**-100) if high > low else 1.0
        return cls(np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, CODES)))

    @property
    def reach(self) -> Seen:
        """The range from the least code to the largest; `of` it gives this scale again."""
        low = -float(self.zero_point) * float(self.scale)
        return Seen(low, low + CODES * float(self.scale))


def quantised(
    model: ModelProto, seen: Mapping[str, Seen], scales: dict[str, Scale] | None = None
) -> ModelProto:
    """``model`` in int8; ``seen`` has the range of every float32 tensor of it.

    ``scales``, if given, is filled with the scale of each tensor that is coded now: ``T`` is
    followed by its codes, ``T/codes``. Raises `GraphError` if nothing of it can be quantised.
    """
    version = next((each.version for each in model.opset_import if not each.domain), 0)
    if version < OPSET:
        raise GraphError(
            f"the net is of opset {version} and int8 needs {OPSET} or later; export it again"
        )
    return _Quantising(model, seen, {} if scales is None else scales).run()


class _Quantising:
    """What is known of a model while it is gone through."""

    def __init__(
        self, model: ModelProto, seen: Mapping[str, Seen], scales: dict[str, Scale]
    ) -> None:
        self.model, self.seen, self.scales = model, seen, scales
        self.graph = model.graph
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in needs(node):
                self.readers.setdefault(name, []).append(node)
        self.worked: set[str] = set()
        """What operators in int8 give, whether it is rounded at once or only after a rectifier."""
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def run(self) -> ModelProto:
        """The model in int8."""
        multiplying = [node for node in self.graph.node if self._multiplies(node)]
        if not multiplying:
            raise GraphError(
                "none of its operators can be quantised: int8 is for convolutions, and for "
                "products with fixed weights"
            )
        wanted = self._read_in_codes(multiplying)
        chosen = self._given_in_codes(wanted)
        for value in self.graph.input:
            self._code(value.name, chosen)
        for node in self.graph.node:
            self._write(node, chosen)
        made = ModelProto()
        made.CopyFrom(self.model)
        del made.graph.node[:], made.graph.initializer[:], made.graph.value_info[:]
        made.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in needs(node)}
        kept = [tensor for name, tensor in self.weights.items() if name in used]
        made.graph.initializer.extend([*kept, *self.constants.values()])
        return made

    def _multiplies(self, node: NodeProto) -> bool:
        """True for a product of a float32 activation with fixed weights that runs in int8."""
        kind = operator(node)
        if kind not in ("Conv", "Gemm", "MatMul") or node.input[0] not in self.seen:
            return False
        fixed = all(name in self.weights for name in node.input[1:] if name)
        plain = all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not fixed or not plain or attribute(node, "transA", 0):
            return False
        weight = self.weights[node.input[1]]
        return weight.data_type == TensorProto.FLOAT and (kind == "Conv" or len(weight.dims) == 2)

    def _read_in_codes(self, multiplying: list[NodeProto]) -> set[str]:
        """What products read, and what that is moved from."""
        wanted = {node.input[0] for node in multiplying}
        for node in reversed(self.graph.node):
            if operator(node) in MOVERS and wanted & set(node.output):
                wanted.add(node.input[0])
        return {name for name in wanted if name in self.seen and name not in self.weights}

    def _given_in_codes(self, wanted: set[str]) -> dict[str, str]:
        """The tensors that get codes, each with the one whose range counts for it."""
        chosen = {name: name for name in wanted}
        for node in self.graph.node:
            kind = operator(node)
            result = node.output[0]
            read = [name for name in node.input if name and name not in self.weights]
            ready = bool(read) and all(name in chosen or name in self.worked for name in read)
            if kind in MOVERS and node.input[0] in chosen:
                owner = chosen[node.input[0]]
                chosen.update({name: owner for name in node.output if name in self.seen})
                self.worked.update(node.output)
            elif (kind == "Conv" and self._multiplies(node)) or (
                ready and (kind in RECTIFIERS or (kind in JOINERS and len(read) == len(node.input)))
            ):
                self.worked.add(result)
                if not self._only_rectified(result):
                    chosen.setdefault(result, result)
        return {
            name: owner
            for name, owner in chosen.items()
            if name not in self.outputs and name in self.seen
        }

    def _only_rectified(self, name: str) -> bool:
        readers = self.readers.get(name, [])
        single = len(readers) == 1 and name not in self.outputs
        return single and operator(readers[0]) in RECTIFIERS

    def _write(self, node: NodeProto, chosen: Mapping[str, str]) -> None:
        """``node``, reading codes where there are some, and the codes of what it gives."""
        copy = NodeProto()
        copy.CopyFrom(node)
        if self._multiplies(node) and node.input[0] in chosen:
            self._weigh(copy, chosen)
        in_int8 = self._multiplies(node) or node.output[0] in self.worked
        for place, name in enumerate(node.input):
            # What stays float32 loses nothing to codes that only a product needs.
            if name in self.scales and (in_int8 or name in self.worked):
                copy.input[place] = f"{name}/decoded"
        self.nodes.append(copy)
        for name in node.output:
            self._code(name, chosen)

    def _code(self, name: str, chosen: Mapping[str, str]) -> None:
        """Write the codes of ``name``, and what they say, if it is one of those chosen."""
        if name not in chosen:
            return
        scale = Scale.of(self.seen[chosen[name]])
        self.scales[name] = scale
        given = [self._constant(f"{name}/scale", scale.scale)]
        given.append(self._constant(f"{name}/zero", scale.zero_point))
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, *given], [f"{name}/codes"]),
            helper.make_node("DequantizeLinear", [f"{name}/codes", *given], [f"{name}/decoded"]),
        ]

    def _weigh(self, node: NodeProto, chosen: Mapping[str, str]) -> None:
        """Let ``node`` read its weights in int8 and its bias, if it has one, in int32."""
        weight = numpy_helper.to_array(self.weights[node.input[1]]).astype(np.float64)
        axis = 0 if operator(node) == "Conv" or attribute(node, "transB", 0) else 1
        others = tuple(place for place in range(weight.ndim) if place != axis)
        scale = np.maximum(np.abs(weight).max(others) / WEIGHTS, 2.0**-100)
        reads = float(Scale.of(self.seen[chosen[node.input[0]]]).scale)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            bias = numpy_helper.to_array(self.weights[node.input[2]]).astype(np.float64)
            bias = np.broadcast_to(bias.reshape(-1), scale.shape)
            # A bias far above its weights would pass the range of its codes.
            scale = np.maximum(scale, 1.001 * np.abs(bias) / BIASES / reads)
        scale = scale.astype(np.float32)
        along = [1] * weight.ndim
        along[axis] = -1
        codes = np.rint(weight / scale.astype(np.float64).reshape(along))
        prefix = f"{node.output[0]}/weights"
        node.input[1] = self._decoded(prefix, codes.astype(np.int8), scale, axis)
        if bias is not None:
            steps = (np.float32(reads) * scale).astype(np.float32)
            codes = np.rint(bias / steps.astype(np.float64)).astype(np.int32)
            node.input[2] = self._decoded(f"{node.output[0]}/bias", codes, steps, 0)

    def _decoded(
        self, prefix: str, codes: npt.NDArray[Any], scale: npt.NDArray[np.float32], axis: int
    ) -> str:
        """The tensor that a constant's codes stand for."""
        zero = np.zeros(scale.shape, codes.dtype)
        given = [
            self._constant(f"{prefix}/{name}", value)
            for name, value in (("codes", codes), ("scale", scale), ("zero", zero))
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", given, [prefix], axis=axis))
        return prefix

    def _constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
