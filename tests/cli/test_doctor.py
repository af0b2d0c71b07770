"""`presplit doctor` tries what it tells of, and its install lines name what there is."""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from presplit.cli import doctor
from presplit.core.installing import install_line

Command = Callable[..., tuple[int, str, str]]
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_every_extra_that_is_named_exists_and_brings_the_library() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for name, (_, extra) in doctor.LIBRARIES.items():
        if not extra:
            continue
        brought = [*extras[extra]]
        for more in brought:  # presplit[edge] of serve brings what edge does
            if more.startswith("presplit["):
                brought += extras[more[9:-1]]
        names = [line.partition(">")[0].partition("[")[0] for line in brought]
        assert name in names, f"{extra} does not bring {name}"


def test_requests_in_the_open_and_over_tls_are_made_and_a_broken_one_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ("inference", "torch and numpy", "ortools and protobuf", "ray and protobuf", "opencv")
    known = doctor._checks

    def quick(versions: dict[str, str | None]) -> list[tuple[str, doctor.Check]]:
        return [check for check in known(versions) if check[0] not in slow]

    monkeypatch.setattr(doctor, "_checks", quick)
    code, out, problem = command("doctor", "--json")
    facts = json.loads(out)
    assert code == 0, problem
    assert facts["checks"]["request over TLS"] is None
    assert facts["checks"]["request on a free port"] is None
    ill = [("inference", lambda: doctor._runs("raise OSError('illegal instruction')", "a cure"))]
    monkeypatch.setattr(doctor, "_checks", lambda versions: ill)
    code, out, _ = command("doctor")
    assert code == 1 and "fails: OSError: illegal instruction; a cure" in out
    assert out.splitlines()[-1].startswith("Next: mend what fails above")


def test_a_library_that_is_too_old_is_told_with_its_cure() -> None:
    versions = {"onnxruntime": "1.2.3", "numpy": importlib.metadata.version("numpy")}
    said = doctor._old(versions) or ""
    assert said.startswith("onnxruntime 1.2.3 is older than 1.")
    assert "install -U" in said and "numpy" not in said


def test_an_install_line_names_where_presplit_is_from() -> None:
    wheel = {"url": "file:///tmp/a%20b/presplit-0.1.0-py3-none-any.whl", "archive_info": {}}
    assert install_line("edge", origin=wheel).endswith(
        "install '/tmp/a b/presplit-0.1.0-py3-none-any.whl[edge]'"
    )
    web = {"url": "https://example.org/presplit.whl", "archive_info": {}}
    assert install_line("edge", origin=web).endswith(
        "'presplit[edge] @ https://example.org/presplit.whl'"
    )
    assert install_line("edge", origin={}).endswith("install 'presplit[edge]'")
