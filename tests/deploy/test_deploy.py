"""What deploy/ holds runs what the command takes, and passes the linters of its kind."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from presplit.cli.main import app
from presplit.cli.options import spread
from presplit.runtime.serving.config import config_from

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
UNITS = sorted(DEPLOY.glob("*.service"))
MANIFEST = DEPLOY / "kubernetes.yaml"
MOST_EXPOSED = 2.0
"""Of systemd's own count from 0, nothing is open, to 10."""


def joined(text: str) -> str:
    """``text`` without its comments, and with its continued lines in one."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(kept).replace("\\\n", " ")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command that a file runs, with that file's name."""
    for file in DOCKERFILES:
        text = joined(file.read_text())
        found = {
            word: json.loads(listed)
            for word, listed in re.findall(r"(ENTRYPOINT|HEALTHCHECK|CMD)[^[\n]*(\[[^\]]*\])", text)
        }
        yield file.name, found["ENTRYPOINT"] + found["CMD"]
        yield file.name, found["HEALTHCHECK"]
    for file in UNITS:
        (line,) = re.findall(r"^ExecStart=(.*)$", joined(file.read_text()), re.MULTILINE)
        yield file.name, shlex.split(line)
    probe = re.findall(r"^ +- (presplit|health|grpcs:.*|--[a-z-]+=.*)$", MANIFEST.read_text(), re.M)
    yield MANIFEST.name, probe
    (line,) = re.findall(r"args: (\[.*\])", MANIFEST.read_text())
    yield MANIFEST.name, ["presplit", "serve", *json.loads(line)]


@pytest.mark.parametrize(("file", "command"), [*commands()])
def test_what_is_run_is_what_the_command_takes(file: str, command: list[str]) -> None:
    name, verb, *words = command
    assert name.rpartition("/")[2] == "presplit"
    parser: Any = typer.main.get_command(app)
    with parser.make_context("presplit", spread([verb, *words])) as context:
        chosen = parser.commands[verb]
        assert chosen.make_context(verb, spread(words), parent=context).params, file


def test_the_servers_files_are_configurations_that_it_takes() -> None:
    text = MANIFEST.read_text().partition("serve.toml: |\n")[2].partition("---")[0]
    for given in (text, (DEPLOY / "serve.toml").read_text()):
        told = tomllib.loads(re.sub(r"^    ", "", given, flags=re.MULTILINE))
        config = config_from(told)
        assert (config.host, config.port, config.insecure) == ("0.0.0.0", 8443, False)
        assert config.secure is not None


def test_a_container_runs_without_rights_and_without_a_way_to_build() -> None:
    for file in DOCKERFILES:
        text = joined(file.read_text())
        last = text.rpartition("FROM ")[2]
        assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
        assert "pip uninstall" in last and "pip install" not in last
        assert re.search(r"ARG PYTHON=\d+\.\d+\.\d+-slim-[a-z]+$", text, re.MULTILINE)


def tool(name: str, *words: str | Path) -> str:
    """What a linter says, which must be satisfied; the test is skipped where it is missing."""
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed: make lint-deploy")
    done = subprocess.run([found, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.long
def test_dockerfiles_pass_hadolint() -> None:
    assert len(DOCKERFILES) == 2
    assert tool("hadolint", "--strict-labels", *DOCKERFILES) == ""


@pytest.mark.long
def test_the_manifest_is_what_kubernetes_takes() -> None:
    rules = "{extends: default, rules: {line-length: {max: 100}}}"
    assert tool("yamllint", "--strict", "-d", rules, MANIFEST) == ""
    said = tool("kubernetes-validate", "--strict", MANIFEST)
    kinds = re.findall(r"^kind: (\w+)$", MANIFEST.read_text(), re.MULTILINE)
    assert said.count("passed for resource") == len(kinds) == 6


@pytest.mark.long
def test_units_are_what_systemd_takes_and_leave_little_open(tmp_path: Path) -> None:
    assert len(UNITS) == 2
    for unit in UNITS:
        # It looks for the program, which is not there.
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/opt/presplit/bin/presplit", "/bin/true"))
        assert tool("systemd-analyze", "verify", copy) == ""
        said = tool("systemd-analyze", "security", "--offline=yes", copy)
        found = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert found and float(found[1]) <= MOST_EXPOSED
