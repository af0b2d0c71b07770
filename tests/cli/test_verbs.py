"""The command's verbs, from a spec to answers that two processes give together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presplit import plan
from presplit.bundle import read, write_plan
from presplit.core.plans import Plan, PlanTable, Row
from presplit.lab.processes import running
from presplit.profiles import link_from
from presplit.train import runs
from presplit.train.nets.to_onnx import to_onnx

Command = Callable[..., tuple[int, str, str]]


def one_object(said: tuple[int, str, str]) -> dict[str, Any]:
    """The one JSON object that is all of standard output."""
    code, out, problem = said
    assert code == 0, problem
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "presplit", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answers(*arguments: object) -> list[dict[str, Any]]:
    """What ``presplit run``, in a process of its own, says of each sample."""
    process = start("run", *arguments)
    out, problem = process.communicate(timeout=60)
    assert process.returncode == 0, problem
    assert "torch" not in problem
    return [json.loads(line) for line in out.splitlines()]


def said_by(command: Command, *arguments: object) -> list[dict[str, Any]]:
    """What ``presplit run``, in this process, says of each sample."""
    code, out, problem = command("run", *arguments)
    assert code in (0, 3), problem  # 3: every answer is degraded
    return [json.loads(line) for line in out.splitlines()]


def test_training_says_its_result_as_one_object_and_nothing_that_repeats(
    command: Command, spec: Path, tmp_path: Path
) -> None:
    said = command("train", spec, "--epochs", 2, "--seed", 4, "--out", tmp_path / "run", "--json")
    found = one_object(said)
    assert said[2] == "", "two quick epochs are no news"
    assert (found["name"], found["data"], found["run"]) == (
        "small",
        "digits",
        str(tmp_path / "run"),
    )
    assert set(found["accuracy"]) == {"block1", "final"}
    assert {"spec.json", "versions.json", "metrics.jsonl", "model.safetensors", "result.json"} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_the_paper_s_vocabulary_trains_a_sparse_net(command: Command, tmp_path: Path) -> None:
    words = [
        "--layers",
        64,
        16,
        10,
        "--fan-out",
        4,
        10,
        "--data",
        "digits",
        "--recipe",
        "paper",
        "--epochs",
        1,
    ]
    found = one_object(command("train", *words, "--out", tmp_path / "run", "--json"))
    assert found["weights"] == 64 * 4 + 16 * 10
    written = json.loads((tmp_path / "run" / "spec.json").read_text())
    assert written["sparsity"]["fan_out"] == [4, 10] and written["model"]["layers"] == [64, 16, 10]
    assert written["training"]["batch"] == 256 and written["data"]["pad_to"] == 64


def test_several_exits_and_families_are_said_in_options(command: Command, tmp_path: Path) -> None:
    words = [
        "--layers",
        80,
        40,
        20,
        10,
        "--density",
        0.5,
        "--family",
        "bernoulli",
        "--after",
        "relu1",
        "relu2",
    ]
    found = one_object(command("train", *words, "--epochs", 1, "--out", tmp_path / "run", "--json"))
    assert list(found["accuracy"]) == ["relu1", "relu2", "final"]


def test_evaluating_says_what_training_said(command: Command, run: Path) -> None:
    trained = json.loads((run / "result.json").read_text())
    assert one_object(command("evaluate", run, "--json")) == trained
    assert f"exit final: {100 * trained['accuracy']['final']:.2f} %" in command("evaluate", run)[1]


def test_inspecting_lists_every_boundary_and_adds_up(command: Command, bundle: Path) -> None:
    found = one_object(command("inspect", bundle, "--json"))
    net, rows = read(bundle).net, found["boundaries"]
    assert [row["bytes"] for row in rows] == [boundary.nbytes for boundary in net.boundaries]
    assert [row["codec_bytes"]["int8"] * 4 for row in rows] == [row["bytes"] for row in rows]
    own = sum(cost["macs"] for cost in found["exits"].values())
    assert found["macs"] == own + sum(row["next_macs"] for row in rows[:-1])
    table = command("inspect", bundle)[1]
    assert "exit block1" in table and "MACs to the next" in table


def test_inspecting_an_onnx_file_needs_no_bundle(
    command: Command, run: Path, bundle: Path, tmp_path: Path
) -> None:
    import torch

    model = to_onnx(runs.read_run(run).model, torch.zeros(1, 1, 8, 8))
    (tmp_path / "small.onnx").write_bytes(model.SerializeToString())
    found = one_object(command("inspect", tmp_path / "small.onnx", "--json"))
    cut = one_object(command("inspect", bundle, "--json"))
    assert (found["macs"], found["weights"]) == (cut["macs"], cut["weights"])
    assert [row["shape"] for row in found["boundaries"]] == [
        row["shape"] for row in cut["boundaries"]
    ]
    assert command("inspect", tmp_path / "small.onnx")[1].startswith("small: ")


def test_measured_costs_are_what_planning_takes(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    costs = tmp_path / "costs.json"
    measured = one_object(command("measure", bundle, "--seconds", 0.2, "--out", costs, "--json"))
    assert measured == json.loads(costs.read_text())
    net = read(bundle).net
    assert (
        len(measured["forms"]["float32"]["tail_s"]),
        len(measured["forms"]["float32"]["exit_s"]),
    ) == (net.last + 1, len(net.exits))
    planned = one_object(
        command("plan", bundle, "--edge-costs", costs, "--server-costs", costs, "--json")
    )
    assert (
        set(planned) == {"plan", "baselines"} and planned["plan"]["expected"]["how"] == "measured"
    )


def test_measured_costs_are_brought_to_how_the_machine_is_now(
    command: Command, bundle: Path, images: Path, tmp_path: Path
) -> None:
    costs, new = tmp_path / "costs.json", tmp_path / "new.json"
    one_object(
        command("measure", bundle, "--seconds", 0.5, "--samples", images, "--out", costs, "--json")
    )
    code, out, problem = command(
        "measure", bundle, "--anchor", costs, "--seconds", 0.5, "--out", new
    )
    if code == 2:  # a machine that was busy only a moment ago
        assert "the probes disagree" in problem and "measure the bundle anew" in problem
    else:
        assert "boundary" in out and "exits add: block1 " in out
        before, now = json.loads(costs.read_text()), json.loads(new.read_text())
        assert now["when"] >= before["when"] and now["device"] == before["device"]


def test_a_measured_link_is_what_planning_takes(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    with running("presplit", "serve", str(bundle), "--json") as (address, _):
        code, out, problem = command(
            "measure", "--link", address, "--seconds", 0.5, "--out", tmp_path / "link.json"
        )
    assert code == 0, problem
    assert "Mbit/s" in out and "round trip" in out and "requests stalled" in out
    link = link_from(str(tmp_path / "link.json"))
    assert link.name == address and link.rtt_draws is not None
    assert plan.search(read(bundle), device="laptop-cpu", link=link, server="server-cpu").expected


def test_profiles_are_listed_with_their_sources(command: Command) -> None:
    found = one_object(command("measure", "--profiles", "--json"))
    assert {"raspberry-pi-4", "cortex-m7"} <= {each["name"] for each in found["devices"]}
    assert {"nb-iot", "satellite"} <= {each["name"] for each in found["links"]}
    assert all(each["source"] and each["date"] for row in found.values() for each in row)
    code, out, _ = command("measure", "--profiles")
    assert code == 0 and "raspberry-pi-4" in out and "All are guesses" in out


def test_a_saved_plan_is_in_the_bundle_until_another_export_takes_its_place(
    command: Command, run: Path, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.bundle"
    shutil.copytree(bundle, path)
    before = read(path)
    planned = one_object(
        command("plan", path, "--link", "lte", "--deadline", "500ms", "--table", "--save", "--json")
    )
    after = read(path)
    assert after.plan is not None and after.plan.split == planned["plan"]["split"]
    assert after.manifest.model_hash == before.manifest.model_hash
    where = {"device": "raspberry-pi-4", "link": "lte", "server": "server-cpu", "deadline_s": 0.5}
    assert write_plan(str(path), plan.search(path, **where)).plan == after.plan
    assert after.manifest.table == plan.table(path, **where)
    code, text, _ = command("plan", path, "--front", "--table", "--server-load", 1)
    assert code == 0 and "edge" in text and "server" in text
    assert "With the round trip, the device and the server as planned:" in text
    code, _, problem = command("export", run, "--out", path)
    assert code == 2 and "a bundle with a plan is there" in problem and "--force" in problem
    assert read(path).plan == after.plan
    exported = command("export", run, "--out", path, "--force", "--json")
    assert "own.bundle carried a plan, made for what was there before" in exported[2]
    assert read(path).plan is None
    assert one_object(exported) == one_object(command("inspect", path, "--json"))


def test_served_and_local_answers_are_the_same(bundle: Path, images: Path) -> None:
    """Split over two processes, by every codec, and all on the edge, the labels are the same.

    Each answer says why it was given.
    """
    alone = answers(bundle, images)
    assert {(answer["where"], answer["why"]) for answer in alone} == {("edge", "planned")}
    assert [answer["sample"] for answer in alone] == list(range(20))
    assert all(answer["class"] == str(answer["label"]) for answer in alone)
    server = start("serve", bundle, "--port", 0, "--json")
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["address"]
        for split, codec in ((0, "int8"), (2, "float16")):
            plan_words = ("--split", split, "--codec", codec, "--deadline", "5s")
            found = answers(bundle, images, "--server", address, "--streams", 4, *plan_words)
            given = {(answer["where"], answer["why"], answer["degraded"]) for answer in found}
            assert given == {("server", "server", False)}
            own = read(bundle)
            sent = own.encoding(split, codec).nbytes(own.net.boundaries[split])
            assert {answer["up_bytes"] for answer in found} == {sent}
            assert [answer["label"] for answer in found] == [answer["label"] for answer in alone]
    finally:
        server.terminate()
        out, problem = server.communicate(timeout=30)
    assert (server.returncode, out) == (0, ""), problem


def test_without_a_server_the_exits_answer_and_say_so(
    command: Command, bundle: Path, images: Path
) -> None:
    for options, degraded, wanted in ((), False, 0), (("--fallback", "exit"), True, 3):
        code, out, problem = command("run", bundle, images, "--split", 2, *options)
        found = [json.loads(line) for line in out.splitlines()]
        assert {(answer["where"], answer["why"], answer["degraded"]) for answer in found} == {
            ("edge", "link_down", degraded)
        }
        assert code == wanted, problem
        assert ("20 degraded" in problem) == degraded


def test_a_threshold_decides_which_exit_answers(
    command: Command, bundle: Path, images: Path
) -> None:
    for threshold, exit_ in ((0.0, "block1"), (1.01, "final")):
        found = said_by(command, bundle, images, "--threshold", f"block1={threshold}")
        assert {answer["exit"] for answer in found} == {exit_}


def test_a_table_is_chosen_from_where_there_is_one(
    command: Command, bundle: Path, images: Path, tmp_path: Path
) -> None:
    """Unless the plan is given or asked for."""
    own, path = read(bundle), shutil.copytree(bundle, tmp_path / "planned.bundle")
    rows = [
        Row(Plan(own.net.last), 0.001, 0.0, 0.0, 0.0, 0.9),
        Row(Plan(own.net.last, {"block1": 0.0}), 0.0001, 0.0, 0.0, 0.0, 0.9),
    ]
    write_plan(read(path), Plan(2), table=PlanTable(tuple(rows)))
    for options, row, split, exit_ in (
        ([], 1, own.net.last, "block1"),
        (["--dynamic", "--deadline", "5s", "--slow", 2], 1, own.net.last, "block1"),
        (["--fixed"], None, 2, "final"),
        (["--split", own.net.last], None, own.net.last, "final"),
    ):
        found = said_by(command, path, images, *options)
        said = {(answer["row"], answer["split"], answer["exit"]) for answer in found}
        assert said == {(row, split, exit_)}
    for options, part in (
        (["--dynamic", "--split", 1], "--dynamic chooses the plan itself: leave --split"),
        (["--slow", 0.5], "--slow: factor must be a number from 1 to 10000, got 0.5"),
    ):
        code, out, problem = command("run", path, images, *options)
        assert (code, out) == (2, "") and part in problem
    code, out, problem = command("run", bundle, images, "--dynamic")
    assert (code, out) == (2, "") and "carries no table to choose from; make one with" in problem


def test_a_rate_spaces_the_questions(command: Command, bundle: Path, images: Path) -> None:
    found = said_by(command, bundle, images, "--rate", 100)
    asked = [answer["t_s"] for answer in found]
    assert all(at >= number / 100 - 1e-3 for number, at in enumerate(asked))


def test_floats_and_bytes_are_the_same_samples_and_another_scale_is_told(
    command: Command, bundle: Path, images: Path, tmp_path: Path
) -> None:
    raw = np.load(images).astype(np.float32)
    np.save(tmp_path / "raw.npy", raw)
    np.save(tmp_path / "floats.npy", raw / 255)
    paths = (images, tmp_path / "floats.npy", tmp_path / "raw.npy")
    said = [command("run", bundle, path) for path in paths]
    assert [code for code, _, _ in said] == [0, 0, 0]
    labels = [[json.loads(line)["label"] for line in out.splitlines()] for _, out, _ in said]
    assert labels[0] == labels[1]
    told = "the samples' values span 255, those that the net was exported with 1: are they"
    assert [told in problem for _, _, problem in said] == [False, False, True]


def test_the_doctor_finds_this_machine_well(command: Command) -> None:
    found = one_object(command("doctor", "--json"))
    assert set(found["checks"].values()) == {None}
    assert found["versions"]["numpy"] == np.__version__


def test_without_a_verb_the_command_says_which_there_are(command: Command) -> None:
    code, out, problem = command()
    assert (code, problem) == (0, "")
    verbs = (
        "demo",
        "train",
        "evaluate",
        "export",
        "inspect",
        "measure",
        "plan",
        "serve",
        "run",
        "doctor",
    )
    assert all(f"  {verb} " in out for verb in verbs)


def test_models_are_placed_together_and_each_bundle_carries_its_plan(
    command: Command, bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ortools", reason="needs OR-Tools: pip install 'presplit[placement]'")
    own = shutil.copytree(bundle, tmp_path / "own.bundle")
    site = tmp_path / "site.toml"
    site.write_text("""
        devices = [{ name = "cam", profile = "raspberry-pi-4" }]
        servers = [{ name = "rack", profile = "server-cpu", workers = 2 }]
        links = [{ device = "cam", server = "rack", link = "lte" }]
        [[models]]
        bundle = "own.bundle"
        devices = ["cam"]
        rate_per_s = 5
        max_drop = 0.05
        [[models]]
        name = "second"
        bundle = "own.bundle"
        devices = ["cam"]
        rate_per_s = 1
        max_drop = 0.05
    """)
    found = one_object(command("place", site, "--save", "--json"))
    first, second = found["placed"]
    assert (first["model"], second["model"], first["device"]) == ("own", "second", "cam")
    saved = read(own).plan
    assert saved is not None and saved.split == first["plan"]["split"]
    assert [each["name"] for each in found["machines"]] == ["cam", "rack"]
    code, text, _ = command("place", site)
    assert code == 0 and "the least there is" in text and "second" in text
    site.write_text(site.read_text().replace('"own.bundle"', '"other.bundle"', 1))
    code, _, problem = command("place", site)
    assert code == 2 and "other.bundle" in problem
