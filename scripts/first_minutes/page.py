"""docs/first_five_minutes.md: what a newcomer typed, what came, and how long it took."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

FIRST, LAST = 22, 12
"""Lines that are shown of a long output, of its beginning and its end."""
MOST = 160
"""Characters that are shown of a line."""
HEAD = """# The first five minutes

This page is written by a script, which does all of this in an empty folder with an empty home and
holds every step against a target. What stands here was typed and came in one run; of long outputs
only the beginning and the end are shown, of long lines the first {most} characters:
`scripts/newcomer --transcript docs/first_five_minutes.md --pictures docs/pictures`.
Last written {when} on {machine}.

{table}

"""
WORDS = {
    "clone": ("From nothing to a table", "Python 3.11, `make` and pip are there; nothing else is."),
    "make demo": (
        "",
        "It installs what is needed, trains two small nets, and runs eight ways between processes.",
    ),
    "look at the photos": (
        "Your own photos",
        "A folder of 611 files, one subfolder for each class: 600 are photos, some turned, CMYK, "
        "progressive or palettes, and 11 only look like photos.",
    ),
    "train": ("", "The spec says all that was chosen, in words, and trains as it is."),
    "report": ("", "One file, which needs no network."),
    "export": (
        "",
        "The net, cut at every place where it can be, and checked against what was trained.",
    ),
    "plan": (
        "A split camera box",
        "The box has a processor for 60 million products a second and 128 kB for weights, and DSL. "
        "The net does not fit there, and its images are long for that line.",
    ),
    "keys": ("", "Who listens and who asks shall know each other."),
    "serve": ("", "The server, which goes on:"),
    "camera box": ("", "The box; a video stands in for its camera, which would be `camera:0`:"),
    "watch it": ("", "And what it does, in another terminal:"),
}
PICTURES = {
    "report": (
        "report.png",
        "The head of the report of a run: accuracy of each exit, loss and curves",
    ),
    "camera box": (
        "live.png",
        "The live page of the camera box: answers a second, where the net is cut, why",
    ),
}


def write(who: Any, page: Path, *, clone: str, pictures: Path | None) -> None:
    """Write ``page`` from the steps of ``who``."""
    steps = [step for step in who.steps if step.command]
    when, times = datetime.date.today(), table(who.steps)
    parts = [HEAD.format(when=when, machine=machine(), table=times, most=MOST)]
    for step in steps:
        title, words = WORDS[step.name]
        if title:
            parts.append(f"## {title}\n")
        parts.append(f"{words}\n")
        command = spelled(step.command, who.home, clone)
        took = f"{step.took_s:.0f} s" if step.took_s >= 10 else f"{step.took_s:.1f} s"
        said = shortened(spelled(step.said, who.home, clone))
        parts.append(f"```console\n$ {command}\n{said}```\n\n{took}.\n")
        if pictures is not None and step.name in PICTURES:
            file, alt = PICTURES[step.name]
            place = Path(os.path.relpath(pictures / file, page.parent))
            parts.append(f"![{alt}]({place})\n")
    page.write_text("\n".join(parts))


def machine() -> str:
    """What it was done on."""
    python = platform.python_version()
    busy = f"load {os.getloadavg()[1]:.1f} by all that ran there"
    return f"{os.cpu_count()} processors of an {platform.machine()} server, Python {python}, {busy}"


def table(steps: list[Any]) -> str:
    """The steps as a table of Markdown."""
    rows = ["| step | seconds | at most |", "|---|--:|--:|"]
    rows += [f"| {step.name} | {step.took_s:.1f} | {step.target_s:.0f} |" for step in steps]
    return "\n".join(rows)


def spelled(text: str, home: Path, clone: str) -> str:
    """``text`` without the places of this machine."""
    root = Path(__file__).resolve().parents[2]
    text = text.replace(str(home), "~").replace(f"file://{root}", clone).replace(str(root), clone)
    # pip says of its settings what concerns this machine alone.
    return re.sub(r"^WARNING: Location .*\n", "", text, flags=re.MULTILINE)


def cut(line: str) -> str:
    """``line``, or its beginning and a mark that there is more."""
    return line if len(line) <= MOST else f"{line[:MOST]} ..."


def shortened(said: str) -> str:
    """The beginning and the end of what was said, if it is long."""
    lines = [cut(line.rstrip()) for line in said.rstrip().splitlines()]
    if len(lines) > FIRST + LAST + 1:
        left = len(lines) - FIRST - LAST
        lines = [*lines[:FIRST], f"... {left} lines ...", *lines[-LAST:]]
    return "".join(f"{line}\n" for line in lines)
