"""Keys are made in one command, and with them a server and an edge find each other."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest

from presplit.cli.main import main
from presplit.cli.reached import advice_on
from presplit.lab.processes import running

small = run_path(str(Path(__file__).parents[1] / "runtime" / "small.py"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small["small_bundle"](tmp_path_factory.mktemp("keys") / "n.bundle", seed=1).path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def mistakes_are_told(command: Any, folder: Path, run: tuple[str | Path, ...]) -> None:
    """What the run of an edge says that comes to a server of ``folder`` without what it needs."""
    other = folder / "other"
    assert command("keys", other, "--server", "example.org", "--by", "token")[0] == 0
    for given, said in (
        ([], "a server with TLS does so on who comes without"),
        (["--tls-ca", folder / "ca.pem"], "shows no certificate that it admits"),
        (["--tls-ca", other / "ca.pem"], "of no authority that is trusted here"),
    ):
        told = command(*run, "--split", "1", "--deadline", "1", *given)[2]
        assert "could not be reached for 2 of them" in told and said in told


def test_with_the_lines_that_it_prints_a_server_and_an_edge_find_each_other(
    bundle: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, samples = tmp_path / "keys", tmp_path / "x.npy"
    np.save(samples, np.zeros((2, 16), np.float32))
    code, out, _ = command(
        *("keys", folder, "--server", "127.0.0.1", "--edge", "cam", "--by", "both", "--json")
    )
    assert code == 0
    made = json.loads(out)
    serve = shlex.split(made["serve"].replace("BUNDLE", str(bundle)))
    serve[serve.index("0.0.0.0")] = "127.0.0.1"
    with running(*serve, "--json", "--port", "0") as (address, _):
        line = made["run on cam"].replace("127.0.0.1:8443", address)
        line = line.replace("BUNDLE", str(bundle)).replace("SAMPLES", str(samples))
        edge = [*shlex.split(line)[1:], "--split", "1", "--deadline", "5"]
        code, out, err = command(*edge)
        assert code == 0, err
        assert {json.loads(answer)["why"] for answer in out.splitlines()} == {"server"}
        token = (folder / "edge-cam.token").read_text().strip()
        at = edge.index("--token-file")
        monkeypatch.setenv("PRESPLIT_TOKEN", f"{token}\n")
        without = edge[:at] + edge[at + 2 :]
        assert '"why": "server"' in command(*without)[1]
        monkeypatch.setenv("PRESPLIT_TOKEN", token[::-1])
        code, out, err = command(*without)
        assert '"why": "refused"' in out
        assert "it does not admit this edge: its token" in err
        assert token[::-1] not in out + err
        monkeypatch.delenv("PRESPLIT_TOKEN")
        shown = edge[edge.index("--tls-ca") : at + 2]
        mistakes_are_told(command, folder, ("run", bundle, samples, "--server", address))
        code, out, _ = command("measure", "--link", address, "--seconds", "0.5", *shown, "--json")
        assert code == 0
        assert json.loads(out)["up_bps"] > 0
        ways = dict(zip(shown[::2], shown[1::2], strict=True))
        gateway = [bundle, "--forward-to", address, "--split", "2", "--port", "0", "--json"]
        for name, flag in (("ca", "--tls-ca"), ("cert", "--tls-cert"), ("key", "--tls-key")):
            gateway += [f"--forward-{name}", ways[flag]]
        gateway += ["--forward-token-file", ways["--token-file"]]
        with running("presplit", "serve", *map(str, gateway)) as (middle, _):
            words = ("run", bundle, samples, "--server", middle, "--split", "1", "--deadline")
            code, out, _ = command(*words, "5")
            assert {json.loads(answer)["why"] for answer in out.splitlines()} == {"server"}


def test_every_edge_of_a_folder_shows_the_same(tmp_path: Path, command: Any) -> None:
    assert command("keys", tmp_path / "k", "--server", "h", "--edge", "a")[0] == 0
    code, _, err = command("keys", tmp_path / "k", "--edge", "b", "--by", "token")
    assert code == 2
    assert "known by allowed.txt" in err
    assert not (tmp_path / "k" / "edge-b.token").exists()
    assert "nothing to make" in command("keys", tmp_path / "k")[2]


@pytest.mark.parametrize("by", ["certificate", "token", "both"])
def test_a_later_edge_shows_what_those_before_do(tmp_path: Path, command: Any, by: str) -> None:
    assert command("keys", tmp_path, "--server", "h", "--edge", "a", "--by", by)[0] == 0
    code, out, err = command("keys", tmp_path, "--add-edge", "b", "--json")
    assert code == 0, err
    made = {each.name.replace("-a", "-b") for each in tmp_path.glob("edge-a.*")}
    assert set(json.loads(out)["made"]) == made


def test_a_command_that_fails_leaves_nothing_and_works_once_it_is_right(
    tmp_path: Path, command: Any
) -> None:
    folder = tmp_path / "its keys"
    wrong = [["--server", "bad host!", "--edge", "a"], ["--server", "h", "--edge", "A B"]]
    for words in (*wrong, ["--signing", "--server", "h", "--edge", ".."]):
        assert command("keys", folder, *words)[0] == 2
        assert not folder.exists()
    words = ("keys", folder, "--server", "h", "--edge", "a", "--edge", "a", "--signing", "--json")
    code, out, err = command(*words)
    assert code == 0, err
    assert f"{folder}/server.pem" in shlex.split(json.loads(out)["serve"])
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    for words in (["--edge", "b", "--signing"], ["--edge", "b", "--edge", "a"]):
        code, _, err = command("keys", folder, *words)
        assert code == 2
        assert "is there already" in err
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "B", "--host", "0.0.0.0"], "the server lacks TLS .* and a gate"),
        (["serve", "B", "--tls-cert", "no.pem"], "a certificate and its key go together"),
        (["run", "B", "x.npy", "--server", "h:1", "--token-file", "t"], "goes over TLS only"),
    ],
)
def test_what_would_be_open_by_mistake_is_refused(
    bundle: Path, tmp_path: Path, command: Any, words: list[str], said: str
) -> None:
    (tmp_path / "t").write_text("Zk3_wq0-81hJd7aBcD9eFg\n")
    (tmp_path / "t").chmod(0o600)
    named = {"B": str(bundle), "t": str(tmp_path / "t")}
    code, _, err = command(*(named.get(word, word) for word in words))
    assert code == 2
    assert re.search(said, err)


def test_a_device_that_pins_a_key_takes_what_was_signed_last(
    bundle: Path, tmp_path: Path, command: Any
) -> None:
    here, old, samples = tmp_path / "n.bundle", tmp_path / "old.bundle", tmp_path / "x.npy"
    shutil.copytree(bundle, here)
    np.save(samples, np.zeros((1, 16), np.float32))
    keys = tmp_path / "k"
    assert "presplit sign BUNDLE" in command("keys", keys, "--signing")[1]
    run = (samples, "--trust-key", keys / "signing.pub")
    assert "is not signed" in command("run", here, *run)[2]
    code, out, _ = command("sign", here, "--key", keys / "signing.key", "--serial", 7, "--json")
    assert code == 0
    assert json.loads(out)["serial"] == 7
    assert command("run", here, *run)[0] == 0
    shutil.copytree(here, old)
    assert command("sign", here, "--key", keys / "signing.key")[0] == 0
    assert command("run", here, *run, "--untrusted")[0] == 0
    code, _, err = command("run", old, *run)
    assert code == 2
    assert "is older than what this device has taken" in err


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("UNKNOWN: Hostname Verification Check failed.", "does not name this address"),
        ("Tls handshake failed: WRONG_VERSION_NUMBER", "does not speak TLS"),
        ("Tls handshake failed (TSI_PROTOCOL_FAILURE)", "the TLS handshake failed"),
        ("errors resolving no.such.host:8443", "no host of that name"),
        ("Connection refused", "nobody listens there"),
        ("PERMISSION_DENIED: not admitted", "name is not on the server's list"),
        ("", "as ever"),
    ],
)
def test_why_a_server_is_not_reached_is_told_with_its_cure(detail: str, said: str) -> None:
    assert said in advice_on(detail, "as ever")
