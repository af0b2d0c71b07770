"""The processor in words, as Linux tells it in files of which any may be missing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

ROOT = Path("/")
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
"""Arm's part numbers, which stand in ``/proc/cpuinfo`` in place of a name."""


def processor(root: Path = ROOT) -> str:
    """The board if it has a name, the kind of core, how many."""
    text = _text(root / "proc/cpuinfo")
    fields = dict(re.findall(r"^([^\t:\n]+?)\s*:[ \t]*(.*)$", text, re.MULTILINE))
    board = _text(root / "proc/device-tree/model").strip("\0\n ") or fields.get("Model", "")
    name = fields.get("model name", "")
    if fields.get("CPU implementer") == "0x41":
        name = ARM_CORES.get(fields.get("CPU part", ""), name)
    count = len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or os.cpu_count() or 1
    name = name or platform.machine()
    return ", ".join(filter(None, [board, name, f"{count} processors"]))


def _text(path: Path) -> str:
    """What a file says; nothing if it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
