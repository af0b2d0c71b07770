"""DeepSparse on one linear layer, in a Python of its own.

It is run by ``python -m benchmarks._deepsparse FOLDER SECONDS [--cold]``.

DeepSparse 1.8 needs Python 3.11 or older and an older onnx than Presplit, so it has to have an
environment of its own. ``FOLDER`` holds ``weight.npy`` (n_out, n_in) and ``x.npy`` (batch, n_in);
printed are its median seconds and its error.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._timing import medians, relative_error


def main(folder: Path, seconds: float, *, hot: bool) -> None:
    """Time the layer and print the result as JSON."""
    onnx, deepsparse = (importlib.import_module(name) for name in ("onnx", "deepsparse"))
    weight, x = np.load(folder / "weight.npy"), np.load(folder / "x.npy")
    helper: Any = onnx.helper
    inputs, outputs = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("input", weight.shape[1]), ("output", weight.shape[0]))
    )
    node = helper.make_node("MatMul", ["input", "weight"], ["output"])
    stored = onnx.numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight")
    graph = helper.make_graph([node], "layer", [inputs], [outputs], [stored])
    file = folder / "layer.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file
    )
    model = deepsparse.compile_model(str(file), batch_size=len(x), num_cores=1)
    found = model.run([x])[0]
    times = medians({"deepsparse": lambda: model.run([x])}, seconds=seconds, hot=hot)
    print(
        json.dumps({"seconds": times["deepsparse"], "error": relative_error(found, x @ weight.T)})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), hot="--cold" not in sys.argv)
