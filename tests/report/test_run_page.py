"""The report of a run, from the files of a run: what is there is shown, what is not is not."""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from presplit.core.costs import Device
from presplit.core.errors import DataError
from presplit.core.recipe import Training
from presplit.core.sections import ByDensity, Exits
from presplit.core.spec import Spec, spec_json
from presplit.core.types import Boundary, Exit, Net, Pattern
from presplit.report.pictures import SIDE, Connections, pictures, png, shades
from presplit.report.run_costs import energy_of
from presplit.report.run_facts import Layer, Made, RunFacts, Timed, read_run_facts, said
from presplit.report.run_page import run_highlights, run_lead, run_sections
from presplit.report.sections import report
from presplit.report.strip import strip

EXITS = [f"exit{k}" for k in range(4)] + ["final"]
CLASSES = [f"kind {k}" for k in range(30)]
NET = Net(
    tuple(Boundary(f"block{k}", (8, 4)) for k in range(6)),
    tuple(Exit(name, k + 1, 30) for k, name in enumerate(EXITS)),
)
COSTS = [(1000 * (k + 1), 100) for k in range(5)]
SPEC = Spec(
    name="birds",
    seed=7,
    sparsity=ByDensity(0.25),
    exits=Exits(tuple(f"block{k}" for k in range(1, 5))),
    training=Training(epochs=100),
)


def result(exits: list[str], classes: list[str]) -> dict[str, Any]:
    """What ``result.json`` holds of a run with so many exits and classes."""
    by_exit = {name: 0.9 + 0.01 * k for k, name in enumerate(exits)}
    bins = [{"confidence": k / 10, "accuracy": k / 10, "samples": 50} for k in range(1, 10)]
    confusion = [
        [40 if a == b else int((a + b) % 7 == 0) for b in range(len(classes))]
        for a in range(len(classes))
    ]
    thresholds = dict.fromkeys(exits[:-1], 0.5)
    shares = {name: 1 / len(exits) for name in exits}
    return {
        "name": "birds",
        "data": "birds",
        "samples": {"train": 900, "held_out": 100, "test": 500},
        "weights": 2_000,
        "accuracy": by_exit,
        "balanced_accuracy": by_exit,
        "is_uneven": True,
        "validation_accuracy": by_exit,
        "exit_macs": {name: 1e5 * (k + 1) for k, name in enumerate(exits)},
        "temperatures": dict.fromkeys(exits, 1.2),
        "policy": "confidence",
        "thresholds": [
            {
                "goal": {"max_drop": drop},
                "shares": shares,
                "thresholds": thresholds,
                "accuracy": 0.88 + drop,
                "macs": 2e5,
            }
            for drop in (0.0, 0.005, 0.01)
        ],
        "per_class": [
            {
                "name": name,
                "train": 30,
                "held_out": 3,
                "test": 40,
                "accuracy": by_exit,
                "interval": {exit_name: [0.8, 0.99] for exit_name in exits},
                "precision": by_exit,
            }
            for name in classes
        ],
        "confusion": dict.fromkeys(exits, confusion),
        "calibration": {
            name: {"before": {"error": 0.1, "bins": bins}, "after": {"error": 0.02, "bins": bins}}
            for name in exits
        },
        "curve": [
            {
                "thresholds": thresholds,
                "shares": shares,
                "macs": 1e4 * k,
                "validation_accuracy": 0.9,
                "accuracy": 0.9,
            }
            for k in range(1, 40)
        ],
    }


def made() -> Made:
    pattern = Pattern(n_in=256, tile=16, index=np.arange(256).reshape(4, 64))
    layers = [Layer(f"conv{k}", "256 → 64", "grouped", 400, 1600, 1000, 4000) for k in range(5)]
    return Made(NET, COSTS, layers, [Connections(f"conv{k}", pattern, "grouped") for k in range(5)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    epochs = [
        {"number": k, "loss": 1 / k, "accuracy": [0.5] * len(EXITS), "seconds": 1.0}
        for k in range(1, 101)
    ]
    (tmp_path / "spec.json").write_bytes(spec_json(SPEC))
    (tmp_path / "result.json").write_bytes(msgspec.json.encode(result(EXITS, CLASSES)))
    lines = b"\n".join(map(msgspec.json.encode, epochs))
    (tmp_path / "metrics.jsonl").write_bytes(lines + b'\n{"number": 101, "lo')
    (tmp_path / "versions.json").write_text('{"torch": "2", "command": "presplit train a.toml"}')
    return tmp_path


def page(facts: RunFacts) -> str:
    return report(
        title="Run",
        lead=run_lead(facts),
        facts=run_highlights(facts),
        sections=run_sections(facts),
        footer="",
    )


def test_a_long_run_with_many_exits_is_told_whole_and_stays_small(run: Path) -> None:
    facts = dataclasses.replace(read_run_facts(run), made=made())
    html = page(facts)
    assert len(html) < 200_000
    for words in (
        "A sparse net with 4 early exits, trained on birds",
        "of 500 test samples",
        "presplit train a.toml",
        "sparsity.density",
        "density 0.25",
        "kind 3",
        "100 epochs",
        "Accuracy, every class alike",
        "exit exit0: 20 %",
        "what adam keeps",
        "With exits, 80.00 % answered early",
        "88.50 %",
        "lose at most 0.5 points",
    ):
        assert words in html, words
    assert html.count("<img") == 5 and "<script" not in html


def test_what_an_old_run_does_not_say_is_left_out(run: Path) -> None:
    old = result(["final"], CLASSES)
    kept = ("name", "data", "weights", "accuracy", "thresholds")
    facts = dataclasses.replace(
        read_run_facts(run),
        result={**{key: old[key] for key in kept}, "thresholds": []},
        epochs=[],
        origin={"torch": "2"},
        unknown="its code is not here",
    )
    titles = [section.title for section in run_sections(facts)]
    assert titles == ["The net", "How good it is", "Where it comes from"]
    html = page(facts)
    assert "its code is not here" in html and "not recorded" in html


def test_a_file_that_is_damaged_is_named(run: Path) -> None:
    (run / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"result\.json: cannot be read as the file of a run"):
        read_run_facts(run)


def test_a_time_that_was_kept_is_of_the_net_as_it_is_now(run: Path) -> None:
    kept = Timed(seconds=0.25, dense_s=0.5, how={"engine": "an engine"}, processor="a board")
    (run / "model.safetensors").write_bytes(b"")
    (run / "timing.json").write_bytes(msgspec.json.encode(kept))
    facts = dataclasses.replace(
        read_run_facts(run),
        made=made(),
        device=Device("board", macs_per_s=1e6, memory_bytes=1e6, power_w=3),
    )
    assert facts.timed == kept
    # 5 layers of 4,000 MACs are 20 ms of 3 W, whatever the time is here.
    assert energy_of(facts) == pytest.approx((0.015, 0.06))
    counted = energy_of(dataclasses.replace(facts, timed=None))
    assert counted == energy_of(facts)
    html = page(facts)
    for words in ("median of an engine, on a board", "15 mJ", "Of the dense net's time, here"):
        assert words in html, words
    later = (run / "timing.json").stat().st_mtime_ns + 1
    os.utime(run / "model.safetensors", ns=(later, later))
    assert read_run_facts(run).timed is None


def test_only_what_a_spec_says_beyond_the_defaults_is_listed() -> None:
    assert said(Spec()) == {}
    assert said(SPEC) == {
        "name": "birds",
        "seed": 7,
        "sparsity.kind": "density",
        "sparsity.density": 0.25,
        "exits.after": ("block1", "block2", "block3", "block4"),
        "training.epochs": 100,
    }


def test_the_strip_tells_who_computes_each_segment_and_what_travels() -> None:
    html = strip(NET, COSTS, shares={"exit1": 0.75}, split=2, payload="int8, 32 B")
    assert html.count('class="segment edge"') == 2 and html.count('class="segment server"') == 3
    assert html.count("boundary cut") == 1 and "int8, 32 B" in html
    assert "exit exit1: 75 %" in html and "--load:1.000" in html
    alone = strip(NET, COSTS, split=5)
    assert "on the server" not in alone and "segment server" not in alone


def test_of_many_segments_those_between_exits_and_the_cut_stand_together() -> None:
    names = ["input", *(f"backbone.block_{k}.relu" for k in range(1, 51))]
    exits = (Exit("early", 10, 10), Exit("final", 50, 10))
    net = Net(tuple(Boundary(name, (8,)) for name in names), exits)
    html = strip(net, [(10, 1)] * 50, split=20)
    row, whole = html.split("<details>")
    assert row.count("segment edge") == 2 and row.count("segment server") == 1
    assert "<wbr>1 to block_<wbr>10" in row and "30 segments" in row and "300 MACs" in row
    assert whole.count('class="segment') == 50 and "backbone" not in html


def test_a_picture_shows_the_share_of_connections_in_each_cell() -> None:
    rows = np.tile(np.arange(500), (300, 1))
    drawn = shades(Pattern(n_in=1000, tile=1, index=rows))
    assert max(drawn.shape) <= SIDE and drawn.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn[0, 0] == 1.0 and drawn[0, -1] == 0.0
    html = pictures([Connections("fc1", Pattern(n_in=1000, tile=1, index=rows), "random")])
    assert "density 0.5: each output reads 500 of 1000 inputs" in html


def test_a_picture_is_a_png_whose_checksums_hold() -> None:
    raw = png(np.array([[0.0, 1.0, 0.01]]))
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    place, found = 8, dict[bytes, bytes]()
    while place < len(raw):
        (size,) = struct.unpack(">I", raw[place : place + 4])
        kind, body = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + size]
        (check,) = struct.unpack(">I", raw[place + 8 + size : place + 12 + size])
        assert check == zlib.crc32(kind + body)
        found[kind] = body
        place += 12 + size
    # Two values a byte, behind the filter's byte: nothing, all, and the least that is not nothing.
    assert zlib.decompress(found[b"IDAT"]) == b"\0\x0f\x10"
