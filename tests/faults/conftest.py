"""The same small net and processes as for the runtime's own tests."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

shared = run_path(str(Path(__file__).parents[1] / "runtime" / "conftest.py"))
names = ("bundle", "other_bundle", "slow_bundle", "start", "server")
bundle, other_bundle, slow_bundle, start, server = (shared[name] for name in names)
