"""The report of a sweep in a real browser: whole on a phone, in the dark, whatever is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presplit.lab.sweep.found import Found, Routed, Row
from presplit.lab.sweep.worth import worths
from presplit.report.fronts import write_sweep

TIMED = {"engine": "an engine", "rounds": 100, "clock": "3 GHz, load 5.63"}
DENSITIES = (1.0, 0.5, 0.25)
SECONDS = {1.0: 1.0, 0.5: 0.5, 0.25: 0.6}
"""The sparsest takes longer than the next, though it multiplies less."""


def found(*, seeds: int, measured: bool) -> dict[str, Any]:
    rows = [row(density, seed, measured=measured) for seed in range(seeds) for density in DENSITIES]
    rows.append(
        Row(
            point="density=0.1",
            settings={},
            seed=0,
            dense=False,
            run="density=0.1/seed-0",
            state="failed",
            reason="its process was killed <script>alert(1)</script>",
        )
    )
    baseline = dict.fromkeys((each.point for each in rows), "dense")
    return Found(
        name="net",
        spec={},
        grid={"sparsity.density": ("1", "0.5", "0.25", "0.1")},
        seeds=tuple(range(seeds)),
        rows=tuple(rows),
        points=worths(rows, baseline),
        baseline=baseline,
        samples={"train": 900, "held_out": 100, "test": 500},
        measured=TIMED if measured else None,
        versions={"presplit": "1"},
        machine="a machine",
        command="presplit sweep net.toml --grid sparsity.density=1,0.5,0.25,0.1",
    ).to_builtins()


def row(density: float, seed: int, *, measured: bool) -> Row:
    name = "dense" if density == 1 else f"density={density:g}"
    accuracy = 0.9 + 0.01 * density + 0.003 * seed * density
    return Row(
        point=name,
        settings={"sparsity.density": density},
        seed=seed,
        dense=density == 1,
        run=f"{name}/seed-{seed}",
        state="finished",
        accuracy={"block1": accuracy - 0.1, "final": accuracy},
        routed=Routed(
            max_drop=0.005,
            thresholds={"block1": 0.8},
            shares={"block1": 0.5, "final": 0.5},
            accuracy=accuracy - 0.002,
            macs=6e5 * density,
        ),
        weights=int(1e5 * density),
        macs=int(1e6 * density),
        exit_macs={"block1": int(3e5 * density), "final": int(1e6 * density)},
        bytes=int(4e5 * density),
        seconds=1e-4 * SECONDS[density] if measured else None,
        train_s=12.0,
    )


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_fronts_of_a_sweep_are_whole_on_a_phone_and_in_the_dark(
    tmp_path: Path, open_page: Any, fits: Any, axe: Any, width: int, dark: bool
) -> None:
    file = write_sweep(tmp_path / "report.html", found(seeds=3, measured=True))
    page = open_page(file, width=width, dark=dark)
    assert fits(page)
    assert axe(page) == []
    assert page.locator("figure").count() == 7
    said = page.inner_text("main")
    first = page.locator("header .facts > div").nth(0).inner_text()
    assert "percentage points with 50 % of the weights (density=0.5)" in first
    assert "2x as fast" in page.locator("header .facts > div").nth(1).inner_text()
    assert "5.63 programs at a time wanted to compute" in said
    assert "density=0.25 than density=0.5" in said
    assert file.stat().st_size < 200_000


def test_one_seed_without_times_makes_a_report_too(tmp_path: Path, open_page: Any) -> None:
    page = open_page(write_sweep(tmp_path / "report.html", found(seeds=1, measured=False)))
    said = page.inner_text("main")
    assert "One seed says nothing of others" in said and "Times were not measured" in said
    assert "its process was killed <script>" in said
    nothing = {**found(seeds=1, measured=False), "points": []}
    assert open_page(write_sweep(tmp_path / "n.html", nothing)).locator("figure").count() == 0
