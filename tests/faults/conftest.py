"""The same small net and processes as for the runtime's own tests."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

shared = run_path(str(Path(__file__).parents[1] / "runtime" / "conftest.py"))
bundle, other_bundle, start, server = (shared[name] for name in ("bundle", "other_bundle", "start", "server"))
