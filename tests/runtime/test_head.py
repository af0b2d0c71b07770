"""The head: plans share what they have in common, and a plan that does not fit is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from runpy import run_path

import msgspec
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.cli.options import plan_with
from presplit.core.errors import PlanError
from presplit.core.plans import Plan
from presplit.core.types import Exit, Net, Runnable
from presplit.packing import pack
from presplit.runtime import Edge, Local
from presplit.runtime.engines import ENGINES, Engine
from presplit.runtime.head import Head, own_plan

IMAGES = np.random.default_rng(0).random((40, 16), dtype=np.float32)


def test_plans_share_the_stretches_that_they_have_in_common(bundle: Bundle) -> None:
    loaded: list[Runnable] = []

    def load(model: Runnable, threads: int) -> Engine:
        loaded.append(model)
        return ENGINES["onnxruntime"](model, threads)

    plans = [
        Plan(1, {"early": 0.9}),
        Plan(2, {"early": 0.9}),
        Plan(2, {"early": 0.5, "middle": 0.9}),
        Plan(3, {"early": 0.9, "middle": 0.9}),
        Plan(0),
    ]
    head = Head(bundle, plans, load=load)
    # 0 -> 1 with early, 1 -> 2 with middle, 2 -> 3; fallbacks go the same way from their split on.
    assert len(head) == len(loaded) == 3
    ways = [head.way(plan) for plan in plans]
    assert ways[0] == ways[1][:1] == ways[2][:1] == ways[3][:1]
    assert ways[1][1] is ways[2][1] is ways[3][1]
    assert (ways[4], head.fallback(plans[4])) == ((), ways[3])
    assert [head.fallback(plan) for plan in plans[:4]] == [ways[3][1:], *[ways[3][2:]] * 2, ()]


@pytest.fixture(scope="module")
def by_margin(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle without a plan whose evidence is of the policy margin."""
    model = run_path(str(Path(__file__).with_name("small.py")))["small_model"](1)
    path = tmp_path_factory.mktemp("margin") / "small.bundle"
    labels, names = np.arange(40) % 4, ["early", "middle", "final"]
    return pack(
        model,
        path,
        name="small",
        samples=IMAGES,
        labels=labels,
        policy="margin",
        exit_names=names,
    )


def test_thresholds_without_a_plan_are_meant_by_the_rule_of_the_bundle(by_margin: Bundle) -> None:
    words = {"split": None, "codec": None, "deadline_s": None}
    plan = plan_with(by_margin, threshold=["early=0.5"], **words)
    assert (plan.policy, plan.split, dict(plan.thresholds)) == ("margin", 3, {"early": 0.5})
    assert own_plan(by_margin).policy == "margin"
    with Edge.open(by_margin, plan=plan) as edge:
        early = [edge.answer(image).exit == "early" for image in IMAGES]
    by_rule = {
        rule: Local.open(by_margin, plan=Plan(3, {"early": 0.5}, policy=rule)).answer(IMAGES)
        for rule in ("margin", "confidence")
    }
    assert early == (by_rule["margin"].exit_numbers == 0).tolist()
    assert early != (by_rule["confidence"].exit_numbers == 0).tolist()


def test_a_bundles_own_plan_keeps_its_own_rule(by_margin: Bundle) -> None:
    saved = Plan(2, {"early": 0.7}, policy="entropy")
    manifest = msgspec.structs.replace(by_margin.manifest, plan=saved)
    planned = dataclasses.replace(by_margin, manifest=manifest)
    plan = plan_with(planned, split=1, codec="float16", threshold=[], deadline_s=0.1)
    assert (plan.split, plan.policy, dict(plan.thresholds)) == (1, "entropy", {})
    assert own_plan(planned) is saved
    words = {"split": None, "codec": None, "threshold": [], "deadline_s": None}
    halves = plan_with(planned, **words, forms={"form": "int8", "server_form": None})
    assert (halves.form, halves.server_form, halves.split) == ("int8", "float32", 2)


def test_exits_of_other_classes_cannot_answer_for_the_net(bundle: Bundle) -> None:
    """The bundle is one that a careless tool could write: its early exit has three classes."""
    early, *others = bundle.net.exits
    net = Net(bundle.net.boundaries, (Exit(early.name, early.after, 3), *others))
    manifest = msgspec.structs.replace(bundle.manifest, net=net)
    odd = dataclasses.replace(bundle, manifest=manifest)
    told = "exit 'early' tells 3 classes apart and the net 4: they cannot answer for each other"
    with pytest.raises(PlanError, match=told):
        Local.open(odd, plan=Plan(3, {"early": 0.0}))
    for split in (0, 1):  # there it holds the answer
        with pytest.raises(PlanError, match=told):
            Edge.open(odd, plan=Plan(split))
    assert Local.open(odd).answer(IMAGES).scores.shape == (40, 4)
