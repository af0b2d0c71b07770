"""``presplit report`` from the command line: it knows what it is given, and writes one file."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from presplit.bundle import read, write_plan
from presplit.core.cost import counted
from presplit.core.processor import processor
from presplit.profiles import device_from
from presplit.report.run_facts import Timed

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """The run in a place where it may be changed."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_run_is_shown_with_its_net_its_patterns_and_how_it_was_made(
    copied: Path, command: Command
) -> None:
    """What the result of an older run does not say is found anew."""
    file = copied / "result.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if k != "per_class"}
    file.write_text(json.dumps(kept))
    code, said, _ = command("report", copied, "--json")
    told = json.loads(said)
    assert code == 0 and told["kind"] == "run" and told["notes"] == []
    page = (copied / "report.html").read_text()
    assert told["report"] == str(copied / "report.html")
    timed, energy = told["timed"], told["energy"]
    assert timed["seconds"] > 0 and timed["dense_s"] > 0 and timed["processor"] == processor()
    assert energy["device"] == "raspberry-pi-4"
    # As counted, whatever the times are here, so that a bundle's report says the same.
    assert 0 < energy["energy_j"] < energy["dense_j"]
    assert told["bytes"] == len(page.encode()) < 200_000
    for words in ("block1", "exit final", "What is taken for what", "<img", "density 0.5"):
        assert words in page
    for words in ("time for a sample here", "energy on raspberry-pi-4, an estimate", "in turn"):
        assert words in page
    versions = json.loads((copied / "versions.json").read_text())
    assert {"command", "machine", "date"} < set(versions) and versions["machine"] in page


def test_a_time_is_kept_for_the_next_report_on_the_same_processor(
    copied: Path, command: Command
) -> None:
    kept = Timed(seconds=0.25, dense_s=0.5, how={}, processor=processor())
    (copied / "timing.json").write_bytes(msgspec.json.encode(kept))
    found = _told(command, copied, "--device", "macs=1G,memory=1MB,power=2")
    assert found["timed"]["seconds"] == 0.25 and found["notes"] == []
    assert 0 < found["energy"]["energy_j"] < found["energy"]["dense_j"]


@pytest.mark.long
def test_a_time_is_measured_only_where_it_is_wanted_and_not_known(
    copied: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = _told(command, copied, "--no-measure", "--device", "macs=1G,memory=1MB")
    assert without["timed"] is None and without["energy"] is None
    assert without["notes"] == ["Its time was not measured (--no-measure)."]
    page = (copied / "report.html").read_text()
    assert "no watts are known" in page and "time for a sample here" not in page
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert "needs onnxruntime: " in _told(command, copied)["notes"][0]
    file = copied / "timing.json"
    elsewhere = Timed(seconds=0.25, dense_s=0.5, how={}, processor="another")
    file.write_bytes(msgspec.json.encode(elsewhere))
    assert _told(command, copied, "--no-measure")["timed"]["processor"] == "another"
    assert _told(command, copied)["timed"]["processor"] == processor()
    assert json.loads(file.read_text())["seconds"] != 0.25


def _told(command: Command, run: Path, *options: str) -> dict[str, Any]:
    code, said, problem = command("report", run, "--json", *options)
    assert code == 0, problem
    return json.loads(said)


def test_a_run_whose_net_cannot_be_built_is_shown_by_its_files(
    copied: Path, command: Command
) -> None:
    (copied / "model.safetensors").write_bytes(b"torn")
    code, said, _ = command("report", copied)
    assert code == 0 and "not a safetensors file" in said
    assert "Class by class" in (copied / "report.html").read_text()


def test_a_bundle_is_shown_with_the_plan_that_would_be_found_and_its_parts(
    bundle: Path, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "b.html"
    options = ("--device", "macs=1M,memory=1MB", "--link", "lte", "--deadline", "1")
    code, said, _ = command("report", bundle, "--out", file, *options, "--json")
    told = json.loads(said)
    assert code == 0 and told["kind"] == "bundle" and "no plan" in told["notes"][0]
    page = file.read_text()
    assert len(page) < 200_000
    for words in (
        'class="bar"',
        "Where the time of an answer goes",
        "counted from multiplications: a guess",
        "deadline",
        "all-edge",
        "How a boundary travels",
        "boundary cut",
    ):
        assert words in page, words


def test_a_plan_for_another_place_is_evaluated_here_and_said_to_be(
    bundle: Path, command: Command, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own.bundle"))
    place = ("--device", "macs=1M,memory=1MB", "--link", "wifi")
    assert command("plan", own, *place, "--confidence", "none", "--save")[0] == 0
    known = json.loads(command("inspect", own, "--json")[1])["plan"]["planned_for"]
    assert known["device"]["name"] == "macs=1M,memory=1MB" and known["link"]["name"] == "wifi"
    shown = command("inspect", own)[1]
    assert "made to run on macs=1M,memory=1MB with server-cpu behind wifi" in shown
    # What the plan was made for need not be said again.
    code, said, _ = command("report", own, "--json")
    assert code == 0 and json.loads(said)["notes"] == []
    page = (tmp_path / "own.bundle.html").read_text()
    assert "On macs=1M,memory=1MB with server-cpu behind wifi" in page
    assert json.loads(said)["report"] == str(tmp_path / "own.bundle.html")
    code, said, _ = command("report", own, "--link", "nb-iot", "--json")
    assert code == 0 and "it was planned on macs=1M" in json.loads(said)["notes"][0]
    planned = read(own).plan
    assert planned is not None
    write_plan(own, msgspec.structs.replace(planned, planned_for=None))
    code, said, _ = command("report", own, "--link", "nb-iot", "--json")
    guess, differs = json.loads(said)["notes"]
    assert "behind nb-iot is a guess: the plan does not say where it was made for" in guess
    assert code == 0 and "say --device, --link, --server" in differs
    assert "That place is a guess" in (tmp_path / "own.bundle.html").read_text()
    parts = [read(own).manifest.segments, read(own).manifest.exits.values()]
    macs = [[part.macs for part in each] for each in parts]
    costs = counted(device_from("t4"), segment_macs=macs[0], exit_macs=[*macs[1], 0], when="now")
    measured = msgspec.structs.replace(costs, how="measured")
    (tmp_path / "costs.json").write_bytes(msgspec.json.encode(measured))
    both = [
        f"--against={bundle}",
        *(f"--{side}-costs={tmp_path / 'costs.json'}" for side in ("edge", "server")),
    ]
    assert command("report", own, *place, *both)[0] == 0
    page = (tmp_path / "own.bundle.html").read_text()
    assert "Times of computing are measured." in page and "dense all-edge" in page
    edge = f"--edge-costs={tmp_path / 'costs.json'}"
    assert command("plan", own, *place, edge, "--confidence", "none", "--save")[0] == 0
    code, said, _ = command("report", own, "--json")
    assert "give as --edge-costs those measured on t4, now" in json.loads(said)["notes"][0]
    assert json.loads(command("report", own, edge, "--json")[1])["notes"] == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "expected the directory of a run (spec.json, result.json), of a sweep"),
        (["unfinished/spec.json"], "this run is not finished; presplit train --resume"),
        (None, "there is no such directory"),
    ],
)
def test_any_other_directory_is_refused_in_a_sentence(
    files: list[str] | None, words: str, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "some"
    for name in files or []:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    if files == []:
        folder.mkdir()
    code, _, problem = command("report", folder)
    assert code == 2 and words in problem


def test_options_of_another_kind_are_refused(run: Path, bundle: Path, command: Command) -> None:
    code, _, problem = command("report", run, "--link", "wifi")
    assert code == 2 and "--link: belongs to a bundle" in problem
    for option in (["--model", "a:b"], ["--no-measure"]):
        code, _, problem = command("report", bundle, *option)
        assert code == 2 and f"{option[0]}: belongs to a run" in problem
