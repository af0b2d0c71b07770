"""The engine: ONNX Runtime on the CPU with a fixed number of threads.

This is the only file that imports ONNX Runtime.

ONNX Runtime's Python wrapper answers some load errors by printing to standard output and trying
again with other providers; that is switched off here, and what goes wrong is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.core.errors import BundleError, InputError, library

FATAL = 4
"""ONNX Runtime's log level at which it prints nothing that it also raises."""


class Engine:
    """One ONNX model, ready to run; safe to run from several threads at once.

    Raises `BundleError` if ``model`` is not a model that ONNX Runtime takes, `MissingLibrary` if it
    is not installed.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        ort: Any = library("onnxruntime", need="running a bundle", extra="edge")  # ships no types
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        self._errors = _errors()
        try:
            self._session: Any = ort.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except self._errors as error:
            raise BundleError(
                f"ONNX Runtime does not take the model: {_first_line(error)}"
            ) from error
        self._quiet = ort.RunOptions()
        self._quiet.log_severity_level = FATAL
        self.outputs: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name; raises `InputError` if the model does not take ``inputs``."""
        try:
            found: list[npt.NDArray[Any]] = self._session.run(None, dict(inputs), self._quiet)
        except (*self._errors, ValueError) as error:
            shapes = ", ".join(
                f"{name}: {array.dtype} {array.shape}" for name, array in inputs.items()
            )
            raise InputError(f"the model does not take {shapes}: {_first_line(error)}") from error
        return dict(zip(self.outputs, map(np.asarray, found), strict=True))


def _errors() -> tuple[type[Exception], ...]:
    """Every exception that ONNX Runtime raises; they share no class of their own."""
    state = library(
        "onnxruntime.capi.onnxruntime_pybind11_state", need="running a bundle", extra="edge"
    )
    kinds = [getattr(state, name) for name in dir(state)]
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
