"""The pages that are not written by hand: the reference, and files from outside ``docs``.

Nothing of it is kept in the repository.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

from presplit.profiles import DEVICES, LINKS
from presplit.runtime.serving.metrics import GAUGES, Metrics
from presplit.runtime.serving.tally import Tally
from scripts.docs import cards, keys, options

ROOT = Path(__file__).parents[2]
ROOMS = {
    "train": "presplit.train",
    "data": "presplit.train.data",
    "plan": "presplit.plan",
    "runtime": "presplit.runtime",
    "bundle": "presplit.bundle",
    "packing": "presplit.packing",
    "graph": "presplit.graph",
    "profiles": "presplit.profiles",
    "values": "presplit.core.types",
    "plans": "presplit.core.plans",
    "errors": "presplit.core.errors",
}
"""The pages of the Python reference, each of one module's public names."""

OUTSIDE = {
    "security": "SECURITY.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
}
"""Pages that are files of the repository's root."""


def room(path: str) -> str:
    """All public names of one module, each with its docstring."""
    module = importlib.import_module(path)
    about = inspect.getdoc(module) or ""
    parts = [
        f"# {path}\n",
        cards.fenced(about.replace("::\n", "```text").replace("\n\n\n", "\n\n")),
    ]
    if path == "presplit.core.errors":
        tree, _, rest = about.partition("::\n")[2].partition("\n\nThe edge")
        parts = [f"# {path}\n", f"```text\n{inspect.cleandoc(tree)}\n```\n", f"The edge{rest}\n"]
    return "\n".join([*parts, "", *(f"::: {name}\n" for name in public(module))])


def public(module: ModuleType) -> list[str]:
    """The paths at which the public names of ``module`` are defined, in the order of the source."""
    names = getattr(module, "__all__", None) or [
        name
        for name, each in vars(module).items()
        if inspect.isclass(each) and each.__module__ == module.__name__ and name[0] != "_"
    ]
    found: list[str] = []
    for name in names:
        each = getattr(module, name)
        if inspect.isclass(each) or inspect.isfunction(each):
            found.append(f"{each.__module__}.{each.__qualname__}")
    return found


def metrics() -> str:
    """What ``/metrics`` says, by its own words."""
    text = Metrics().text(Tally().now(), bundles={}, gauges=dict.fromkeys(GAUGES, 0), crew={})
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)", text.decode(), re.MULTILINE))
    helps = re.findall(r"^# HELP (\S+) (.*)", text.decode(), re.MULTILINE)
    rows = [f"| `{name}` | {kinds[name]} | {said} |" for name, said in helps]
    where = "[a server in service](../serving.md)"
    head = f"What `presplit serve --http PORT` gives at `/metrics`: {where}."
    return "\n".join(
        ["# Metrics\n", head, "", "| name | kind | meaning |", "|---|---|---|", *rows, ""]
    )


def profiles() -> str:
    """The named devices and links, all guesses with their source."""
    parts = [
        "# Devices and links by name\n",
        "Guesses until `presplit measure` replaces them: [measuring](../measuring.md).\n",
        "## Devices\n",
        "| name | MACs a second | memory | W | source |\n|---|---|---|---|---|",
    ]
    parts += [
        f"| `{name}` | {each.macs_per_s:.3g} | {each.memory_bytes / 1e6:,.3g} MB | "
        f"{each.power_w:g} | {each.source} |"
        for name, each in DEVICES.items()
    ]
    parts += ["", "## Links\n", "| name | up | down | round trip | source |\n|---|---|---|---|---|"]
    parts += [
        f"| `{name}` | {each.up_bps / 1e6:g} Mbit/s | {each.down_bps / 1e6:g} Mbit/s | "
        f"{each.rtt_s * 1e3:g} ms | {each.source} |"
        for name, each in LINKS.items()
    ]
    return "\n".join([*parts, ""])


def examples() -> str:
    """The programs among the examples, as they are."""
    parts = ["# Examples\n", "Programs and specs that run as they are; the tests run them.\n"]
    for file in sorted([*ROOT.glob("examples/*.py"), *ROOT.glob("examples/*.toml")]):
        kind = "python" if file.suffix == ".py" else "toml"
        parts += [f"## {file.name}\n", f"```{kind}\n{file.read_text().rstrip()}\n```\n"]
    return "\n".join(parts)


def outside(name: str) -> str:
    """A file of the repository's root, its links led to pages."""
    text = (ROOT / name).read_text()
    return re.sub(r"\]\(docs/", "](", text)


def pages() -> dict[str, str]:
    """Every page that is made, by its place below ``docs``."""
    found = {
        "reference/command": options.text(),
        "reference/spec": keys.text(),
        "reference/metrics": metrics(),
        "reference/profiles": profiles(),
        "examples": examples(),
        "methods/patterns": cards.patterns(),
        "methods/patterns_more": cards.needing_more(),
        "methods/codecs": cards.codecs(),
        "methods/policies": cards.policies(),
        "methods/recipes": cards.recipes(),
    }
    found |= {f"reference/python/{name}": room(path) for name, path in ROOMS.items()}
    found |= {page: outside(name) for page, name in OUTSIDE.items()}
    return {f"{place}.md": text for place, text in found.items()}
