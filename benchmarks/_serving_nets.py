"""The nets that a server is loaded with: made by hand, with random weights and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from presplit.bundle import Bundle
from presplit.packing import pack
from presplit.policies import EXITS
from presplit.runtime.engines import DEFAULT, ENGINES

CLASSES = 10
WIDTH = 1024
SIZE = 32
CHANNELS = ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1))
"""The convolutions: channels out, stride."""


class _Graph:
    """A graph that grows from its input ``image``."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, fan_in: int) -> str:
        """An array of random numbers, scaled so that values keep their size."""
        values = self.random.normal(size=shape) * np.sqrt(2 / fan_in)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, name: str = "", **options: object) -> str:
        """The output of one more node, ``name`` if it has one."""
        output = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **options))
        return output

    def model(self, outputs: tuple[str, ...]) -> onnx.ModelProto:
        """All of it as one model."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *self.shape])
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])
            for name in outputs
        ]
        body = helper.make_graph(self.nodes, "net", [image], results, self.weights)
        return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def perceptron(path: Path, *, depth: int = 8) -> Bundle:
    """A perceptron of ``depth`` layers of `WIDTH`; after 1/8 and 1/4 of them it has exits."""
    graph = _Graph((WIDTH,), seed=1)
    values, exits = "image", {max(1, depth // 8): "early", max(2, depth // 4): "middle"}
    for layer in range(1, depth + 1):
        dense = graph.node("Gemm", values, graph.weight(WIDTH, WIDTH, fan_in=WIDTH))
        values = graph.node("Relu", dense)
        if layer in exits:
            graph.node(
                "Gemm", values, graph.weight(WIDTH, CLASSES, fan_in=WIDTH), name=exits[layer]
            )
    graph.node("Gemm", values, graph.weight(WIDTH, CLASSES, fan_in=WIDTH), name="logits")
    names = (*exits.values(), "logits")
    probe = samples(WIDTH, count=2)
    return pack(graph.model(names), path, name="perceptron", exit_names=names, probe=probe)


def convolutions(path: Path, *, wide: int = 1) -> Bundle:
    """Convolutions over images of `SIZE` x `SIZE`, ``wide`` times as wide, the exit ``early``."""
    graph = _Graph((3, SIZE, SIZE), seed=2)
    values, n_in = "image", 3
    for number, (channels, stride) in enumerate(CHANNELS):
        n_out = wide * channels
        weight = graph.weight(n_out, n_in, 3, 3, fan_in=9 * n_in)
        options = {"strides": [stride, stride], "pads": [1, 1, 1, 1]}
        values = graph.node("Relu", graph.node("Conv", values, weight, **options))
        if number == 0:
            _classifier(graph, values, n_out, "early")
        n_in = n_out
    _classifier(graph, values, n_in, "logits")
    names = ("early", "logits")
    probe = samples(3, SIZE, SIZE, count=2)
    return pack(graph.model(names), path, name="convolutions", exit_names=names, probe=probe)


def _classifier(graph: _Graph, values: str, channels: int, name: str) -> None:
    """Means over the image and a matrix."""
    flat = graph.node("Flatten", graph.node("GlobalAveragePool", values))
    graph.node("Gemm", flat, graph.weight(channels, CLASSES, fan_in=channels), name=name)


def samples(*shape: int, count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random inputs."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def thresholds_for(bundle: Bundle, inputs: npt.NDArray[np.float32]) -> Mapping[str, float]:
    """With these half of the ``inputs`` that come to an early exit leave there."""
    found: dict[str, float] = {}
    names = [exit_.name for exit_ in bundle.net.exits[:-1]]
    model = bundle.runnable(0, bundle.net.last, exits=names)
    outputs = ENGINES[DEFAULT](model, 1).run({model.input: inputs})
    staying = np.ones(len(inputs), bool)
    for name in names:
        scores = EXITS["confidence"](outputs[model.logits[name]])
        found[name] = float(np.median(scores[staying]))
        staying &= scores < found[name]
    return found
