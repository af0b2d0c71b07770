"""Builds the optional kernel, ``presplit.train._row``, into the wheel; where that fails, the wheel is pure Python.

``CC`` names another C compiler; one that cannot compile, such as ``CC=false``, gives the pure wheel on purpose.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/presplit/train/_row.c"
INSIDE = "presplit/train/_row.abi3.so"
SHARED = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared", "-fPIC"]


class Kernel(BuildHookInterface[Any]):
    """Compiles one C file for the stable interface of Python 3.11 and later."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled file and the tag of this platform, or say in one line why there is none."""
        self.folder = Path(tempfile.mkdtemp())
        editable = version == "editable"
        made = Path(self.root, "src", INSIDE) if editable else self.folder / "kernel"
        problem = _compile(Path(self.root, SOURCE), made)
        if problem:
            made.unlink(missing_ok=True)
            self.app.display_warning(f"presplit is built without its compiled kernel, which is optional: {problem}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{_platform()}"
        if not editable:  # an editable install finds it in place
            build_data["force_include"][str(made)] = INSIDE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is now in the wheel."""
        shutil.rmtree(self.folder)


def _compile(source: Path, made: Path) -> str:
    """Compile ``source`` into ``made``; returns what went wrong, in one line, or nothing."""
    headers = sysconfig.get_path("include")
    command = [*_compiler(), "-std=gnu11", "-O3", *SHARED, f"-I{headers}", str(source), "-o", str(made)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    return (errors or [f"{command[0]} ends with {done.returncode}"])[0]


def _compiler() -> list[str]:
    """The compiler that the user names, or the one that Python was built with, or the system's."""
    for named in (os.environ.get("CC"), sysconfig.get_config_var("CC")):
        words = shlex.split(named or "")
        if words and (named == os.environ.get("CC") or shutil.which(words[0])):
            return words
    return ["cc"]


def _platform() -> str:
    """This platform in a wheel's name; what is compiled here is for one architecture only."""
    name = sysconfig.get_platform().replace("universal2", platform.machine())
    return name.replace("-", "_").replace(".", "_")
