"""ONNX Runtime on the CPU with a fixed number of threads.

This is the only file of the runtime that imports it. Its Python wrapper answers some load errors by
printing to standard output and trying again with other providers; that is switched off here, and
what goes wrong is raised. Its official builds also report to their maker over the network, from a
thread that keeps a forked process from ending; nothing of that is begun here.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle.operators import check
from presplit.core.errors import BundleError, EngineError, InputError, library
from presplit.core.types import Runnable
from presplit.runtime.engines.engine import Arrays, Stop, Stopped
from presplit.runtime.opened import Opened

FATAL = 4
"""ONNX Runtime's log level at which it prints nothing that it also raises."""
OWN_FAULTS = ("NotImplemented", "RuntimeException", "EPFail", "EngineError", "DeviceReset")
"""Errors at loading that are not the model's: no kernel, no memory, an engine that breaks."""
NO_FILES = ("session.model_external_initializers_file_folder_path", "/dev/null/no-folder")
"""Where weights outside the model are looked for: no file can be there.

A model comes as bytes and has no folder of its own; ONNX Runtime would take the working directory.
"""
NEED = {"need": "running a bundle", "extra": "edge"}


class Engine:
    """One ONNX model, ready to run; safe to run from several threads at once.

    Raises `BundleError` if ``model`` is not a model that ONNX Runtime takes, `EngineError` if it
    cannot run it on this machine, `MissingLibrary` if it is not installed.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        check(model)
        # It is read once, when the library is loaded; who sets it otherwise is not overruled.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        self._ort: Any = library("onnxruntime", **NEED)  # ships no types
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        options.add_session_config_entry(*NO_FILES)
        self._errors = _errors()
        try:
            self._session: Any = self._ort.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except (*self._errors, MemoryError, RuntimeError) as error:
            problem = _first_line(error)
            if type(error).__name__ in OWN_FAULTS or not isinstance(error, self._errors):
                raise EngineError(f"ONNX Runtime cannot run the model here: {problem}") from error
            raise BundleError(f"ONNX Runtime does not take the model: {problem}") from error
        self._refusal: type[Exception] = next(
            kind for kind in self._errors if kind.__name__ == "InvalidArgument"
        )
        self._quiet = self._options()
        self._opened = Opened("the engine")
        self.inputs: tuple[str, ...] = tuple(each.name for each in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(each.name for each in self._session.get_outputs())

    def run(self, inputs: Arrays, *, stop: Stop | None = None) -> dict[str, npt.NDArray[Any]]:
        """The outputs by name; raises as `presplit.runtime.engines.Engine` says.

        A run is stopped between two operators, not inside one.
        """
        self._opened.check()
        self._check(inputs)
        options = self._quiet
        if stop is not None:
            options = self._options()
            stop.ends(lambda: setattr(options, "terminate", True))
        try:
            found: list[npt.NDArray[Any]] = self._session.run(None, dict(inputs), options)
        except self._refusal as error:
            problem = f"the model does not take {_described(inputs)}: {_first_line(error)}"
            raise InputError(problem) from error
        except (*self._errors, MemoryError, RuntimeError) as error:
            if stop is not None and stop.asked:
                raise Stopped("the run was stopped") from error
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, map(np.asarray, found), strict=True))

    def _check(self, inputs: Arrays) -> None:
        """Raise `InputError` unless ``inputs`` are arrays by the names of the model's inputs."""
        if set(inputs) != set(self.inputs):
            raise InputError(
                f"the model does not take {_described(inputs)}: its inputs are called "
                f"{', '.join(self.inputs)}"
            )

    def _options(self) -> Any:
        """Options of one run, which can be stopped by them."""
        options = self._ort.RunOptions()
        options.log_severity_level = FATAL
        return options


def load(runnable: Runnable, threads: int) -> Engine:
    """The engine of ``runnable``."""
    return Engine(runnable.onnx, threads=threads)


def version() -> str:
    """The version of ONNX Runtime that is installed; raises `MissingLibrary`."""
    return str(library("onnxruntime", **NEED).__version__)


def _errors() -> tuple[type[Exception], ...]:
    """Every exception that ONNX Runtime raises; they share no class of their own."""
    state = library("onnxruntime.capi.onnxruntime_pybind11_state", **NEED)
    kinds = [getattr(state, name) for name in dir(state)]
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def _described(inputs: Arrays) -> str:
    """``inputs`` in words."""
    shapes = [f"{name}: {array.dtype} {array.shape}" for name, array in inputs.items()]
    return ", ".join(shapes) or "nothing"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
