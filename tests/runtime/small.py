"""A small real net as a bundle, and a server of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from presplit.bundle import Bundle
from presplit.packing import pack
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire.server import Listener

WIDTHS = (16, 12, 8, 4)
WIDE = 1024


def small_model(seed: int, *, slow: int = 0) -> onnx.ModelProto:
    """An MLP 16-12-8-4 whose two hidden layers each carry an exit, ``early`` and ``middle``.

    ``slow`` puts so many products with a large matrix, a quarter of a millisecond each, before the
    classifier.
    """
    random = np.random.default_rng(seed)
    nodes, weights = [], []

    def gemm(source: str, name: str, n_in: int, n_out: int) -> str:
        weights.append(
            numpy_helper.from_array(
                random.normal(size=(n_in, n_out)).astype(np.float32), f"{name}.w"
            )
        )
        nodes.append(helper.make_node("Gemm", [source, f"{name}.w"], [name]))
        return name

    values, outputs = "image", []
    for depth, exit_name in enumerate(("early", "middle")):
        nodes.append(
            helper.make_node(
                "Relu", [gemm(values, f"fc{depth}", *WIDTHS[depth : depth + 2])], [f"h{depth}"]
            )
        )
        values = f"h{depth}"
        outputs.append(gemm(values, exit_name, WIDTHS[depth + 1], 4))
    if slow:
        start = values = gemm(values, "up", WIDTHS[2], WIDE)
        weights.append(
            numpy_helper.from_array(
                random.normal(size=(WIDE, WIDE)).astype(np.float32) / 32, "slow.w"
            )
        )
        for step in range(slow):
            nodes.append(helper.make_node("Gemm", [values, "slow.w"], [f"slow{step}"]))
            values = f"slow{step}"
        nodes.append(
            helper.make_node("Add", [values, start], ["slow"])
        )  # a skip, so that no boundary lies inside
        values = "slow"
    outputs.append(gemm(values, "logits", WIDE if slow else WIDTHS[2], WIDTHS[3]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 16])]
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in outputs
    ]
    body = helper.make_graph(nodes, "small", inputs, results, weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def small_bundle(path: Path, seed: int, *, slow: int = 0) -> Bundle:
    """``small_model`` as a bundle at ``path``, without a plan.

    A slow one offers only codecs that need no samples, which would take long.
    """
    x = np.random.default_rng(seed).normal(size=(100, 16)).astype(np.float32)
    given = {"probe": x[:2]} if slow else {"samples": x}
    names = ["early", "middle", "final"]
    return pack(small_model(seed, slow=slow), path, name="small", exit_names=names, **given)


@contextlib.contextmanager
def listening(bundle: Bundle, port: int = 0) -> Iterator[str]:
    """The address of a server of ``bundle`` on a thread of this process."""
    loop, hosted = asyncio.new_event_loop(), hosting(bundle)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def there(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def listen() -> tuple[Listener, str]:
        listener = Listener(hosted, name="presplit", version="test")
        return listener, await listener.start("127.0.0.1", port)

    listener, address = there(listen())
    try:
        yield address
    finally:
        there(listener.stop(0))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        hosted.close()
