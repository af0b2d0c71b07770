"""What several verbs share: options that take a list, the output of results, progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presplit.core import units
from presplit.core.errors import SpecError

if TYPE_CHECKING:
    from presplit.bundle import Bundle
    from presplit.core.costs import Costs
    from presplit.core.plans import FallbackName, Gateway, Plan

LISTS = ("--layers", "--fan-out", "--after")
"""Options after which several values may stand: ``--layers 800 40 40 10``."""

given: list[str] = []
"""The words of the command that runs, as they were given."""

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output and nothing else there."),
]

OutputNames = Annotated[
    list[str],
    typer.Option(
        "--output",
        metavar="NAME",
        help="MODEL.onnx: its output that tells the classes apart, if it has others; given several "
        "times, early exits first.",
    ),
]

OWN_CODE = "Code of the run's own model, module:factory: it runs because you name it here."


def spread(arguments: list[str]) -> list[str]:
    """``arguments`` with the option repeated before each of its values, as click wants it.

    >>> spread(["train", "--layers", "800", "40", "--seed", "1"])
    ['train', '--layers', '800', '--layers', '40', '--seed', '1']
    """
    result: list[str] = []
    option = ""
    for argument, following in zip(arguments, [*arguments, "-"][1:], strict=True):
        if argument.startswith("-"):
            option = argument if argument in LISTS else ""
            if not option or following.startswith(
                "-"
            ):  # without a value it stays, and click refuses it
                result.append(argument)
        elif option:
            result += [option, argument]
        else:
            result.append(argument)
    return result


def say(text: str) -> None:
    """A line for people, on standard error: standard output holds results only."""
    print(text, file=sys.stderr, flush=True)


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """The result of a verb on standard output: ``text`` for people, or the JSON of ``result``."""
    print(json.dumps(result) if as_json else text, flush=True)


def read_costs(path: Path | None) -> Costs | None:
    """Measured costs from a file of ``presplit measure``; raises `SpecError` if it is none."""
    from presplit.profiles import costs_from

    return None if path is None else costs_from(path)


def plan_with(
    bundle: Bundle,
    *,
    split: int | None,
    codec: str | None,
    threshold: list[str],
    deadline_s: float | None,
    forms: Mapping[str, str | None] | None = None,
) -> Plan:
    """The bundle's own plan with what the command line changes.

    Without one, all stays on the edge and thresholds are meant under the policy that the bundle was
    exported with. A new split drops the plan's thresholds, unless new ones are given as
    ``EXIT=SCORE``; ``forms`` are a plan's ``form`` and ``server_form``.
    """
    import msgspec

    from presplit.codecs import CODECS
    from presplit.runtime.head import own_plan

    changes: dict[str, Any] = {"expected": None, "planned_for": None}
    changes |= {name: form for name, form in (forms or {}).items() if form is not None}
    if split is not None:
        changes |= {"split": split, "thresholds": {}}
    if codec is not None:
        changes["codec"] = CODECS.find(codec).name
    if deadline_s is not None:
        if not 0 < deadline_s < math.inf:
            raise SpecError(f"--deadline: expected a time above 0, got {deadline_s:g} s")
        changes["deadline_s"] = deadline_s
    if threshold:
        changes["thresholds"] = dict(_threshold(text) for text in threshold)
    return msgspec.structs.replace(own_plan(bundle), **changes)


def fallback_named(text: str | None) -> FallbackName | None:
    """The fallback of that name; raises `SpecError` if there is none.

    >>> fallback_named("all")
    Traceback (most recent call last):
        ...
    presplit.core.errors.SpecError: --fallback: expected none, exit or deepest, got 'all'
    """
    if text not in (None, "none", "exit", "deepest"):
        raise SpecError(f"--fallback: expected none, exit or deepest, got {text!r}")
    return text


def gateway_with(
    bundle: Bundle,
    *,
    split: int | None,
    codec: str | None,
    threshold: list[str],
    spare: str | None,
) -> Gateway | None:
    """What the bundle's plan has a gateway do, with what the command line changes.

    None if it changes nothing. A new split drops the plan's thresholds and codec.
    """
    import msgspec

    from presplit.codecs import CODECS
    from presplit.core.plans import Gateway

    changes: dict[str, Any] = {}
    if codec is not None:
        changes["codec"] = CODECS.find(codec).name
    if threshold:
        changes["thresholds"] = dict(_threshold(text) for text in threshold)
    if spare is not None:
        changes["spare_s"] = units.number(spare, units.SECONDS, "--spare")
    if split is not None:
        return Gateway(split, **changes)
    if not changes:
        return None
    planned = None if bundle.plan is None else bundle.plan.gateway
    if planned is None:
        raise SpecError(f"{bundle.path}: carries no plan for a gateway; give its --split too")
    return msgspec.structs.replace(planned, **changes)


def exits_here(bundle: Bundle, threshold: list[str]) -> Gateway:
    """A server that computes to the end, and whose exits answer as ``threshold`` says."""
    from presplit.core.plans import Gateway

    return Gateway(bundle.net.last, dict(_threshold(text) for text in threshold))


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if not name or not math.isfinite(score):
        raise SpecError(f"--threshold {text!r}: expected EXIT=SCORE, as in block1=0.9")
    return name, score
