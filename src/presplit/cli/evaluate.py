"""``presplit evaluate``: the accuracy of a run's exits, and of exits that answer when they are sure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presplit.cli.options import Json, show


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory of presplit train.")],
    json: Json = False,
) -> None:
    """Evaluate a run on its test set; thresholds are chosen on the held-out part of the training set."""
    from presplit.cli.train import text
    from presplit.train import runs

    result = runs.judge(runs.read_run(run))
    show(result, text(result, run), as_json=json)
