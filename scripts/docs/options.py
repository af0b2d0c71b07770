"""The command's reference: every verb with its arguments and options, as the command has them."""

from __future__ import annotations

from typing import Any

import typer

from presplit.cli.main import app


def text() -> str:
    """One page of Markdown."""
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parts = [
        "# The command\n",
        "`presplit VERB --help` says the same. Exit codes: [answers](../answers.md#exit-codes).\n",
    ]
    parts += [_verb(name, verb) for name, verb in verbs.items()]
    return "\n".join(parts)


def _verb(name: str, verb: Any) -> str:
    """A section: what it does, its arguments, its options in the groups of the help."""
    groups: dict[str, list[str]] = {}
    for parameter in verb.params:
        if parameter.get_help_record(typer.Context(verb)) is None:
            continue
        is_argument = parameter.param_type_name == "argument"
        usual = "Arguments" if is_argument else "Options"
        group = getattr(parameter, "rich_help_panel", None) or usual
        groups.setdefault(group, []).append(_row(parameter, verb))
    usage = verb.collect_usage_pieces(typer.Context(verb))
    about = " ".join((verb.help or "").split("\f")[0].split())
    parts = [f"## {name}\n", about + "\n", f"```text\npresplit {' '.join([name, *usage])}\n```\n"]
    for group, rows in groups.items():
        parts += [f"| {group} | usual | meaning |\n|---|---|---|", *rows, ""]
    return "\n".join(parts)


def _row(parameter: Any, verb: Any) -> str:
    """A line of a table: the names, the default, the help."""
    names, _ = parameter.get_help_record(typer.Context(verb))
    usual = parameter.default
    is_said = usual not in (None, False, [], (), "") and not callable(usual)
    shown = f"`{usual}`" if is_said else ""
    return f"| `{_cell(names)}` | {shown} | {_cell(parameter.help or '')} |"


def _cell(text: str) -> str:
    """``text`` as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")
