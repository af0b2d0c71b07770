"""``presplit doctor``: what is installed here, and whether it works together.

Each check does what it is about: an inference, a request, a request over TLS. What is known to
break when two packages do not fit each other is tried in a process of its own, since it may end
that process.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

import presplit
from presplit.cli.options import Json, show
from presplit.core.errors import PresplitError
from presplit.core.installing import install_line
from presplit.core.progress import track
from presplit.core.tables import columns_of, table

LIBRARIES = {
    "numpy": ("everything", ""),
    "msgspec": ("bundles, specs, plans", ""),
    "onnxruntime": ("edge and server", "edge"),
    "grpcio": ("edge and server", "edge"),
    "protobuf": ("edge and server", "edge"),
    "cryptography": ("certificates and signed bundles", "edge"),
    "lz4": ("codecs with lz4", "edge"),
    "pillow": ("images, codecs png and jpeg", "edge"),
    "prometheus-client": ("metrics of a server", "serve"),
    "opencv-python-headless": ("cameras and videos", "camera"),
    "onnx": ("exporting and inspecting nets", "pack"),
    "torch": ("training", "train"),
    "onnxscript": ("exporting trained nets", "train"),
    "scikit-learn": ("the digits data set", "train"),
    "safetensors": ("checkpoints", "train"),
    "ortools": ("placing several models", "placement"),
    "ray": ("serving by Ray Serve", "ray"),
}
"""What each library is for, and the extra that brings it; "" for what is always there."""

PORT = 8443
"""Where ``presplit serve`` listens unless it is told another port."""


def doctor(json: Json = False) -> None:
    """Say what is installed, and try it: an inference, a request, TLS, pairs that may not fit.

    What is missing comes with the command that installs it, as this Presplit was installed itself.
    Exit code 1 if something that is installed does not work.
    """
    versions = {name: _version(name) for name in LIBRARIES}
    checks = {name: _tried(check) for name, check in track(list(_checks(versions)), "checking")}
    port = _port()
    machine = (
        f"presplit {presplit.__version__}, Python {platform.python_version()} on "
        f"{platform.system()} {platform.machine()}"
    )
    missing = {extra for name, (_, extra) in LIBRARIES.items() if versions[name] is None}
    lines = {extra: install_line(extra) for extra in dict.fromkeys(_extras()) if extra in missing}
    facts: dict[str, Any] = {
        "machine": machine,
        "versions": versions,
        "checks": checks,
        "port": port,
        "install": lines,
    }
    show(facts, _text(facts), as_json=json)
    if any(checks.values()):
        raise typer.Exit(1)


def _extras() -> list[str]:
    return [extra for _, extra in LIBRARIES.values()]


def _text(facts: dict[str, Any]) -> str:
    """The facts for people."""
    rows = [
        {
            "library": name,
            "version": version or "missing",
            "for": LIBRARIES[name][0],
        }
        for name, version in facts["versions"].items()
    ]
    said = [
        {"check": name, "result": problem or "works"} for name, problem in facts["checks"].items()
    ]
    said.append({"check": f"port {PORT}", "result": facts["port"] or "free"})
    lines = [facts["machine"], "", table(rows, columns_of(rows)), "", table(said, columns_of(said))]
    if facts["install"]:
        lines += ["", "What is missing is brought by:"]
        lines += [f"  {line}" for line in facts["install"].values()]
    return "\n".join([*lines, "", f"Next: {_next(facts)}"])


def _next(facts: dict[str, Any]) -> str:
    """What to do now: mend, install, or begin."""
    if any(facts["checks"].values()):
        return "mend what fails above, then presplit doctor again"
    if facts["versions"]["torch"] is not None:
        return "presplit demo"
    if facts["versions"]["onnxruntime"] is not None:
        return "presplit run --help, with a bundle that was made elsewhere"
    return install_line("all")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


Check = Callable[[], str | None]
"""Gives what is wrong, or None."""


def _checks(versions: dict[str, str | None]) -> list[tuple[str, Check]]:
    """What can be tried with what is installed."""
    known: list[tuple[str, Check, tuple[str, ...]]] = [
        ("versions", lambda: _old(versions), ()),
        ("inference", lambda: _runs(_SMOKE), ("onnxruntime",)),
        ("request on a free port", _request, ("grpcio", "protobuf")),
        ("request over TLS", _secret_request, ("grpcio", "protobuf", "cryptography")),
        ("torch and numpy", lambda: _runs(_TORCH), ("torch",)),
        ("torch and torchvision", lambda: _runs(_VISION, _VISION_CURE), ("torch", "torchvision")),
        ("ortools and protobuf", lambda: _runs(_PLACING, _PLACING_CURE), ("ortools",)),
        ("ray and protobuf", lambda: _runs("import ray.serve"), ("ray",)),
        ("opencv", lambda: _runs("import cv2", _OPENCV_CURE), ("opencv-python-headless",)),
    ]
    there = {name for name in (*versions, "torchvision") if _version(name)}
    return [(name, check) for name, check, needs in known if there.issuperset(needs)]


def _tried(check: Check) -> str | None:
    """What a check finds; its own failure is a finding."""
    try:
        return check()
    except PresplitError as error:
        return f"fails: {error}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"fails: {' '.join(str(error).split())}"


def _old(versions: dict[str, str | None]) -> str | None:
    """Which installed libraries are older than Presplit's own metadata ask for."""
    try:
        wanted = importlib.metadata.requires("presplit") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found: dict[str, str] = {}
    for line in wanted:
        asked = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)", line.replace(" ", ""))
        extra = re.search(r"extra\s*==\s*['\"]([a-z]+)", line)
        version = versions.get(asked[1].lower()) if asked else None
        if asked and version and _numbers(version) < _numbers(asked[2]):
            cure = install_line(extra[1] if extra else "edge").replace(
                " install ", " install -U ", 1
            )
            found[asked[1]] = f"{asked[1]} {version} is older than {asked[2]}: {cure}"
    return "; ".join(found.values()) or None


def _numbers(version: str) -> list[int]:
    """The numbers of a version, to compare.

    >>> _numbers("2.13.0+cpu"), _numbers("6.31.1rc1") < _numbers("6.33")
    ([2, 13, 0], True)
    """
    head = re.match(r"[0-9.]+", version)
    return [int(part) for part in (head[0] if head else "0").split(".") if part]


def _runs(code: str, cure: str = "") -> str | None:
    """Run ``code`` in a process of its own; what it says where it fails, and the ``cure``.

    A wheel for another processor dies by an illegal instruction.
    """
    # NumPy's pool of threads, which one Relu does not need, takes a fifth of the time.
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env=alone,
    )
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines() or [f"signal {-done.returncode}"]
    return f"fails: {said[-1]}" + (f"; {cure}" if cure else "")


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
_TORCH = """
import warnings
warnings.simplefilter("error")
import numpy, torch
assert torch.from_numpy(numpy.ones(1, numpy.float32)).numpy().sum() == 1
"""
_VISION = "import torchvision"
_VISION_CURE = (
    "torch and torchvision are from different builds: install both from one index, or uninstall "
    "torchvision, which Presplit does not need"
)
_PLACING = "from ortools.sat.python import cp_model; cp_model.CpModel().new_bool_var('x')"
_PLACING_CURE = "OR-Tools wants an older protobuf: pip install 'protobuf>=6.31,<7'"
_OPENCV_CURE = "opencv-python wants a screen's libraries; opencv-python-headless wants none"


def _request() -> str | None:
    """Send a request to a server on a free port of this machine."""
    from presplit.runtime.measuring.asking import Asking, echo_here

    with echo_here() as address, Asking(address) as asking:
        asking.seconds()
    return None


def _secret_request() -> str | None:
    """The same over TLS, with certificates of an authority made for it."""
    from presplit.core.private import NewFiles
    from presplit.runtime.authority import Authority
    from presplit.runtime.measuring.asking import Asking, echo_here
    from presplit.runtime.wire.credentials import client_credentials, secured

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with NewFiles(folder) as new:
            Authority.found(new).server(["127.0.0.1"])
        server = secured(cert=folder / "server.pem", key=folder / "server.key")
        known = client_credentials(ca=folder / "ca.pem")
        with (
            echo_here(server.credentials) as address,
            Asking(f"grpcs://{address}", credentials=known) as asking,
        ):
            asking.seconds()
    return None


def _port() -> str | None:
    """Whether the usual port can be bound; that it cannot is no fault."""
    import socket

    try:
        with socket.create_server(("127.0.0.1", PORT)):
            return None
    except OSError as error:
        return f"in use ({error.strerror}): presplit serve --port N takes another"
