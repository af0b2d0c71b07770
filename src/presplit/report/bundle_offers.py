"""What a bundle offers: plans to change between while it runs, and codecs at its boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from presplit.bundle import Bundle
from presplit.core import units
from presplit.core.cost import WIRE_BYTES
from presplit.core.errors import BundleError
from presplit.core.link import Link
from presplit.core.plans import Conditions, Plan, PlanTable
from presplit.core.tables import Column
from presplit.plan.envelope import turns, usual
from presplit.plan.explain import named
from presplit.report.charts import HUES, Rule, Series, chart
from presplit.report.markup import element
from presplit.report.scales import Axis, share
from presplit.report.sections import Figure, Section, Table, data_table

MOST_BOUNDARIES = 8
"""Boundaries whose codecs are listed: the chosen one, the input, and those with fewest bytes."""


def table_section(found: PlanTable | None, link: Link | None, last: int) -> Section | None:
    """The plans of a table, the last boundary being ``last``: which is best at which rate."""
    if found is None or link is None or len(found.rows) < 2:
        return None
    best = dict.fromkeys(number for _, number in turns(found, link))
    now = usual(link)
    rates = [link.up_bps * 10 ** (step / 20) for step in range(-40, 21)]
    series = [
        Series(
            f"{number + 1}. {_short(found.rows[number].plan, last)}",
            rates,
            [found.rows[number].mean_s(_at(now, rate)) for rate in rates],
        )
        for number in [*best][:HUES]
    ]
    drawn = chart(
        series,
        x=Axis("rate of the link", units.rate, log=True),
        y=Axis("mean time", units.seconds, log=True),
        rules=[Rule("planned", x=link.up_bps)],
        height=300,
    )
    caption = "The lowest line is the plan that the edge takes: it changes as the rate falls."
    rows = [
        {
            "number": f"{number + 1}. {named(row.plan)}",
            "asked": row.asked,
            "sent": max(0.0, row.up_bytes - WIRE_BYTES),
            "accuracy": row.accuracy,
            "from": ", ".join(
                units.rate(rate) for rate, best in turns(found, link) if best == number
            ),
        }
        for number, row in enumerate(found.rows)
    ]
    columns = (
        Column("number", "plan", str, text=True),
        Column("from", "best from", str),
        Column("asked", "asks the server", units.percent),
        Column("sent", "sent when it asks", units.data),
        Column("accuracy", "accuracy", units.percent),
    )
    return Section(
        "Plans to change between",
        "While it runs, the edge picks the plan that is best with what it has seen of the link, "
        "the server and itself.",
        figures=[Figure("Which plan is best at which rate", caption, drawn)] if series[1:] else [],
        tables=[Table(rows, columns)],
        note="Best from: with the round trip, the device and the server as planned. A plan without "
        f"a rate is best under other conditions. A message takes {WIRE_BYTES} bytes more than what "
        "is sent in it, which times and choices take into account.",
    )


def _at(now: Conditions, rate: float) -> Conditions:
    return msgspec.structs.replace(now, up_bps=rate)


def _short(plan: Plan, last: int) -> str:
    return "all on the device" if plan.split == last else f"split {plan.split}, {plan.codec}"


def codecs_section(bundle: Bundle, plan: Plan | None) -> Section | None:
    """What each codec sends at some boundaries, and what it costs in accuracy."""
    rows = [row for number in _shown(bundle, plan) for row in _codecs(bundle, number)]
    if not rows:
        return None
    chosen = frozenset(
        number
        for number, row in enumerate(rows)
        if plan and (row["boundary"], row["codec"]) == (plan.split, plan.codec)
    )
    columns = (
        Column("place", "boundary", str, text=True),
        Column("codec", "codec", str, text=True),
        Column("bytes", "bytes (mean)", units.data),
        Column("share", "of float32", share),
        Column("accuracy", "accuracy", units.percent),
        Column("lost", "points lost", "{:.2f}".format),
    )
    more = ""
    if bundle.net.last > MOST_BOUNDARIES:
        more = f" The input, the chosen boundary and those with fewest bytes of {bundle.net.last}."
    return Section(
        "How a boundary travels",
        "A codec writes the values at a boundary with fewer bytes. What that costs in accuracy was "
        f"measured on held-out samples.{more}",
        html=element(
            "details",
            element("summary", f"{len(rows)} ways in numbers"),
            data_table(Table(rows, columns, chosen=chosen)),
        ),
        figures=_codec_figures(rows),
        note="Points lost are against float32; nothing there means that it is not known.",
    )


def _shown(bundle: Bundle, plan: Plan | None) -> list[int]:
    net = bundle.net
    chosen = [0] if plan is None else [0, plan.split]
    fewest = sorted(range(net.last), key=lambda number: net.boundaries[number].nbytes)
    listed = dict.fromkeys([*chosen, *fewest])
    return sorted(number for number in [*listed][:MOST_BOUNDARIES] if number < net.last)


def _codecs(bundle: Bundle, number: int) -> list[dict[str, Any]]:
    plain = bundle.net.boundaries[number].nbytes
    whole = _accuracy(bundle, number, "float32")
    rows: list[dict[str, Any]] = []
    for codec in bundle.manifest.ports[number].encodings:
        accuracy = _accuracy(bundle, number, codec)
        row = {
            "boundary": number,
            "place": "input" if number == 0 else f"{number}, {bundle.net.boundaries[number].name}",
            "codec": codec,
            "accuracy": accuracy,
            "lost": None if accuracy is None or whole is None else 100 * (whole - accuracy),
        }
        try:
            row["bytes"] = bundle.payload_bytes(number, codec)
            row["share"] = row["bytes"] / plain
        except BundleError:
            pass
        rows.append(row)
    return rows


def _accuracy(bundle: Bundle, number: int, codec: str) -> float | None:
    try:
        return float(bundle.worth(number, codec).mean())
    except BundleError:
        return None


def _codec_figures(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    known = [row for row in rows if row["accuracy"] is not None and "bytes" in row]
    places = dict.fromkeys(row["place"] for row in known)
    if not places:
        return []
    series: list[Series] = []
    for place in [*places][:HUES]:
        mine = [row for row in known if row["place"] == place]
        sizes, right = ([row[key] for row in mine] for key in ("bytes", "accuracy"))
        series.append(Series(f"at {place}", sizes, right, line=False, marks=True))
    drawn = chart(
        series,
        x=Axis("bytes of a sample", units.data, log=True),
        y=Axis("accuracy", share),
        height=300,
    )
    caption = "Up and to the left is better: a mark for each codec at each boundary."
    return [Figure("Bytes against accuracy", caption, drawn)]
