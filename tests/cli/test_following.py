"""Each verb names the next command, true for the files at hand; programs read one JSON object."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from presplit import __version__
from presplit.bundle import read
from presplit.cli import following
from presplit.cli.main import app
from presplit.runtime.serving.config import Secure

Command = Callable[..., tuple[int, str, str]]
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json_and_a_wrong_command_is_one_object(
    verb: str, command: Command
) -> None:
    assert any("--json" in parameter.opts for parameter in VERBS[verb].params)
    code, out, problem = command(verb, "--no-such-option", "--json")
    found = json.loads(out)
    assert code == 2 and found["exit_code"] == 2 and "--no-such-option" in found["error"]
    assert found["kind"] == "UsageError" and f"presplit {verb} --help" in problem


def test_what_is_refused_is_one_object_with_its_kind(command: Command, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for words, kind in (
        (["train", nowhere], "SpecError"),
        (["evaluate", nowhere], "DataError"),
        (["export", nowhere], "DataError"),
        (["plan", nowhere], "BundleError"),
        (["run", nowhere, "x.png"], "BundleError"),
        (["init", nowhere], "DataError"),
    ):
        code, out, problem = command(*words, "--json")
        found = json.loads(out)
        assert (code, found["kind"]) == (2, kind), found
        assert " ".join(found["error"].split()) in " ".join(problem.split())
        assert command(*words)[1] == "", "people read it on standard error alone"


def test_a_command_that_is_named_runs(command: Command, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "my net.bundle"
    shutil.copytree(bundle, path)

    def after(said: str) -> list[str]:
        last = said.splitlines()[-1]
        assert last.startswith("Next: presplit "), last
        return shlex.split(last)[2:]

    assert following.after_run(tmp_path) == f"presplit export {tmp_path}"
    code, out, _ = command("inspect", path)
    planned = command(*after(out), "--device", "cortex-m7,memory=1MB", "--link", "wifi")
    assert planned[0] == 0, planned[2]
    saving = after(planned[1])
    assert saving == ["plan", str(path), *saving[2:-1], "--save"]
    code, said, _ = command(*saving)
    assert code == 0 and read(path).plan is not None
    assert after(said)[0] in ("serve", "run") and str(path) in after(said)
    assert after(command("inspect", path)[1]) == after(said), "a saved plan is put to work"
    # a run whose bundle carries a plan is not exported over it unasked
    told = following.after_run(tmp_path)
    assert told.startswith((f"presplit serve '{path}'", f"presplit run '{path}'"))
    assert f"presplit export {tmp_path} --force makes the bundle anew" in told
    told = following.after_run(tmp_path, is_new=True)
    assert told.startswith(f"presplit export {tmp_path} --force, which replaces {path} ")


def test_an_edge_is_told_how_it_reaches_the_server(command: Command, tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    words = ("--server", "192.0.2.7", "--server", "box.example", "--edge", "camera", "--by", "both")
    assert command("keys", keys, *words)[0] == 0
    secure = Secure(
        tls_cert=str(keys / "server.pem"),
        tls_key=str(keys / "server.key"),
        tls_ca=str(keys / "ca.pem"),
        allow=str(keys / "allowed.txt"),
        tokens=str(keys / "tokens.txt"),
    )
    options = shlex.split(" ".join(following.reaching("0.0.0.0:8443", secure)))
    assert options[:2] == ["--server", "grpcs://192.0.2.7:8443"]
    for option in ("--tls-ca", "--tls-cert", "--tls-key", "--token-file"):
        assert Path(options[options.index(option) + 1]).is_file(), option
    assert following.reaching("127.0.0.1:9000", Secure()) == ["--server", "127.0.0.1:9000"]
    (_, here) = following.reaching("0.0.0.0:9000", Secure())
    assert not here.startswith("0.0.0.0") and here.endswith(":9000")


def test_the_version_is_said(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command("--version") == (0, f"presplit {__version__}\n", "")
