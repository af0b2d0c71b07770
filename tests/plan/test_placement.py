"""Placing several models: exact against brute force, and refusals that say what is missing."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from presplit import plan
from presplit.bundle import Bundle
from presplit.bundle.manifest import File
from presplit.core.errors import MissingLibrary, PlanError, SpecError
from presplit.plan.limits import Limits
from presplit.plan.options import Option, options, pruned
from presplit.plan.placement import Room, Task, solve, used
from presplit.plan.site import Site, read_site, site_from
from presplit.plan.synthetic import synthetic

Placing = Callable[[dict[str, object]], plan.Placement]


@pytest.fixture
def solver() -> None:
    pytest.importorskip(
        "ortools", reason="placing needs OR-Tools: pip install 'presplit[placement]'"
    )


def drawn(random: np.random.Generator) -> tuple[list[Task], dict[str, Room]]:
    """A few models on two devices and two servers that have just about room for them."""
    tasks: list[Task] = []
    for number in range(int(random.integers(1, 5))):
        net, found = random.integers(2), []
        for _ in range(int(random.integers(1, 6))):
            edge = (float(random.integers(1, 100)) / 100, *random.integers(0, 60, 2).tolist())
            where = random.integers(3)
            if where == 2:
                found.append(Option(edge[0], edge[1], edge[2] / 100))
                continue
            split = int(random.integers(3))
            tail = 10 * (3 - split) + 5 * int(net), float(random.integers(0, 50)) / 100
            server, name = ("rack", "cloud")[where], f"{net}.{split}"
            found.append(Option(edge[0], edge[1], edge[2] / 100, server, name, *tail))
        tasks.append(Task(f"m{number}", ("cam", "door")[number % 2], found))
    rooms = {
        name: Room(int(random.integers(20, 120)), float(random.integers(20, 120)) / 100)
        for name in ("cam", "door", "rack", "cloud")
    }
    return tasks, rooms


def exceeded(tasks: Sequence[Task], picked: Sequence[Option], rooms: dict[str, Room]) -> float:
    """By how much machines are exceeded, as shares of what they have."""
    pairs = zip(tasks, picked, strict=True)
    use = used([(task.device, option) for task, option in pairs])
    has = {
        (m, w): getattr(r, n)
        for m, r in rooms.items()
        for w, n in (("memory", "memory_bytes"), ("load", "load"))
    }
    return sum(max(0.0, amount / has[key] - 1) for key, amount in use.items())


@pytest.mark.usefixtures("solver")
def test_what_is_chosen_costs_as_little_as_brute_force_finds_or_nothing_fits() -> None:
    random, fitting = np.random.default_rng(3), 0
    for _ in range(60):
        tasks, rooms = drawn(random)
        every = list(itertools.product(*(task.options for task in tasks)))
        costs = [
            sum(option.cost for option in picked)
            for picked in every
            if exceeded(tasks, picked, rooms) < 1e-9
        ]
        if not costs:
            with pytest.raises(PlanError, match="no placement fits the machines; in the one that"):
                solve(tasks, rooms)
            continue
        fitting += 1
        solution = solve(tasks, rooms)
        picked = [task.options[n] for task, n in zip(tasks, solution.chosen, strict=True)]
        assert exceeded(tasks, picked, rooms) < 1e-9
        assert sum(option.cost for option in picked) == pytest.approx(min(costs), abs=1e-8)
        assert solution.gap == 0
    assert 15 < fitting < 50


@pytest.mark.usefixtures("solver")
def test_leaving_out_what_is_beaten_never_makes_a_placement_dearer() -> None:
    random, fewer = np.random.default_rng(5), 0
    for _ in range(40):
        tasks, rooms = drawn(random)
        tails = [{o.tail[0] for o in task.options if o.tail} for task in tasks]
        # A net that one task alone uses has tails that nobody shares.
        left = []
        for number, task in enumerate(tasks):
            others = set().union(*tails[:number], *tails[number + 1 :])
            shared = bool(tails[number] & others)
            left.append(Task(task.name, task.device, pruned(task.options, shared=shared)))
        fewer += sum(len(t.options) for t in tasks) - sum(len(t.options) for t in left)
        try:
            best = solve(tasks, rooms)
        except PlanError:
            continue
        cost = sum(t.options[n].cost for t, n in zip(tasks, best.chosen, strict=True))
        kept = solve(left, rooms)
        again = sum(t.options[n].cost for t, n in zip(left, kept.chosen, strict=True))
        assert again == pytest.approx(cost, abs=1e-8)
    assert fewer > 20


@pytest.mark.usefixtures("solver")
def test_a_tail_is_held_once_for_all_who_share_it() -> None:
    tail = Option(1.0, server="rack", tail="net.from-1", tail_bytes=100, tail_load=0.1)
    tasks = [Task(name, name, [tail]) for name in ("cam", "door", "gate")]
    rooms = {name: Room(1e9, 0.9) for name in ("cam", "door", "gate")}
    assert solve(tasks, {**rooms, "rack": Room(100, 0.5)}).chosen == (0, 0, 0)
    with pytest.raises(PlanError) as told:
        solve(tasks, {**rooms, "rack": Room(90, 0.2)})
    assert "rack has 90 B of memory and would need 100 B" in str(told.value)
    assert "rack may compute 0.2 s in a second and would need 0.3 s" in str(told.value)
    assert "cam" not in str(told.value)


def site(**changes: object) -> dict[str, object]:
    """Two cameras with a model each, one of them twice, and a server between them."""
    pi = "macs=1G,memory=4MB,power=5"
    model = {"bundle": "small.bundle", "rate_per_s": 2.0, "confidence": "none", "max_drop": 0.1}
    return {
        "devices": [{"name": "cam", "profile": pi}, {"name": "door", "profile": pi}],
        "servers": [{"name": "rack", "profile": "macs=1T,memory=24G,power=450"}],
        "links": [
            {"device": "cam", "server": "rack", "link": "up=100k,rtt=200ms"},
            {"device": "door", "server": "rack", "link": "up=100M,rtt=1ms"},
        ],
        "models": [
            {**model, "devices": ["cam", "door"]},
            {**model, "name": "b", "devices": ["cam"]},
        ],
        **changes,
    }


@pytest.fixture
def whole(bundle: Bundle) -> Bundle:
    """The bundle with the hashes of its files, by which a server names its tails."""
    manifest = bundle.manifest
    parts = [*manifest.segments, *manifest.exits.values()]
    files = {part.file: File(1, "0" * 64) for part in parts}
    return Bundle(bundle.path, msgspec.structs.replace(manifest, files=files), bundle._files)


@pytest.fixture
def placed(whole: Bundle) -> Placing:
    """Places a site whose bundle is in memory."""
    return lambda raw: plan.place(site_from(raw), bundles={"small.bundle": whole})


@pytest.mark.usefixtures("solver")
def test_alone_a_model_gets_the_plan_that_a_search_finds(whole: Bundle, placed: Placing) -> None:
    models = [{**site()["models"][0], "devices": ["door"]}]
    found = placed(site(models=models))
    queue = plan.wait(load_per_s=2.0, service_s=9e7 / 1e12)
    best = plan.search(
        whole,
        device="macs=1G,memory=4MB,power=5",
        link="up=100M,rtt=1ms",
        server="macs=1T,memory=24G,power=450",
        queue=queue,
        max_drop=0.1,
        confidence=None,
    )
    assert found.placed[0].plan.expected.mean_s == pytest.approx(best.expected.mean_s)
    assert found.mean_s == pytest.approx(best.expected.mean_s) and found.gap == 0
    assert found.machines[2].wait_s == pytest.approx(queue.mean_s)


@pytest.mark.usefixtures("solver")
def test_models_share_a_device_and_give_way_where_memory_or_time_is_short(placed: Placing) -> None:
    roomy = placed(site())
    cam, _, rack = roomy.machines
    assert {each.device for each in roomy.placed} == {"cam", "door"}
    assert cam.memory_bytes <= 4e6 and cam.load <= cam.max_load and rack.load <= rack.max_load
    small = [{"name": n, "profile": "macs=1G,memory=2MB,power=5"} for n in ("cam", "door")]
    tight = placed(site(devices=small))
    assert tight.machines[0].memory_bytes <= 2e6 < cam.memory_bytes
    assert tight.mean_s > roomy.mean_s
    least = placed(site(objective="energy"))
    assert least.energy_j <= roomy.energy_j
    promised = [{**each, "confidence": 0.95} for each in site()["models"]]
    assert all(e.plan.expected.accuracy >= 0.85 for e in placed(site(models=promised)).placed)


@pytest.mark.usefixtures("solver")
def test_what_cannot_be_placed_says_which_model_or_machine_and_by_how_much(placed: Placing) -> None:
    late = [{**each, "deadline_s": 0.002} for each in site()["models"]]
    with pytest.raises(PlanError, match="small on cam with rack: no plan answers within deadline"):
        placed(site(models=late))
    tiny = [{"name": n, "profile": "macs=1G,memory=1kB,power=5"} for n in ("cam", "door")]
    with pytest.raises(PlanError, match=r"cam has 1 kB of memory and would need \d"):
        placed(site(devices=tiny))
    often = [{**each, "rate_per_s": 5000.0} for each in site()["models"]]
    with pytest.raises(PlanError, match=r"rack may compute 0.7 s in a second and would need \d"):
        placed(site(models=often))
    alone = placed(site(servers=[], links=[]))
    assert {each.server for each in alone.placed} == {None}


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        (
            "servers",
            {"name": "cam", "profile": "x"},
            "machines: expected different ones",
        ),
        ("links", {"device": "cam", "server": "rck", "link": "x"}, "links.0..server: nothing is"),
        ("models", {"devices": ["x"]}, "models.0..devices: nothing is called 'x'; there are: cam"),
        ("models", {"devices": ["cam"], "rate": 1}, "models.0.: .*unknown field `rate`"),
        ("models", {"devices": []}, "models.0..devices: expected"),
        (
            "devices",
            {"name": "cam", "profile": "x", "max_load": 1},
            "devices.0..max_load: exp",
        ),
    ],
)
def test_a_site_that_names_what_is_not_there_is_refused(
    key: str, given: dict[str, object], said: str
) -> None:
    asked = {"bundle": "a", "rate_per_s": 1} if key == "models" else {}
    with pytest.raises(SpecError, match=said):
        site_from(site(**{key: [{**asked, **given}]}))


def test_without_the_library_one_sentence_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(MissingLibrary, match=r"pip install .*placement"):
        solve([Task("a", "cam", [Option(1.0)])], {"cam": Room(1.0, 1.0)})


def test_files_of_a_site_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "site.json").write_text(json.dumps(site()))
    found = read_site(tmp_path / "site.json")
    assert isinstance(found, Site) and found.models[1].called == "b"
    assert found.models[0].bundle == str(tmp_path / "small.bundle")
    assert found.models[0].limits == Limits(max_drop=0.1, confidence=None)


def test_a_large_net_leaves_few_options() -> None:
    found = synthetic(boundaries=20, exits=2, codecs=4, samples=400)
    asked = {"server": "rack", "name": "{}.{}.{}".format}
    asked |= {"rate_per_s": 1.0, "share": 1.0, "goal": "time"}
    given = options(
        found, Limits(max_drop=0.02, confidence=None), **asked
    )  # fmt: skip
    alone = pruned(given, shared=False)
    assert len(alone) <= len(pruned(given, shared=True)) <= len(given)
    assert min(o.cost for o in alone) == min(o.cost for o in given)
