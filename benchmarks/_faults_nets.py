"""The small nets that faults are tried on: made by hand, without torch and without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from presplit.bundle import Bundle
from presplit.packing import pack

INPUT, BOUNDARY, MIDDLE, CLASSES = 64, 48, 32, 10
WIDE = 1024
"""The side of a slow net's matrix."""


def small_bundle(path: Path, *, seed: int = 1, slow: int = 0, name: str = "small") -> Bundle:
    """A bundle of an MLP 64-48-32-10 with the exits ``early``, ``middle``, ``final`` at ``path``.

    ``slow`` puts so many products with a large matrix, about a quarter of a millisecond each,
    before the classifier.
    """
    samples = np.random.default_rng(seed).normal(size=(64, INPUT)).astype(np.float32)
    given = {"probe": samples[:2]} if slow else {"samples": samples}
    exits = ["early", "middle", "final"]
    return pack(_model(seed, slow), path, name=name, exit_names=exits, **given)


def _model(seed: int, slow: int) -> onnx.ModelProto:
    """The net as one graph."""
    net = _Net(seed)
    first = net.relu(net.product("image", "fc0", INPUT, BOUNDARY))
    early = net.product(first, "early", BOUNDARY, CLASSES)
    second = net.relu(net.product(first, "fc1", BOUNDARY, MIDDLE))
    middle = net.product(second, "middle", MIDDLE, CLASSES)
    last, width = (net.slow(second, slow), WIDE) if slow else (second, MIDDLE)
    final = net.product(last, "logits", width, CLASSES)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", INPUT])
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])
        for name in (early, middle, final)
    ]
    body = helper.make_graph(net.nodes, "small", [image], results, net.weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


class _Net:
    """A graph that grows."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, rows: int, columns: int) -> str:
        """A matrix of small numbers."""
        values = self.random.normal(size=(rows, columns)).astype(np.float32) / np.sqrt(rows)
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def product(self, source: str, name: str, rows: int, columns: int) -> str:
        """``source`` times a matrix."""
        weight = self.weight(f"{name}.w", rows, columns)
        self.nodes.append(helper.make_node("Gemm", [source, weight], [name]))
        return name

    def relu(self, source: str) -> str:
        """What is positive in ``source``."""
        self.nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"]))
        return f"{source}.relu"

    def slow(self, source: str, products: int) -> str:
        """What takes long; a skip over it, so that no boundary lies inside."""
        start = values = self.product(source, "up", MIDDLE, WIDE)
        weight = self.weight("slow.w", WIDE, WIDE)
        for step in range(products):
            self.nodes.append(helper.make_node("Gemm", [values, weight], [f"slow{step}"]))
            values = f"slow{step}"
        self.nodes.append(helper.make_node("Add", [values, start], ["slow"]))
        return "slow"
