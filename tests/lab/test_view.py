"""Looking at a net: operators have places and times, a plan is predicted as planned, and run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtime"))
from small import small_model

from presplit.bundle import Bundle
from presplit.core.errors import GraphError, InputError, PlanError, SpecError
from presplit.core.plans import Plan
from presplit.core.times import NOTHING
from presplit.lab.view import (
    Asked,
    Places,
    Try,
    asked,
    choose,
    describe,
    first,
    look,
    open_net,
    predict,
)
from presplit.lab.view.kernels import placed
from presplit.lab.view.opened import viewed
from presplit.packing import pack
from presplit.plan.limits import Limits
from presplit.plan.search import plans
from presplit.runtime.engines.profile import Kernel, profiled

FAR = Asked(1, device="raspberry-pi-4", link="lte", deadline_s=0.2)
NAMES = ["early", "middle", "final"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 16)).astype(np.float32)
    y = random.integers(0, 4, 100)
    path = tmp_path_factory.mktemp("view") / "net.bundle"
    return pack(small_model(0), path, name="net", exit_names=NAMES, samples=x, labels=y)


@pytest.fixture(scope="module")
def places(labelled: Bundle) -> Places:
    net = viewed(labelled, "net.bundle")
    return Places(net, look(labelled, net.samples[0]))


@pytest.fixture(scope="module")
def weighed(places: Places) -> list[Plan]:
    """Every plan on a slow device behind a slow link."""
    return plans(places.scenario(FAR), deadline_s=FAR.deadline_s)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "plain.onnx"
    onnx.save(small_model(1), path)
    return path


def test_the_operators_of_all_pieces_cost_what_the_bundle_says(places: Places) -> None:
    facts = describe(places)
    for piece in (*facts["segments"], *facts["exits"]):
        assert sum(one["macs"] for one in piece["operators"]) == piece["macs"]
        assert sum(one["weights"] for one in piece["operators"]) == piece["weights"]
    assert facts["macs"] == 16 * 12 + 12 * 8 + 8 * 4 + 12 * 4 + 8 * 4


def test_every_operator_has_a_time_or_is_computed_with_one_that_has(places: Places) -> None:
    facts = describe(places)
    for piece in (*facts["segments"], *facts["exits"]):
        operators = piece["operators"]
        assert operators
        for one in operators:
            alone, joined = one["s"], one["within"]
            assert (alone is None) != (joined is None)
            assert joined is None or operators[joined]["s"] is not None
        assert sum(one["s"] or 0 for one in operators) == pytest.approx(piece["s"])


def test_a_kernel_is_charged_to_the_operator_that_gave_it_its_kind(labelled: Bundle) -> None:
    from presplit.graph.listing import operators

    model = labelled.runnable(0, 3, exits=NAMES[:-1])
    listed = operators(model.onnx)
    kernels = [
        Kernel("fused segment_00/0", "FusedGemm", np.array([1.0])),
        Kernel("boundary_02", "Gemm", np.array([2.0])),
        Kernel("exit_early/0", "Gemm", np.array([3.0])),
        Kernel("ReorderOutput", "ReorderOutput", np.array([4.0])),
    ]
    found = placed(listed, kernels, labelled.net, whole_s=20.0)
    times = {(one.piece, one.operator.kind): one.seconds for one in found.operators}
    assert times[("segment", 0), "Gemm"] == 2.0
    assert times[("segment", 1), "Gemm"] == 4.0  # the Relu after it gives the tensor's name
    assert times[("exit", 0), "Gemm"] == 6.0
    assert times[("exit", 0), "ReorderOutput"] == 8.0  # of what was computed before it
    assert found.segment_s.sum() + found.exit_s.sum() == 20.0


def test_a_profile_has_every_kernel_once_with_so_many_runs(labelled: Bundle) -> None:
    model = labelled.runnable(0, 3)
    kernels = profiled(model, {model.input: np.zeros((1, 16), np.float32)}, runs=4)
    assert len(kernels) == 3
    assert {each.seconds.shape for each in kernels} == {(4,)}


def test_what_is_predicted_is_what_the_planner_expects_of_the_same_plan(
    places: Places, weighed: list[Plan]
) -> None:
    for plan in weighed[:: len(weighed) // 12]:
        same = msgspec.structs.replace(
            FAR,
            split=plan.split,
            exits=plan.thresholds,
            codec=plan.codec,
            form=plan.form,
            server_form=plan.server_form,
        )
        found = predict(places, same)
        assert plan.expected is not None
        assert found["times"]["mean_s"] == pytest.approx(plan.expected.mean_s)
        assert found["times"]["p99_s"] == pytest.approx(plan.expected.p99_s)
        assert found["times"]["in_time"] == plan.expected.in_time
        assert found["accuracy"]["value"] == plan.expected.accuracy
        assert sum(part["s"] for part in found["parts"]) == pytest.approx(plan.expected.mean_s)
        assert sum(end["share"] for end in found["ends"]) == pytest.approx(1.0)


def test_what_does_not_go_together_is_brought_to_what_does(places: Places) -> None:
    told = predict(places, Asked(3, codec="int8", form="int8", server_form="int8"))["plan"]
    assert (told["codec"], told["form"], told["server_form"]) == ("float32",) * 3
    assert predict(places, Asked(1, {"middle": 0.5}))["plan"]["exits"] == {}
    with pytest.raises(SpecError, match=r"split: expected one in 0\.\.3, got 4"):
        predict(places, Asked(4))
    with pytest.raises(SpecError, match="no device named 'pi'"):
        predict(places, Asked(1, device="pi"))
    with pytest.raises(SpecError, match="what was asked: .*split"):
        asked({"split": "middle"})


def test_a_change_is_answered_within_a_tenth_of_a_second_of_computing(places: Places) -> None:
    wish = Asked(1, {"early": 0.5}, link="lte", device="raspberry-pi-4")
    predict(places, wish)
    began = time.process_time()
    predict(places, msgspec.structs.replace(wish, split=2))
    assert time.process_time() - began < 0.1


def test_the_planners_choice_is_no_slower_than_any_plan_that_it_may_take(
    places: Places, weighed: list[Plan]
) -> None:
    best = choose(places, FAR, Limits(confidence=None))
    told = predict(places, msgspec.structs.replace(FAR, **best["plan"]))
    assert told["times"]["mean_s"] == pytest.approx(best["mean_s"])
    floor = Limits().floor(places.scenario(FAR).accuracy)
    expected = [each.expected for each in weighed if each.expected is not None]
    allowed = [
        one.mean_s
        for one in expected
        if one.accuracy >= floor and one.in_time is not None and one.in_time >= 0.99
    ]
    assert best["mean_s"] == pytest.approx(min(allowed))
    with pytest.raises(PlanError, match="no plan answers within"):
        choose(places, msgspec.structs.replace(FAR, deadline_s=1e-7), Limits(confidence=None))


def test_a_device_takes_for_the_whole_net_what_its_profile_says(places: Places) -> None:
    from presplit.profiles.devices import DEVICES

    device = DEVICES["raspberry-pi-4"]
    side = places.side("raspberry-pi-4")
    macs = sum(part.macs for part in places.net.bundle.manifest.segments)
    assert side.factor == pytest.approx(
        (macs / device.macs_per_s + device.overhead_s) / places.here.warm_s
    )
    parts = side.costs.forms["float32"]
    assert parts.head_s[0] == NOTHING
    assert parts.head_s[1].mean_s < parts.head_s[3].mean_s


def test_costs_that_were_measured_take_the_place_of_this_machines(places: Places) -> None:
    slow = {form: parts.scaled(2.0) for form, parts in places.here.warm.items()}
    costs = msgspec.structs.replace(places.here.costs, device="box", forms=slow)
    others = Places(places.net, places.here, {"box": costs})
    assert others.side("box").costs is costs
    assert others.side("box").factor == pytest.approx(2.0, rel=0.3)
    assert "box" in describe(others)["devices"]
    twice, once = predict(others, Asked(3, device="box")), predict(others, Asked(3))
    assert twice["parts"][0]["s"] != once["parts"][0]["s"]


def test_a_plain_model_is_cut_for_the_time_being_and_its_accuracy_is_not_known(model: Path) -> None:
    with open_net(model) as net:
        path = net.bundle.path
        assert path.is_dir()
        places = Places(net, look(net.bundle, net.samples[0]))
        facts = describe(places)
        assert [one["name"] for one in facts["exits"]] == ["early", "middle"]
        assert facts["accuracy"]["kind"] == "unknown"
        assert "give --samples and --labels" in facts["accuracy"]["what"]
        sure = facts["exits"][0]["levels"][10]
        found = predict(places, Asked(2, {"early": sure}, codec="int8"))
        assert found["accuracy"] == {"kind": "unknown"}
        assert found["plan"]["codec"] == "int8"
        assert 0 < found["edge_share"] < 1
        best = choose(places, Asked(1, link="nb-iot"), Limits())
        assert best["plan"]["exits"] == {}  # nobody knows what an exit would cost in accuracy
        json.dumps([facts, found])
    assert not path.exists()


@pytest.mark.long
def test_samples_tell_how_often_exits_agree_and_with_labels_what_is_right(
    model: Path, tmp_path: Path
) -> None:
    samples, labels = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(samples, np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32))
    np.save(labels, np.arange(50) % 4)
    with open_net(model, samples=samples) as net:
        assert (net.accuracy, len(net.samples)) == ("agreement", 50)
        scores, hits = net.bundle.evidence()
        assert scores.shape == (3, 50)
        assert hits[-1].all()
    with open_net(model, samples=samples, labels=labels) as net:
        assert net.accuracy == "known"
    with (
        pytest.raises(SpecError, match="--labels needs the samples"),
        open_net(model, labels=labels),
    ):
        pass
    np.save(samples, np.zeros((5, 3), np.float32))
    with pytest.raises(InputError, match="16"), open_net(model, samples=samples):
        pass


def test_what_is_no_model_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(SpecError, match="neither"),
        open_net(tmp_path / "none.onnx"),
    ):
        pass
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    with pytest.raises(GraphError, match="wrong.onnx"), open_net(wrong):
        pass


@pytest.fixture(scope="module")
def trying(places: Places) -> Iterator[Try]:
    with Try(places) as trying:
        yield trying
    assert all(one.poll() is not None for one in trying._processes)


@pytest.mark.long
def test_a_plan_is_run_for_real_within_three_seconds(places: Places, trying: Try) -> None:
    ends = {one["name"]: one["levels"][10] for one in describe(places)["exits"]}
    wish = Asked(2, ends, codec="int8", device="raspberry-pi-4", link="up=3M,rtt=40ms")
    trying.run(wish)  # the server starts
    began = time.monotonic()
    found = trying.run(wish)
    assert time.monotonic() - began < 3.5
    assert found["answers"] >= 20
    share = found["ends"]["early"] / found["answers"]
    assert share == pytest.approx(predict(places, wish)["ends"][0]["share"], abs=0.05)
    assert found["p99_s"] > 0.04
    assert sum(part["s"] for part in found["parts"]) == pytest.approx(found["mean_s"], rel=0.05)
    alone = trying.run(Asked(3))
    assert set(alone["ends"]) == {"final"}
    assert alone["parts"][2]["s"] == 0


@pytest.mark.long
def test_a_time_that_is_too_long_or_a_device_that_is_too_fast_is_said(trying: Try) -> None:
    found = trying.run(Asked(0, device="h100", link="up=100,rtt=1s"))
    assert found["answers"] == 0
    assert "no answer was there within three seconds" in found["notes"]
    lossy = trying.run(Asked(0, link="wifi-busy,rtt=1ms"))
    assert any("loses packets" in note for note in lossy["notes"])


def test_what_is_first_seen_is_the_planners_choice_or_else_the_fastest(places: Places) -> None:
    limits = Limits(confidence=None)
    begin = first(places, FAR, limits)
    assert choose(places, FAR, limits)["plan"].items() <= msgspec.structs.asdict(begin).items()
    never = msgspec.structs.replace(FAR, deadline_s=1e-6)
    with pytest.raises(PlanError):
        choose(places, never, limits)
    assert first(places, never, limits).split in (0, places.net.bundle.net.last)
    assert first(places, never, limits).deadline_s == 1e-6
