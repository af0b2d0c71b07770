"""``presplit evaluate``: accuracy of a run's exits, and of exits that answer when sure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from presplit.cli import completing
from presplit.cli.options import OWN_CODE, Json, show

if TYPE_CHECKING:
    from presplit.train.judging.thresholds import Goal


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory of presplit train.")],
    model: Annotated[str | None, typer.Option(help=OWN_CODE)] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            autocompletion=completing.policies,
            help="How sure an exit is: confidence, margin, entropy; default: the run's own.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Thresholds that lose at most so much accuracy, 0..1, at the fewest MACs."
        ),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(help="Thresholds that keep at least this accuracy, 0..1, at the fewest MACs."),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(
            help="The most accurate thresholds within so many MACs an answer, on average."
        ),
    ] = None,
    offload: Annotated[
        float | None,
        typer.Option(
            help="The most accurate thresholds with at most this share for the last exit."
        ),
    ] = None,
    classes: Annotated[
        int,
        typer.Option(min=0, help="So many classes are listed, those answered worst first."),
    ] = 10,
    json: Json = False,
) -> None:
    """Evaluate a run on its test set: each exit, each class, what is taken for what.

    Thresholds are chosen on the held-out part of the training set. With --json the whole confusion
    matrix of every exit is there, too, and how right each is when it is sure.
    """
    from presplit.cli.classes import classes_text
    from presplit.cli.following import after_run
    from presplit.cli.own_model import aside, run_of
    from presplit.cli.train import text
    from presplit.core.errors import SpecError
    from presplit.train import runs

    given: dict[Goal, float | None] = {
        "max_drop": max_drop,
        "accuracy": accuracy,
        "macs": macs,
        "offload": offload,
    }
    goals = [(name, value) for name, value in given.items() if value is not None]
    if len(goals) > 1:
        raise SpecError(
            f"thresholds are chosen for one goal, got {', '.join(name for name, _ in goals)}"
        )
    found = run_of(run, model)
    if (goals or policy) and len(found.exit_names) == 1:
        raise SpecError(f"{run}: its net has no early exit to choose a threshold for")
    with aside():
        result = runs.judge(found, policy=policy, goal=goals[0] if goals else None)
    lines = [classes_text(result, most=classes), text(result, run, after_run(run))]
    if goals:
        (row,) = result["thresholds"]
        own = found.spec.exits.policy if found.spec.exits else result["policy"]
        options = " ".join(
            f"--threshold {name}={least!r}" for name, least in row["thresholds"].items()
        )
        lines.append(
            f"To run with these: presplit run BUNDLE SAMPLES {options}"
            if result["policy"] == own
            else (
                f"These are scores of {result['policy']}; "
                f"the run's bundle decides by exits.policy, {own}"
            )
        )
    show(result, "\n".join(lines), as_json=json)
