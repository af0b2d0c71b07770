"""What runs a model: one file for each engine."""

from presplit.core.shelf import Shelf
from presplit.runtime.engines import onnxruntime
from presplit.runtime.engines.engine import Arrays, Engine, Load, Stop, Stopped

ENGINES: Shelf[Load] = Shelf("engine", {"onnxruntime": onnxruntime.load})
DEFAULT = "onnxruntime"
"""The engine that is taken where none is named."""

__all__ = ["DEFAULT", "ENGINES", "Arrays", "Engine", "Load", "Stop", "Stopped"]
