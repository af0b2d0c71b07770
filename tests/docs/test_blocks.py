"""What the documentation says can be done: its commands parse, its links lead somewhere, it runs.

The quick tests read every page; the long one runs every block of every page, in order, in a folder
of its own.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import typer

from presplit.cli import main as door
from presplit.cli.main import app
from presplit.cli.options import spread
from presplit.core.sections import SECTIONS
from presplit.core.types import WHYS

sys.path.insert(0, str(Path(__file__).parent))

import doc_pages as pages
import doc_workshop as workshop

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
MOST_UNTRIED = 40
TIMEOUT_S = 240
SHELL = ("sh", "console")
STAYS = re.compile(r"presplit (serve|view|top)\b|--live\b")
"""Commands that stay until they are told to end."""
ENDS = re.compile(r"--print-config|--json|--once")
STANDS = re.compile(r"Ready at|http://")
"""What they say once they can be used."""
PORTS = ("8443", "8444", "8080", "8081", "9000", "8001")
"""Ports that the pages name; each page is tried on free ones."""
MADE = ("reference/", "methods/")
"""Folders of pages that are made of the code when the site is built."""
ALL = [block for page in pages.PAGES for block in pages.blocks(page)]


def problem(arguments: list[str]) -> str:
    """What is wrong with a call of the command, as far as its options tell; nothing runs."""
    verb, *rest = spread(arguments)
    if verb.startswith("-"):
        return ""
    if verb not in COMMANDS:
        return f"no verb {verb}"
    try:
        COMMANDS[verb].make_context(verb, rest)
    except typer.Exit:
        return ""
    except Exception as error:
        return error.format_message() if hasattr(error, "format_message") else str(error)
    return ""


def test_every_command_in_a_block_has_options_that_exist():
    wrong = [
        f"{block}: presplit {' '.join(call)}: {fault}"
        for block in ALL
        if block.kind in SHELL
        for line in block.commands
        for call in pages.presplit_calls(pages.tried(block.page).spelled(line))
        if (fault := problem(call))
    ]
    assert wrong == []


def test_every_verb_and_option_named_in_the_text_exists():
    wrong: list[str] = []
    for page in pages.PAGES:
        for said in pages.inline(page):
            _, verb, *rest = said.split()
            known = (
                {
                    name
                    for each in COMMANDS[verb].params
                    for name in [*each.opts, *each.secondary_opts]
                }
                if (verb in COMMANDS)
                else set()
            )
            named = {word.split("=")[0] for word in rest if re.match(r"--[a-z]", word)}
            is_wrong = verb not in COMMANDS and re.match(r"[a-z]", verb)
            if is_wrong or named - known - {"--help", "--json"}:
                wrong.append(f"{page.name}: {said}")
    assert wrong == []


def test_a_planted_option_is_found():
    assert problem(["plan", "net.bundle", "--dead-line", "1s"])
    assert problem(["fly"]) == "no verb fly"


def test_every_benchmark_that_a_page_names_exists():
    named = {
        name
        for page in pages.PAGES
        for name in re.findall(r"python -m benchmarks ([a-z_]+)", page.read_text())
    }
    assert [name for name in named if not (pages.ROOT / f"benchmarks/{name}.py").exists()] == []


def test_every_link_leads_to_a_page_and_a_heading_of_it():
    wrong: list[str] = []
    for page in pages.PAGES:
        for file, heading in pages.links(page):
            target = (page.parent / file).resolve() if file else page
            if file.startswith(MADE):
                continue
            is_page = target.suffix == ".md" and target.exists()
            lost = heading and is_page and heading not in pages.headings(target)
            if not target.exists() or lost:
                wrong.append(f"{page.name}: {file}#{heading}")
    assert wrong == []


def test_python_blocks_import_what_exists_and_toml_is_toml():
    for block in ALL:
        if block.kind == "toml":
            tomllib.loads(block.text)
        if block.kind != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("presplit"):
                home = importlib.import_module(node.module or "")
                missing = [name.name for name in node.names if not hasattr(home, name.name)]
                for name in missing:
                    importlib.import_module(f"{node.module}.{name}")


def test_every_why_and_every_exit_code_is_explained():
    text = (pages.ROOT / "docs/answers.md").read_text()
    assert re.findall(
        r"^\| `(\w+)` \| (?:an early exit|the (?:last|server|edge))", text, re.MULTILINE
    ) == list(WHYS)
    codes = set(re.findall(r"(\d+) (?:done|a check|what was|interrupted|if)", str(door.__doc__)))
    assert codes == set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE))


def test_every_key_of_a_spec_is_in_its_table():
    text = (pages.ROOT / "docs/spec.md").read_text() + (pages.ROOT / "docs/training.md").read_text()
    keys = {
        f"{section}.{field}"
        for section, kinds in SECTIONS.items()
        for kind in kinds
        for field in kind.__struct_fields__
    }
    missing = [key for key in sorted(keys) if not re.search(rf"\b{key.split('.')[1]}\b", text)]
    assert missing == []


def test_a_block_is_of_a_known_kind_and_few_say_that_they_are_not_tried():
    assert {block.kind for block in ALL} <= {*SHELL, "python", "toml", "json", "text"}
    untried = [f"{block}: {block.untried}" for block in ALL if block.untried]
    print(f"{len(untried)} of {len(ALL)} blocks are not tried:", *untried, sep="\n  ")
    assert len(untried) <= MOST_UNTRIED


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def shortened(line: str) -> str:
    """A command that takes seconds in place of minutes."""
    if re.match(r"(.* )?presplit train\b", line):
        line = re.sub(r" --epochs \d+", "", line) + " --epochs 1"
    if re.match(r"presplit measure (?!--profiles)", line) and "--anchor" not in line:
        line = re.sub(r" --seconds \S+", "", line) + " --seconds 2"
    if re.match(r"presplit demo\b", line):
        line += " --images 20"
    return line


class Desk:
    """A folder in which the blocks of one page are done, one after another."""

    def __init__(self, folder: Path, page: Path, values: dict[str, Any]) -> None:
        self.folder, self.tried, self.values = folder, pages.tried(page), values
        self.ports = {port: str(free_port()) for port in PORTS}
        self.servers: list[subprocess.Popen[bytes]] = []
        door = folder / ".bin"
        door.mkdir()
        for name, called in {"presplit": " -m presplit", "python": ""}.items():
            (door / name).write_text(f'#!/bin/sh\nexec {sys.executable}{called} "$@"\n')
            (door / name).chmod(0o755)
        state = str(folder / ".state")
        path = f"{door}:{os.environ['PATH']}"
        source = f"{pages.ROOT / 'src'}:{pages.ROOT}"
        own = {"PATH": path, "XDG_STATE_HOME": state, "PYTHONPATH": source, "BROWSER": "true"}
        self.env = os.environ | own

    def spelled(self, text: str) -> str:
        """``text`` with the page's words and the free ports put in."""
        text = self.tried.spelled(text)
        for port, free in self.ports.items():
            text = re.sub(rf"(?<!\d){port}(?!\d)", free, text)
        if self.servers:
            text = re.sub(r"\bPID\b", str(self.servers[-1].pid), text)
        return text

    def do(self, block: pages.Block) -> None:
        """What a block says."""
        if block.kind in ("toml", "json", "text") and block.title:
            (self.folder / block.title).write_text(self.spelled(block.text))
        if block.kind == "python":
            text = re.sub(r"epochs=\d+", "epochs=2", self.spelled(block.text))
            exec(compile(text, str(block), "exec"), self.values)  # noqa: S102 - our own pages
        for line in block.commands if block.kind in SHELL else ():
            line = shortened(self.spelled(line))
            if STAYS.search(line) and not ENDS.search(line):
                self.start(line, block)
            else:
                self.run(line, block)

    def run(self, line: str, block: pages.Block) -> None:
        """A command that ends, and well."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, f"{block}: {line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def start(self, line: str, block: pages.Block) -> None:
        """A command that stays until another takes its port, or the page ends."""
        port = self.ports["8443"]
        if "presplit serve" in line:
            named = re.search(r"--port (\d+)", line)
            port = named[1] if named else port
            line += "" if named else f" --port {port}"
            self.stop(port)
        said = self.folder / f".said-{len(self.servers)}"
        with said.open("w") as into:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env=self.env,
                stdout=into,
                stderr=subprocess.STDOUT,
            )
        server.args = (port if "presplit serve" in line else "",)
        self.servers.append(server)
        until = time.monotonic() + TIMEOUT_S
        while not STANDS.search(said.read_text()):
            assert server.poll() in (None, 0), f"{block}: {line}\n{said.read_text()}"
            assert time.monotonic() < until, f"{block}: {line} is not ready\n{said.read_text()}"
            time.sleep(0.1)

    def stop(self, port: str = "") -> None:
        """End the server of a port, or all."""
        for server in [each for each in self.servers if not port or each.args == (port,)]:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
            self.servers.remove(server)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> workshop.Workshop:
    return workshop.Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def desk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    shop: workshop.Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> Generator[Desk]:
    values = shop.lay_out(pages.tried(request.param).things, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = Desk(tmp_path, request.param, values)
    yield found
    found.stop()


RUN = [
    page
    for page in pages.PAGES
    if any(block.kind in (*SHELL, "python") and not block.untried for block in pages.blocks(page))
]


@pytest.mark.long
@pytest.mark.parametrize("desk", RUN, ids=lambda page: page.stem, indirect=True)
def test_every_block_of_a_page_runs(desk: Desk, request: pytest.FixtureRequest):
    page = request.node.callspec.params["desk"]
    for block in pages.blocks(page):
        if not block.untried:
            desk.do(block)
