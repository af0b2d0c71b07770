"""What every benchmark shares.

Each is found, run, put beside the machine and the versions, and printed.

A benchmark is a module of this folder whose docstring opens with its question. It offers
``run(quick)``, which gives ``{"rows": [{..}, ..], "checks": [{"name", "value", "target", "ok"},
..]}``. A keyword-only argument of ``run`` with a default is an option of the command: ``run(quick,
*, rows=())`` takes ``--rows A B``.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import inspect
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import presplit
from presplit.core.tables import columns_of, plain, table

HERE = Path(__file__).parent
VERSIONS_OF = ("torch", "onnxruntime", "numpy")


def names() -> list[str]:
    """The benchmarks there are, by name."""
    return sorted(file.stem for file in HERE.glob("[!_]*.py") if file.stem != "runner")


def question(name: str) -> str:
    """The first line of the benchmark's docstring, read without importing it."""
    doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
    return doc.splitlines()[0] if doc else ""


def declare_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add to ``parser`` what the benchmark's ``run`` takes besides ``quick``."""
    for option in inspect.signature(_module(name).run).parameters.values():
        if option.kind is not option.KEYWORD_ONLY:
            continue
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(option.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=option.default)
        elif isinstance(option.default, tuple):
            kind = type(option.default[0]) if option.default else str
            parser.add_argument(flag, nargs="+", type=kind, default=option.default)
        else:
            parser.add_argument(flag, type=type(option.default), default=option.default)


def run(name: str, *, quick: bool, **options: Any) -> dict[str, Any]:
    """The result of one benchmark, as its JSON file holds it."""
    result = _module(name).run(quick, **options)
    return {
        "benchmark": name,
        "machine": machine(),
        "versions": versions(),
        "rows": result["rows"],
        "checks": [
            {key: check[key] for key in ("name", "value", "target", "ok")}
            for check in result["checks"]
        ],
    }


def machine() -> dict[str, object]:
    """What the numbers were measured on; ``cores`` are those that this process may use."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": platform.platform(),
    }


def versions() -> dict[str, str]:
    """The versions that matter; what is not installed is left out."""
    return {
        "python": platform.python_version(),
        "presplit": presplit.__version__,
        **dict(_installed(VERSIONS_OF)),
    }


def text(result: Mapping[str, Any]) -> str:
    """A result as one reads it: the table, the checks, where it comes from."""
    checks = [
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {plain(c['value'])} ({c['target']})"
        for c in result["checks"]
    ]
    source = [
        *result["machine"].values(),
        *(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    rows = result["rows"]
    said = [table(rows, columns_of(rows)), "", *checks, "", ", ".join(map(str, source))]
    return "\n".join(said)


def _module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


def _installed(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _cpu_model() -> str:
    """The processor's name; Linux says it only in /proc."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in (
        cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        if cpuinfo.exists()
        else ()
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
