"""What each kernel of a model takes in ONNX Runtime, by its own profile.

An engine fuses operators and adds changes of layout, so kernels are fewer than operators and some
belong to none. ONNX Runtime notes whole microseconds; means of many runs tell more.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from presplit.bundle.operators import check
from presplit.core.errors import library
from presplit.core.types import Runnable
from presplit.runtime.engines.engine import Arrays
from presplit.runtime.engines.onnxruntime import FATAL, NEED, NO_FILES


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel, named after a node or a tensor: its kind, float64 ``(runs,)`` seconds."""

    name: str
    kind: str
    seconds: npt.NDArray[np.float64]


def profiled(runnable: Runnable, inputs: Arrays, *, runs: int = 30) -> list[Kernel]:
    """Every kernel of ``runnable`` on one thread, in the order in which they run.

    ``inputs``: an array for each input by name. A few runs before are not counted. What an engine
    refuses is refused by `presplit.runtime.engines.onnxruntime.load` in words: load it there first.
    """
    check(runnable.onnx)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    ort: Any = library("onnxruntime", **NEED)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry(*NO_FILES)
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = ort.InferenceSession(
            runnable.onnx,
            sess_options=options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
        )
        for _ in range(runs + WARM_UPS):
            session.run(None, dict(inputs))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_bytes())
    return _kernels([event for event in events if event.get("cat") == "Node"], runs)


WARM_UPS = 3


def _kernels(events: list[dict[str, Any]], runs: int) -> list[Kernel]:
    """The events of each kernel together; the last ``runs`` of them count."""
    took: dict[tuple[str, str], list[float]] = {}
    kinds: dict[tuple[str, str], str] = {}
    for event in events:
        if not event["name"].endswith("_kernel_time"):
            continue
        key = (event["name"], event["args"].get("node_index", ""))
        took.setdefault(key, []).append(event["dur"] / 1e6)
        kinds[key] = event["args"].get("op_name", "")
    return [
        Kernel(_named(key[0]), kinds[key], np.array(seconds[-runs:]))
        for key, seconds in took.items()
        if len(seconds) >= runs
    ]


def _named(event: str) -> str:
    """The node or tensor that an event is named after.

    >>> _named("segment_01/relu_1_nchwc_kernel_time"), _named("boundary_02_kernel_time")
    ('segment_01/relu_1', 'boundary_02')
    """
    return re.sub(r"(_nchwc)?(_token_\d+)?$", "", event.removesuffix("_kernel_time"))
