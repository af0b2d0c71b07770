"""A run beside its bundle, by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Said = tuple[int, str, str]


@pytest.mark.long
def test_a_bundle_has_right_what_its_run_has(
    command: Callable[..., Said], run: Path, bundle: Path
) -> None:
    code, told, problem = command("compare", run, bundle, "--json")
    assert code == 0, problem
    found = json.loads(told)
    one, other = found["runs"]
    assert one["accuracy"] == other["accuracy"] and one["macs"] == other["macs"]
    assert one["bytes"] == other["bytes"]
    assert (found["pairs"][0]["gains"], found["pairs"][0]["losses"]) == (0, 0)
    assert found["differing"] == {}
    _, told, _ = command("compare", run, bundle)
    assert "Their specs are the same" in told and "0 samples only 2 has right" in told
    assert "leaving early (at most 1 points lost" in told
