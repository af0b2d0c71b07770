"""What the runtime's tests share.

It is bundles of small nets, a server of the first, and a way to start other processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from presplit.lab.processes import running

small = run_path(str(Path(__file__).with_name("small.py")))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small["small_bundle"](tmp_path_factory.mktemp("one") / "small.bundle", seed=1)


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small["small_bundle"](tmp_path_factory.mktemp("two") / "small.bundle", seed=2)


@pytest.fixture(scope="session")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One segment takes some tens of milliseconds; the others microseconds."""
    return small["small_bundle"](tmp_path_factory.mktemp("slow") / "small.bundle", seed=3, slow=60)


@pytest.fixture(scope="session")
def busy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One segment takes some milliseconds; the others microseconds."""
    return small["small_bundle"](tmp_path_factory.mktemp("busy") / "small.bundle", seed=3, slow=6)


@pytest.fixture(scope="session")
def start() -> Any:
    return running


@pytest.fixture(scope="session")
def server(bundle: Any) -> Iterator[str]:
    with small["listening"](bundle) as address:
        yield address
