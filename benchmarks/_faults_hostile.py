"""Bundles that are hashed rightly and mean ill, and a process that reads them and is watched.

``python -m benchmarks._faults_hostile FOLDER`` reads strangers' bundles, as ``--untrusted`` does,
and prints what came of each. Whatever would run code or write files is seen by an audit hook.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle  # noqa: TID251  # to make what must never be read
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks._faults import ONE_THREAD
from benchmarks._faults_nets import CLASSES, INPUT
from benchmarks._faults_nets import _model as net_of
from presplit.bundle import Bundle, digest
from presplit.core.types import canonical_json
from presplit.packing import pack

EVENTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "exec")
"""What runs code; ``open`` for writing is looked at too."""


@dataclass(frozen=True)
class Refused:
    """What a watched process came to."""

    refused: bool
    said: str
    acts: tuple[str, ...]
    memory_mb: float
    seconds: float


def labelled(path: Path) -> Bundle:
    """An honest bundle that holds scores too."""
    samples = np.random.default_rng(1).normal(size=(64, INPUT)).astype(np.float32)
    exits = ["early", "middle", "final"]
    given = {"samples": samples, "labels": np.arange(64) % CLASSES}
    return pack(net_of(1, 0), path, name="small", exit_names=exits, **given)


def hostile(folder: Path) -> dict[str, Refused]:
    """What comes of reading each hostile bundle, made in ``folder``, in one watched process."""
    honest = labelled(folder / "honest.bundle").path
    for number, make in enumerate(CASES.values()):
        path = Path(shutil.copytree(honest, folder / str(number) / "b.bundle"))
        make(path, folder / str(number) / "marker")
    command = [sys.executable, "-m", "benchmarks._faults_hostile", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **ONE_THREAD}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found: dict[str, Refused] = {}
    for number, name in enumerate(CASES):
        told = lines[number] if number < len(lines) else {"said": done.stderr[-300:], "acts": []}
        acts = list(told["acts"])
        if number >= len(lines):
            acts.append("the process ended")
        if (folder / str(number) / "marker").exists():
            acts.append("the marker was written")
        refused = bool(told["said"]) and number < len(lines)
        found[name] = Refused(
            refused, told["said"], tuple(acts), told.get("memory_mb", 0), told.get("seconds", 0)
        )
    return found


def _file(name: str, raw: bytes) -> Callable[[Path, Path], None]:
    """The bundle with one file of these bytes, rightly hashed."""

    def make(path: Path, marker: Path) -> None:
        _rewrite(path, {name: raw})

    return make


def _rewrite(path: Path, changed: dict[str, bytes], **fields: Any) -> None:
    """Change files of the bundle and seal its manifest anew, as its maker could."""
    from presplit.bundle import read

    bundle = read(path)
    files = {name: bundle._files[name] for name in bundle.manifest.files} | changed
    manifest = msgspec.structs.replace(bundle.manifest, files=digest(files), sha256="", **fields)
    for name, raw in changed.items():
        (path / name).write_bytes(raw)
    (path / "manifest.json").write_bytes(canonical_json(manifest.sealed()))


def _segment(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path, Path], None]:
    """The bundle with its last segment changed."""

    def make(path: Path, marker: Path) -> None:
        from presplit.bundle import read

        bundle = read(path)
        name = bundle.manifest.segments[-1].file
        piece = onnx.ModelProto.FromString(bundle._files[name])
        change(piece)
        _rewrite(path, {name: piece.SerializeToString()})

    return make


def _node(kind: str, sizes: list[int] | None = None, **more: Any) -> Callable[[Path, Path], None]:
    """The bundle with such a node in its last segment."""

    def change(piece: onnx.ModelProto) -> None:
        inputs: list[str] = []
        if sizes is not None:
            piece.graph.initializer.append(numpy_helper.from_array(np.array(sizes), "sizes"))
            source = piece.graph.node[0].input[0]
            inputs = ["sizes"] if kind == "ConstantOfShape" else [source, "sizes"]
        piece.graph.node.append(helper.make_node(kind, inputs, ["made"], **more))

    return _segment(change)


def _varint(value: int) -> bytes:
    low = value & 127
    return bytes([low]) if value < 128 else bytes([low | 128]) + _varint(value >> 7)


def _behind(raw: Callable[[], bytes]) -> Callable[[Path, Path], None]:
    """The bundle with these bytes behind its last segment."""

    def make(path: Path, marker: Path) -> None:
        from presplit.bundle import read

        bundle = read(path)
        name = bundle.manifest.segments[-1].file
        _rewrite(path, {name: bundle._files[name] + raw()})

    return make


def _far(bits: int) -> bytes:
    """A graph that loops, as a field whose number has bits that some readers drop."""
    graph = helper.make_graph([helper.make_node("Loop", ["n", "c"], ["o"])], "", [], [])
    raw = graph.SerializeToString()
    return _varint(7 << 3 | 2 | bits) + _varint(len(raw)) + raw


def _wide() -> bytes:
    """64 GiB by sizes of a type with bits that some readers drop."""
    packed = 2 * _varint(2**17)
    tensor = b"\x08\x02\x10" + _varint(7 + 2**32) + b"\x42\x01s" + b"\x3a" + bytes([len(packed)])
    tensor += packed
    node = helper.make_node("ConstantOfShape", ["s"], ["z"])
    raw = onnx.GraphProto(node=[node]).SerializeToString() + b"\x2a" + _varint(len(tensor)) + tensor
    return b"\x3a" + _varint(len(raw)) + raw


def _outside(location: str) -> Callable[[Path, Path], None]:
    """The bundle with a weight in a file elsewhere."""

    def change(piece: onnx.ModelProto) -> None:
        weight = piece.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    return _segment(change)


def _in_place(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    """The bundle with something else in the place of a file, which holds the right bytes."""

    def change(path: Path, marker: Path) -> None:
        file = path / "exit-00.onnx"
        file.rename(path.parent / "moved")
        make(file)

    return change


def _sealed(edit: Callable[[Any], Any]) -> Callable[[Path, Path], None]:
    """The bundle with a manifest that was edited as JSON and sealed anew."""

    def change(path: Path, marker: Path) -> None:
        file = path / "manifest.json"
        told = json.loads(file.read_bytes())
        edit(told)
        told["sha256"] = ""
        told["sha256"] = hashlib.sha256(canonical_json(told)).hexdigest()
        file.write_bytes(canonical_json(told))

    return change


def _named(name: str) -> Callable[[Path, Path], None]:
    """The manifest with a file of such a name in place of one of its own."""

    def edit(told: Any) -> None:
        told["files"][name] = told["files"].pop("exit-00.onnx")
        told["exits"]["early"]["file"] = name

    return _sealed(edit)


class Acting:
    """Unpickled, it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _pickled(path: Path, marker: Path) -> None:
    """Held-out scores as an array of objects."""
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 64), }".ljust(117) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    _scores(path, start + pickle.dumps(Acting(marker)))


def _scores(path: Path, raw: bytes) -> None:
    """The bundle with these bytes in the place of the scores of its exits."""
    from presplit.bundle import read

    files = read(path).manifest.files
    _rewrite(path, {name: raw for name in files if name.endswith(".npy")})


def _many(path: Path, marker: Path) -> None:
    for number in range(100_000):
        (path / f"f{number}").touch()


def _deep(piece: onnx.ModelProto) -> None:
    """Functions that call each other three thousand deep."""
    for depth in range(3000):
        node = helper.make_node(f"F{depth + 1}", ["a"], ["b"], domain="own")
        opset = [helper.make_opsetid("own", 1), helper.make_opsetid("", 18)]
        made = helper.make_function("own", f"F{depth}", ["a"], ["b"], [node], opset)
        piece.functions.append(made)
    piece.graph.node.append(helper.make_node("F0", [piece.graph.node[0].input[0]], ["z"]))


def _control(kind: str, **bodies: str) -> Callable[[Path, Path], None]:
    out = [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)]
    constant = helper.make_node("Constant", [], ["o"], value_float=1.0)
    body = helper.make_graph([constant], "b", [], out)
    return _node(kind, **dict.fromkeys(bodies, body))


def _bomb() -> bytes:
    """A .npy file that says it holds a terabyte."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (274877906944,), }"
    padded = header.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def _held(data: str, value: bytes) -> Callable[[Path, Path], None]:
    def change(path: Path, marker: Path) -> None:
        file = path / "manifest.json"
        file.write_bytes(file.read_bytes().replace(data.encode(), value))

    return change


CASES: dict[str, Callable[[Path, Path], None]] = {
    "a link": _in_place(lambda file: file.symlink_to(file.parent.parent / "moved")),
    "a link to /etc/passwd": _in_place(lambda file: file.symlink_to("/etc/passwd")),
    "a hard link": _in_place(lambda file: os.link(file.parent.parent / "moved", file)),
    "a device": _in_place(lambda file: file.symlink_to("/dev/zero")),
    "a pipe": _in_place(os.mkfifo),
    "a socket": _in_place(lambda file: _bind(file)),
    "a folder": _in_place(Path.mkdir),
    "an absolute name": _named("/etc/passwd"),
    "a name that goes up": _named("../moved"),
    "a name that goes down": _named("a/b"),
    "a name with NUL": _named("exit\0.onnx"),
    "a name in another case": _named("EXIT-00.onnx"),
    "a name with a letter of another script": _named("exit-0\u0660.onnx"),
    "100,000 files": _many,
    "a manifest of 17 MiB": _held('"name"', b'"name"' + b" " * 17 * 2**20),
    "a manifest a million deep": _held("{", b"[" * 1_000_000),
    "a manifest with a key twice": _held('"format"', b'"format":3,"format"'),
    "a file of 2^53 bytes": _sealed(lambda told: told["files"]["exit-00.onnx"].update(bytes=2**53)),
    "a boundary of 2^40 values": _sealed(
        lambda told: told["net"]["boundaries"][1].update(shape=[2**20, 2**20])
    ),
    "an array of objects": _pickled,
    "a pickle": lambda path, marker: _scores(path, pickle.dumps(Acting(marker))),
    "an array of a terabyte": lambda path, marker: _scores(path, _bomb()),
    "an archive": lambda path, marker: _scores(path, b"PK\x03\x04" + bytes(4096)),
    "weights in /etc/passwd": _outside("/etc/passwd"),
    "weights above the folder": _outside("../../moved"),
    "weights beside": _outside("exit-00.onnx"),
    "another domain": _node("Op", domain="my.ops"),
    "an unknown operator": _node("PyOp"),
    "an operator of ONNX Runtime's that is not listed": _node("PythonOp", domain="com.microsoft"),
    "a loop": _control("Loop", body=""),
    "a condition": _control("If", then_branch="", else_branch=""),
    "a scan": _control("Scan", body=""),
    "functions 3,000 deep": _segment(_deep),
    "64 GiB in a few bytes": _node("ConstantOfShape", [2**34]),
    "64 GiB by expanding": _node("Expand", [2**17, 2**17]),
    "64 GiB by tiles": _node("Tile", [2**17, 2**17]),
    "64 GiB of random numbers": _node("RandomUniform", shape=[2**17, 2**17]),
    "a weight that says 64 GiB": _segment(
        lambda piece: piece.graph.initializer[0].dims.append(2**30)
    ),
    "a graph in a field of number 7 + 2^29": _behind(lambda: _far(1 << 32)),
    "a graph in a field of number 7 + 2^59": _behind(lambda: _far(1 << 62)),
    "64 GiB by sizes of type 7 + 2^32": _behind(_wide),
    "bytes that are no model": _file("segment-00.onnx", b"\xff" * 4096),
}
"""How each is made, from an honest bundle and a marker that code would leave."""


def _bind(file: Path) -> None:
    """A socket there, whose path is short only from its own folder."""
    with contextlib.chdir(file.parent), socket.socket(socket.AF_UNIX) as found:
        found.bind(file.name)


def _watch(folder: Path) -> None:
    """Read the bundles below ``folder``, try each out, and print what came of it."""
    from presplit.core.errors import PresplitError
    from presplit.runtime.engines import DEFAULT, ENGINES
    from presplit.runtime.trusted import reader

    # All that is imported is imported before the hook is there: importing runs code too.
    known = reader(untrusted=True)(folder / "honest.bundle")
    known.evidence()
    ENGINES[DEFAULT](known.runnable(0, known.net.last), 1)
    with contextlib.suppress(PresplitError):
        reader()(folder / "none")
    acts: list[str] = []

    def hook(event: str, given: tuple[Any, ...]) -> None:
        ours = event == "subprocess.Popen" and "presplit.runtime.quarantine" in str(given)
        writes = event == "open" and isinstance(given[1], str) and set(given[1]) & set("wax+")
        if (event in EVENTS and not ours) or writes:
            acts.append(f"{event} {str(given)[:80]}")

    sys.addaudithook(hook)
    for number in range(len(CASES)):
        acts.clear()
        began, said = time.monotonic(), ""
        try:
            reader(untrusted=True)(folder / str(number) / "b.bundle").evidence()
        except PresplitError as error:
            said = str(error)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told = {
            "said": said[:300],
            "acts": list(acts),
            "memory_mb": max(own, child) / 1024,
            "seconds": time.monotonic() - began,
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
