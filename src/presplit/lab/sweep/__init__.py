"""A grid of specs, each with several seeds, trained side by side and compared.

`sweep` does it all; what it finds is a `Found`, which ``sweep.json`` holds.
"""

from presplit.lab.sweep.found import SWEEP, Found, read_found
from presplit.lab.sweep.grid import Axis, Point, axis, grid
from presplit.lab.sweep.sweep import Settings, Watch, sweep

__all__ = [
    "SWEEP",
    "Axis",
    "Found",
    "Point",
    "Settings",
    "Watch",
    "axis",
    "grid",
    "read_found",
    "sweep",
]
