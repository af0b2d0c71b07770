"""How well plans are kept: predicted times, the chosen way, the asked reliability, the search.

Bundles are made, measured on a slowed edge and on the server, and run over shaped links with real
processes: what the planner expects stands beside what answers took. The planner goes by measured
costs and a measured link, as a user's would.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _choosing, _following, _keeping, _predicting
from benchmarks._bundles import KINDS
from benchmarks._cases import (
    LINKS,
    QUICK_LINKS,
    Case,
    Ground,
    Subject,
    Way,
    chosen,
    expectations,
    finalists,
    joined,
    say,
    serving,
    shape,
    subject,
)
from presplit.bundle import read
from presplit.core.link import Link
from presplit.lab.processes import running
from presplit.plan.search import choose
from presplit.plan.synthetic import synthetic
from presplit.runtime.measuring.measure_link import measure_link

PARTS = ("predict", "choose", "reliability", "search", "follow")
SEARCH_S = 1.0


def run(
    quick: bool,
    *,
    parts: tuple[str, ...] = PARTS,
    nets: tuple[str, ...] = tuple(KINDS),
    folder: str = "",
) -> dict[str, Any]:
    """All ``parts``, on ``nets``; ``quick`` takes half of the links and fewer answers.

    Bundles that are in ``folder`` are not made again, those that are not are left there.
    """
    rows: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    if "search" in parts:
        checks.append(_search())
    if {"predict", "choose", "reliability"} & set(parts):
        with _subjects(nets, quick, folder) as subjects:
            for more in _measured(subjects, parts, quick):
                rows += more[0]
                checks += more[1]
    if "follow" in parts:
        more_rows, more_checks = _following.run(quick)
        rows, checks = [*rows, *more_rows], [*checks, *more_checks]
    return {"rows": rows, "checks": checks}


def _search() -> dict[str, Any]:
    """The largest net of the brief: the best of three runs, as an import warms up."""
    found = synthetic(boundaries=60, exits=5, codecs=10)
    took: list[float] = []
    for _ in range(3):
        found.memo.clear()
        began = time.perf_counter()
        choose(found)
        took.append(time.perf_counter() - began)
    return _predicting.at_most(
        "search of 60 boundaries, 5 exits, 10 codecs, 2 forms, s", min(took), SEARCH_S
    )


@contextlib.contextmanager
def _subjects(nets: Sequence[str], quick: bool, folder: str) -> Iterator[list[Subject]]:
    """The bundles of ``nets``, made and measured."""
    with tempfile.TemporaryDirectory() as passing:
        where = Path(folder or passing)
        missing = [name for name in nets if not (where / f"{name}.bundle").exists()]
        if missing:
            say(f"making {', '.join(missing)}")
            made = [sys.executable, "-m", "benchmarks._bundles", str(where), *missing]
            subprocess.run(made, check=True)
        seconds = 24.0 if quick else 60.0
        yield [subject(name, read(where / f"{name}.bundle"), seconds) for name in nets]


Told = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _measured(subjects: list[Subject], parts: Sequence[str], quick: bool) -> Iterator[Told]:
    """What is measured over links: rows and checks, part by part."""
    with contextlib.ExitStack() as servers:
        grounds = [
            servers.enter_context(
                Ground(about, servers.enter_context(running(*serving(about.bundle)))[0])
            )
            for about in subjects
        ]
        if {"predict", "choose"} & set(parts):
            yield from _of_cases(grounds, parts, quick)
        if "reliability" in parts:
            yield _keeping.run(grounds[0], quick)


def _of_cases(grounds: list[Ground], parts: Sequence[str], quick: bool) -> Iterator[Told]:
    """Every net over every link."""
    links = LINKS[:QUICK_LINKS] if quick else LINKS
    measured = [_as_measured(grounds[0], link, quick) for link in links]
    known = [(_choosing.segments(each.about), each.about.slowed.factor) for each in grounds]
    predicted: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    differences = [0.0]
    for place, ground in enumerate(grounds):
        here, factor = known[place]
        edge_s = _choosing.regressed(known, here, factor)
        for number, link in enumerate(links):
            found = ground.about.scenario(measured[number])
            case = Case(ground.about, link, expectations(found), chosen(found))
            rivals = _choosing.others([each for each, _ in known], here, edge_s, link)
            drawn: list[Way] = []
            if "predict" in parts:
                drawn = _predicting.picks(case, 1 if quick else 2, 10 * place + number)
            with ground.over(link):
                ways = list(drawn)
                if "choose" in parts:
                    ways += [case.chosen, *rivals.values(), *finalists(ground, case, 3, 2)]
                _answers(ground, case, joined(ways), drawn, quick)
                differences.append(_predicting.same(ground, drawn))
            predicted += _predicting.rows(case, drawn)
            if "choose" in parts:
                compared.append(_choosing.row(case, rivals))
            _tell(case, drawn)
    if predicted:
        yield predicted, _predicting.checks(predicted, max(differences))
    if compared:
        yield compared, _choosing.checks(compared)


def _tell(case: Case, drawn: Sequence[Way]) -> None:
    """What came of a case, as it goes on."""
    for way, seen_s in case.median_s.items():
        off = case.expected[way].p50_s / seen_s - 1
        role = "drawn" if way in drawn else "chosen" if way == case.chosen else ""
        say(f"{case.about.name}, {case.link.name}: {way} {1e3 * seen_s:.2f} ms {off:+.1%} {role}")


def _answers(ground: Ground, case: Case, ways: list[Way], drawn: list[Way], quick: bool) -> None:
    """Answers by all ``ways`` in turn, then more of those that predictions are judged by."""
    for way in ways:
        ground.warm(way)
    case.seen = ground.rounds(ways, least=10, most=40, seconds=5 if quick else 8)
    most = 30 if quick else 120
    more = ground.rounds(drawn, least=10, most=most, seconds=4 if quick else 15)
    for way, took in more.items():
        case.seen[way] += took


def _as_measured(ground: Ground, link: Link, quick: bool) -> Link:
    """``link`` as `measure_link` finds it before a server."""
    with running("presplit.lab.shaper", *shape(ground.server, link)) as (address, _):
        found = measure_link(address, seconds=6.0 if quick else 10.0).link
    say(
        f"{link.name}: measured {found.up_bps / 1e6:.4g} up, {found.down_bps / 1e6:.4g} down, "
        f"{1e3 * found.rtt_s:.2f} ms, jitter {1e3 * found.jitter_s:.2f} ms, "
        f"window {found.window_bytes}"
    )
    return found
