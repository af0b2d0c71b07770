"""ONNX Runtime, to compare and to calibrate: little memory kept, nothing printed, errors in words.

The engine that runs bundles is `presplit.runtime.engines`; a bundle is packed on a floor below it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import GraphError, library

FATAL = 4
"""ONNX Runtime's log level at which it prints nothing that it also raises."""


class Session:
    """One ONNX model, whole or in pieces that join by their bytes.

    Raises `GraphError` if ONNX Runtime does not take it.

    ``optimised`` fuses operators as an engine does. Without it every operator runs as it is
    written, so that a graph and its pieces compute the same bits: fused quantised operators differ
    from unfused ones by steps of quantisation.
    """

    def __init__(self, model: bytes | Sequence[bytes], *, optimised: bool = True) -> None:
        ort: Any = library("onnxruntime", need="packing a bundle", extra="pack")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        options.enable_cpu_mem_arena = False  # an arena keeps the most that was ever needed
        options.add_session_config_entry(
            "session.disable_prepacking", "1"
        )  # a second copy of weights
        level = ort.GraphOptimizationLevel
        # Layouts of one processor are left out: they hold all weights once more.
        options.graph_optimization_level = (
            level.ORT_ENABLE_EXTENDED if optimised else level.ORT_DISABLE_ALL
        )
        providers = ["CPUExecutionProvider"]
        # What the bytes name outside of themselves is not theirs to read.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", "/nowhere/at/all"
        )
        try:
            with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
                # From a file, and unjoined, it needs two copies of the weights less.
                file.writelines([model] if isinstance(model, bytes) else model)
                file.flush()
                self._session: Any = ort.InferenceSession(
                    file.name, sess_options=options, providers=providers, enable_fallback=0
                )
        except Exception as error:  # its exceptions share no class of their own
            raise GraphError(f"ONNX Runtime does not take the graph: {_first(error)}") from error
        self._quiet = ort.RunOptions()
        self._quiet.log_severity_level = FATAL
        self.outputs: tuple[str, ...] = tuple(each.name for each in self._session.get_outputs())

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name; raises `GraphError` if the graph does not take ``inputs``."""
        try:
            found = self._session.run(None, dict(inputs), self._quiet)
        except Exception as error:  # its exceptions share no class of their own
            shapes = ", ".join(f"{array.dtype} {array.shape}" for array in inputs.values())
            raise GraphError(f"the graph does not take {shapes}: {_first(error)}") from error
        return dict(zip(self.outputs, map(np.asarray, found), strict=True))


def optimised(model: bytes) -> bytes:
    """``model``, of ONNX, rewritten without what can be folded into its constants.

    Its outputs keep their names, and all of it are still ONNX's own operators.
    """
    ort: Any = library("onnxruntime", need="packing a bundle", extra="pack")
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.onnx"
        options.optimized_model_filepath = file
        try:
            ort.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # its exceptions share no class of their own
            raise GraphError(f"ONNX Runtime does not take the graph: {_first(error)}") from error
        return Path(file).read_bytes()


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
