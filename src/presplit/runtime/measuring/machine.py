"""What this machine is and in which state: processor, clock, memory, energy.

All is read from Linux's files below a root, so that any of them may be missing; what is not there
is not said. Joules come from RAPL (Linux, ``Documentation/power/powercap``), which most systems
let only root read.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from presplit.core.processor import ROOT


def clock_state(root: Path = ROOT) -> str:
    """What the clock and the load are like at this moment, in words."""
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    governor = _text(frequency / "scaling_governor").strip()
    kilohertz = _number(frequency / "scaling_cur_freq")
    load = _text(root / "proc/loadavg").split()
    heat = _number(root / "sys/class/thermal/thermal_zone0/temp")
    throttled = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    said = [
        f"governor {governor}" if governor else "",
        f"{kilohertz / 1e6:.2f} GHz" if kilohertz else "",
        f"load {load[0]}" if load else "",
        f"{heat / 1000:.0f} °C" if heat else "",
    ]
    if throttled:
        said.append("not throttled" if int(throttled, 16) == 0 else f"throttled ({throttled})")
    return ", ".join(filter(None, said)) or "unknown"


def joules(root: Path = ROOT) -> float | None:
    """What all processor packages have used so far, in joules; None where it cannot be read.

    The counters begin again at their end: see `watts`.
    """
    found = [_number(zone / "energy_uj") for zone in _zones(root)]
    known = [each for each in found if each is not None]
    return sum(known) / 1e6 if known and len(known) == len(found) else None


def watts(
    work: Callable[[], object],
    *,
    seconds: float = 0.5,
    root: Path = ROOT,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """What the processor draws while ``work`` is repeated for so many seconds, idle included.

    None where it cannot be read, or where a counter began again meanwhile.
    """
    before = joules(root)
    if before is None:
        return None
    began = clock()
    while clock() - began < seconds:
        work()
    took, after = clock() - began, joules(root)
    if after is None or after <= before:
        return None
    return float(f"{(after - before) / took:.4g}")


def peak_bytes(bundle: Path, *, threads: int = 1) -> int | None:
    """The most memory of a process of its own in which the whole net has answered once.

    None where the system does not tell, or where the bundle cannot be opened from its path.
    """
    command = [sys.executable, "-c", _ALONE, str(bundle), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = done.stdout.strip()
    return 1024 * int(said) if done.returncode == 0 and said.isdigit() else None


_ALONE = """
import re, sys
from pathlib import Path

from presplit.core.processor import ROOT, processor
import numpy as np
from presplit.bundle import read
from presplit.core.plans import Plan
from presplit.runtime import Edge
bundle = read(sys.argv[1])
net = bundle.net
with Edge.open(bundle, plan=Plan(net.last), threads=int(sys.argv[2])) as edge:
    edge.answer(np.zeros(net.boundaries[0].shape, np.float32), deadline_s=60)
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def _zones(root: Path) -> list[Path]:
    """RAPL's packages; their parts, ``intel-rapl:0:1``, are counted in them already."""
    found = (root / "sys/class/powercap").glob("intel-rapl:*")
    return sorted(zone for zone in found if zone.name.count(":") == 1)


def _text(path: Path) -> str:
    """What the file holds; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The whole number in the file; None where there is none."""
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else None
