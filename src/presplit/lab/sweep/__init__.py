"""A grid of specs, each with several seeds, trained side by side and compared.

`sweep` does it all; what it finds is a `Found`, which ``sweep.json`` holds.
"""

from presplit.lab.sweep.found import SWEEP, Found, read_found
from presplit.lab.sweep.grid import Axis, Point, axis, grid
from presplit.lab.sweep.sweeping import Settings, engine_named, sweep
from presplit.lab.sweep.timing import SECONDS_EACH

__all__ = [
    "SECONDS_EACH",
    "SWEEP",
    "Axis",
    "Found",
    "Point",
    "Settings",
    "axis",
    "engine_named",
    "grid",
    "read_found",
    "sweep",
]
