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

HERE = Path(__file__).parent
VERSIONS_OF = ("torch", "onnxruntime", "numpy")


def names() -> list[str]:
    """The benchmarks there are, by name."""
    return sorted(file.stem for file in HERE.glob("[!_]*.py") if file.stem != "runner")


def question(name: str) -> str:
    """The first line of the benchmark's docstring, read without importing it."""
    doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text()))
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
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {_cell(c['value'])} ({c['target']})"
        for c in result["checks"]
    ]
    source = [
        *result["machine"].values(),
        *(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    return "\n".join([table(result["rows"]), "", *checks, "", ", ".join(map(str, source))])


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows under the names of all their columns, numbers to the right.

    >>> print(table([{"way": "edge", "p50_s": 0.00123}, {"way": "server", "p50_s": 0.2}]))
    way       p50_s
    edge    0.00123
    server      0.2
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    right = [all(isinstance(row.get(column, 0), int | float) for row in rows) for column in columns]

    def aligned(line: list[str]) -> str:
        cells = zip(line, widths, right, strict=True)
        return "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in cells
        )

    return "\n".join(aligned(line).rstrip() for line in lines)


def _cell(value: object) -> str:
    """Four digits of a float: more is noise in a measurement; all of anything else."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
