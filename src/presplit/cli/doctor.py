"""``presplit doctor``: what is installed here and whether inference works.

It also says what each missing library is for.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import typer

import presplit
from presplit.cli.options import Json, show
from presplit.core.tables import columns_of, table

LIBRARIES = {
    "numpy": "everything",
    "msgspec": "bundles, specs, plans",
    "onnxruntime": "edge and server: pip install 'presplit[edge]'",
    "grpcio": "edge and server: pip install 'presplit[edge]'",
    "protobuf": "edge and server: pip install 'presplit[edge]'",
    "torch": "training: pip install 'presplit[train]'",
    "onnx": "export and inspecting ONNX models: pip install 'presplit[pack]'",
    "onnxscript": "export: pip install 'presplit[train]'",
    "backports.zstd": "codecs with zstd: pip install 'presplit[edge]'",
    "lz4": "codecs with lz4: pip install 'presplit[edge]'",
    "pillow": "folders of images, codecs png and jpeg: pip install 'presplit[edge]'",
    "opencv-python-headless": "cameras and videos: pip install 'presplit[camera]'",
    "scikit-learn": "the digits data set: pip install 'presplit[train]'",
    "safetensors": "checkpoints: pip install 'presplit[train]'",
    "ortools": "placing several models: pip install 'presplit[placement]'",
}


def doctor(json: Json = False) -> None:
    """Say what is installed, run one inference and one request on a free port.

    Exit code 1 if either fails.
    """
    versions = {name: _version(name) for name in LIBRARIES}
    checks = {"engine": _engine(), "loopback": _loopback()}
    machine = (
        f"presplit {presplit.__version__}, Python {platform.python_version()} on "
        f"{platform.system()} {platform.machine()}"
    )
    named = [
        {"name": name, "state": version or f"missing, for {LIBRARIES[name]}"}
        for name, version in versions.items()
    ]
    named += [{"name": name, "state": problem or "works"} for name, problem in checks.items()]
    facts: dict[str, Any] = {"machine": machine, "versions": versions, "checks": checks}
    show(facts, f"{machine}\n\n{table(named, columns_of(named))}", as_json=json)
    if any(checks.values()):
        raise typer.Exit(1)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine() -> str | None:
    """Run a tiny net in a process of its own.

    A wheel for another processor dies by an illegal instruction.
    """
    import subprocess

    command = [sys.executable, "-c", _SMOKE]
    # NumPy's pool of threads, which one Relu does not need, takes a fifth of the time.
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=60, env=alone
    )
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines() or [f"signal {-done.returncode}"]
    return f"fails: {said[-1]}"


# The bytes are an ONNX model: one Relu from `boundary` (batch, 1) to `logits`.
_SMOKE = """
import numpy as np
from presplit.runtime.engines.onnxruntime import Engine
model = bytes.fromhex(
    "080a3a610a180a08626f756e6461727912066c6f67697473220452656c751205736d6f6b655a1f0a08626f756e6461727912130a11080112"
    "0d0a07120562617463680a020801621d0a066c6f6769747312130a110801120d0a07120562617463680a02080142040a001014"
)
answer = Engine(model).run({"boundary": np.array([[2.0]], np.float32)})["logits"]
raise SystemExit(None if answer.tolist() == [[2.0]] else f"a wrong answer, {answer.tolist()}")
"""


def _loopback() -> str | None:
    """Whether a socket on this machine can be bound and reached."""
    import socket

    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5),
        ):
            return None
    except OSError as error:
        return f"fails: {error}"
