"""The same small nets and processes as for the runtime's own tests, and what is promised."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

shared = run_path(str(Path(__file__).parents[1] / "runtime" / "conftest.py"))
names = ("bundle", "other_bundle", "slow_bundle", "start", "server")
bundle, other_bundle, slow_bundle, start, server = (shared[name] for name in names)


@pytest.fixture(scope="session")
def promised() -> SimpleNamespace:
    return SimpleNamespace(**run_path(str(Path(__file__).with_name("promises.py"))))
