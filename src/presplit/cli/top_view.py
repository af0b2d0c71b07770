"""How ``presplit top`` draws a snapshot: a screen, or one line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from presplit.core import units

BLOCKS = " ▁▂▃▄▅▆▇█"
NO_BREAK = "\N{NO-BREAK SPACE}"
BAR = 20
"""Characters of the longest bar."""
MOST_ROWS = 8
GOOD = ("confident", "planned", "server")


def screen(now: Mapping[str, Any], state: str) -> Group:
    """Everything that is known, for a terminal of 80 columns and more."""
    parts: list[Any] = [_head(now, state), _facts(now), Text("")]
    per_s = [row[0] for row in now["seconds"]]
    parts += [
        Text(f"answers a second, the last minute, {max(per_s):g} at most"),
        Text(_spark(per_s)),
    ]
    if now["kind"] == "edge":
        parts += [
            _shares("who answered", now["exits"]),
            _shares("why", now["whys"]),
            _plans(now),
            _around(now),
        ]
    else:
        parts += [
            _shares("what became of requests", now["whys"]),
            _shares("for which model", now["models"]),
            _shares("from whom", now["clients"]),
        ]
    return Group(*parts)


def line(now: Mapping[str, Any]) -> str:
    """One line of what matters most."""
    times = now["times"]["recent"]
    words = [
        time.strftime("%H:%M:%S", time.localtime(now["at"])),
        f"{now['kind']} {now['name']}:",
        f"{now['per_s']:.1f}/s,",
        f"half within {units.seconds(times['p50_s'])},",
        f"99 % within {units.seconds(times['p99_s'])},",
        ", ".join(f"{share} {name}" for name, share in _recent(now["whys"])) or "no answers now",
    ]
    if now["kind"] == "server":
        return " ".join([*words[:-1], words[-1] + f"; {now.get('inside', 0)} inside"])
    tail = [f"; {now['missed']['whole']} too late"]
    tail += [f"; cut at {plan['split']} ({plan['at']})" for plan in now["plans"] if plan["current"]]
    link = now["link"]
    if link is not None:
        known = f"{units.rate(link['up_bps'])}, {units.seconds(link['rtt_s'])}"
        tail.append(f"; link {known if link['heard'] else _link(link)}")
    tail += [f"; {each['address']} is not asked" for each in now["servers"] if not each["asked"]]
    return " ".join(words) + "".join(tail)


def _head(now: Mapping[str, Any], state: str) -> Text:
    found = Text(f"{now['name']}: {now['kind']}, process {now['process']}, ")
    found.append(f"up for {now['up_s']:.0f} s")
    if state:
        found.append(f"   {state}", style="green" if state == "live" else "bold red")
    return found


def _facts(now: Mapping[str, Any]) -> Text:
    """The few numbers that matter most, side by side."""
    recent, whole = now["times"]["recent"], now["times"]["whole"]
    found = {
        "answers/s": f"{now['per_s']:.1f}",
        "answers": units.count(now["answers"]),
        "p50 now": units.seconds(recent["p50_s"]),
        "p99 now": units.seconds(recent["p99_s"]),
        "p99 all": units.seconds(whole["p99_s"]),
    }
    if now["kind"] == "edge":
        found[f"over {units.seconds(now['deadline_s'])}"] = units.count(now["missed"]["whole"])
        found["degraded"] = units.count(now["degraded"]["whole"])
        found["sent, now"] = units.data(now["sent"]["recent_bytes"])
        if now["energy"] is not None:
            found["energy, reckoned"] = units.joules(now["energy"]["mean_j"])
    else:
        found["inside"] = units.count(now.get("inside", 0))
        found["batch"] = f"{now.get('batch', 0.0):.1f}"
        found["no answer"] = units.count(now["refused"]["whole"])
    shown = Text()
    for name, value in found.items():
        # A number and its name stay together where lines are broken.
        shown.append(f"{name}: ".replace(" ", NO_BREAK), style="dim")
        shown.append(f"{value}".replace(" ", NO_BREAK), style="bold")
        shown.append("   ")
    return shown


def _shares(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Each row's share of the last seconds as a bar, and of all."""
    table = Table(title=title, title_justify="left", title_style="dim", box=None, show_header=False)
    recent = sum(row["recent"] for row in rows) or 1
    whole = sum(row["whole"] for row in rows) or 1
    for row in rows[:MOST_ROWS]:
        share = row["recent"] / recent
        is_bad = title == "why" and row["name"] not in GOOD
        table.add_row(
            Text(row.get("words", row["name"]), style="yellow" if is_bad else ""),
            f"{100 * share:5.1f} %",
            ("█" * round(BAR * share)).ljust(BAR),
            Text(f"{100 * row['whole'] / whole:.1f} % of all", style="dim"),
        )
    return table


def _plans(now: Mapping[str, Any]) -> Table:
    """The rows of the table that have answered."""
    table = Table(title="the plan", title_justify="left", title_style="dim", box=None)
    for name in ("row", "cut at", "sent as", "bytes", "now", "all"):
        table.add_column(name, header_style="dim")
    rows = list(enumerate(now["plans"]))
    used = [(number, plan) for number, plan in rows if plan["whole"] or plan["current"]]
    recent = sum(plan["recent"] for _, plan in used) or 1
    for number, plan in used[:MOST_ROWS]:
        table.add_row(
            f"{'>' if plan['current'] else ' '} {number}",
            f"{plan['split']}, {plan['at']}",
            plan["codec"],
            "" if plan["bytes"] is None else units.data(plan["bytes"]),
            f"{100 * plan['recent'] / recent:.1f} %",
            units.count(plan["whole"]),
            style="bold" if plan["current"] else "",
        )
    return table


def _around(now: Mapping[str, Any]) -> Text:
    """The link and the servers."""
    found = Text()
    link = now["link"]
    if link is not None:
        found.append(
            f"link as seen: {_link(link)}\nserver x{link['server_factor']:.3g}, this device x"
            f"{link['device_factor']:.3g} of what is planned"
        )
    for each in now["servers"]:
        found.append(f"\n{each['address']} ")
        if each["asked"]:
            found.append("is asked")
            continue
        if each["silent_s"] is None:
            found.append(f"is not asked: {each['why']}")
            continue
        found.append(f"is not asked for {each['silent_s']:.0f} s now:", style="red")
        found.append(f"\n  {each['why']}", style="dim")
    return found


def _link(link: Mapping[str, Any]) -> str:
    """What is known of the link, which is nothing while requests have no reply."""
    if link["heard"]:
        return f"{units.rate(link['up_bps'])} up, {units.seconds(link['rtt_s'])} there and back"
    return "not known yet" if link["heard"] is None else "not known: no reply"


def _recent(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The shares of the last seconds that are any."""
    total = sum(row["recent"] for row in rows) or 1
    named = [(row.get("words", row["name"]), row["recent"]) for row in rows if row["recent"]]
    return [(words, f"{count / total:.0%}") for words, count in named]


def _spark(values: Sequence[float]) -> str:
    """A row of blocks as high as the values."""
    most = max(values) or 1.0
    return "".join(BLOCKS[round((len(BLOCKS) - 1) * value / most)] for value in values)
