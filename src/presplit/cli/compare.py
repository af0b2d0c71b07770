"""``presplit compare``: runs side by side on the same test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.cli.options import OWN_CODE, Json, show
from presplit.core import units
from presplit.core.errors import SpecError
from presplit.core.tables import Column, table

if TYPE_CHECKING:
    from presplit.lab.compare import Pair, Side


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Runs, bundles or sweeps (all of a sweep's finished runs); the first one is what "
            "the others are compared with.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help=OWN_CODE)] = None,
    json: Json = False,
) -> None:
    """Show runs side by side, and whether their test samples tell them apart.

    Each is tested again on the test set that it names. Two that were tested on the same samples are
    compared sample by sample (McNemar's exact test).
    """
    from presplit.cli.own_model import aside, trusted
    from presplit.lab import compare as lab
    from presplit.lab.differing import differing

    with aside():
        found = lab.sides(runs, trusted(model))
    if len(found) < 2:
        raise SpecError(
            f"compare needs two runs, got {len(found)}; presplit evaluate shows a single one"
        )
    first, *others = found
    pairs = [lab.pair(side, first) for side in others]
    keys = differing([side.spec for side in found])
    result = {
        "runs": [side.to_builtins() for side in found],
        "differing": keys,
        "pairs": [None if each is None else each.to_builtins() for each in pairs],
    }
    show(result, text(found, keys, pairs), as_json=json)


def text(
    found: Sequence[Side], keys: Mapping[str, Sequence[Any]], pairs: Sequence[Pair | None]
) -> str:
    """Two tables, of the runs and of what differs in their specs, and a line for each pair."""
    rows = [_row(number, side) for number, side in enumerate(found, 1)]
    exits = dict.fromkeys(name for side in found for name in side.hits)
    columns = [
        Column("number", "", str),
        Column("name", "run", str, text=True),
        *(Column(f"exit {name}", f"exit {name}", str) for name in exits),
        Column("weights", "weights"),
        Column("macs", "MACs"),
        Column("bytes", "stored", units.data),
    ]
    lines = [table(rows, columns), "", *_early(found)]
    lines.append("Accuracies with their 95 % interval (Wilson) on the run's own test set.")
    if keys:
        numbers = [Column(str(number), str(number), str) for number in range(1, len(found) + 1)]
        said = [
            {"key": key, **{str(number): _said(value) for number, value in enumerate(values, 1)}}
            for key, values in keys.items()
        ]
        lines += [
            "",
            "What differs:",
            table(said, [Column("key", "key", str, text=True), *numbers]),
        ]
    else:
        lines += ["", "Their specs are the same."]
    lines += ["", f"Against 1, {found[0].name}:"]
    return "\n".join(
        [*lines, *(_pair(number, found, each) for number, each in enumerate(pairs, 2))]
    )


def _row(number: int, side: Side) -> dict[str, Any]:
    facts = side.to_builtins()
    shares = {f"exit {name}": _share(each) for name, each in facts["accuracy"].items()}
    last = list(side.macs.values())[-1]
    return {"number": number, "macs": last, **shares, **_only(facts, "name", "weights", "bytes")}


def _only(facts: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: facts[key] for key in keys}


def _early(found: Sequence[Side]) -> list[str]:
    """What early exits with thresholds give, for the least strict goal that was told."""
    lines = list[str]()
    for number, side in enumerate(found, 1):
        if not side.routed:
            continue
        row = side.routed[-1]
        ((goal, value),) = row["goal"].items()
        wanted = (
            f"at most {100 * value:g} points lost" if goal == "max_drop" else f"{goal} {value:g}"
        )
        spent = sum(share * side.macs[name] for name, share in row["shares"].items())
        thresholds = ", ".join(f"{name} {least:.4f}" for name, least in row["thresholds"].items())
        lines.append(
            f"{number} leaving early ({wanted} on held-out samples): {row['accuracy']:.2%} for "
            f"{spent:,.0f} MACs an answer; thresholds {thresholds}"
        )
    return lines


def _pair(number: int, found: Sequence[Side], each: Pair | None) -> str:
    if each is None:
        mine, first = found[number - 1].spec.data.name, found[0].spec.data.name
        return f"{number}: not comparable, it was tested on other samples ({mine}, not {first})"
    apart = "told apart" if each.is_told_apart else f"not told apart by {each.samples:,} samples"
    chance = "< 0.0001" if each.p < 1e-4 else f"= {each.p:.2g}"
    return (
        f"{number}: {100 * each.difference:+.2f} points ({100 * each.low:+.2f} to "
        f"{100 * each.high:+.2f}): {apart}; {each.gains:,} samples only {number} has right, "
        f"{each.losses:,} only 1 (p {chance})"
    )


def _share(each: Mapping[str, float]) -> str:
    return f"{100 * each['share']:.2f} % ({100 * each['low']:.1f}-{100 * each['high']:.1f})"


def _said(value: Any) -> str:
    """A value of a spec."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
