"""The same small nets and processes as for the runtime's own tests, and what is promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from presplit.bundle import Bundle

shared = run_path(str(Path(__file__).parents[1] / "runtime" / "conftest.py"))
names = ("bundle", "other_bundle", "slow_bundle", "start")
bundle, other_bundle, slow_bundle, start = (shared[name] for name in names)


@pytest.fixture(scope="session")
def server(bundle: Bundle, start: Any) -> Iterator[str]:
    """A server in a process of its own."""
    with start("presplit", "serve", str(bundle.path), "--json", "--port", "0") as (address, _):
        yield address


@pytest.fixture(scope="session")
def promised() -> SimpleNamespace:
    return SimpleNamespace(**run_path(str(Path(__file__).with_name("promises.py"))))
