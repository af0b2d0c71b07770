"""The command's door.

It collects the verbs, and turns any `PresplitError` into one sentence and exit code 2.

Exit codes: 0 done; 1 a check that the command makes did not hold; 2 what was asked for is wrong;
130 interrupted; of ``run`` also 3 if every answer was degraded, and 4 if some samples have none.
Verbs import the rooms they need when they run, so that ``--help`` loads neither torch nor anything
else large.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import typer

from presplit.cli import (
    demo,
    doctor,
    evaluate,
    export,
    health,
    inspect,
    keys,
    measure,
    place,
    plan,
    run,
    serve,
    sign,
    train,
)
from presplit.cli.console import every_character_printable
from presplit.cli.grouped import Grouped
from presplit.cli.options import spread
from presplit.core.errors import PresplitError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Why a file, or standard output that leads into one, takes nothing more."""

app = typer.Typer(
    name="presplit",
    help="Predefined sparsity, early exits and split points for PyTorch classifiers at the edge.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (
    demo,
    train,
    evaluate,
    export,
    inspect,
    measure,
    plan,
    place,
    serve,
    run,
    health,
    keys,
    sign,
    doctor,
):
    name = verb.__name__.rpartition(".")[2]
    app.command(name, cls=Grouped)(getattr(verb, name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: the process's own) and give its exit code."""
    # Threads of OpenMP that spin while they wait make training many times slower when other work
    # wants the processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _have_streams()
    given = spread(list(sys.argv[1:] if arguments is None else arguments)) or ["--help"]
    with every_character_printable():
        return _run(given)


def _have_streams() -> None:
    """Whoever closed a standard stream (``>&-``) reads nothing there, or writes to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run(given: list[str]) -> int:
    """What `main` does once the console can print anything."""
    try:
        result = app(given, prog_name="presplit", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except PresplitError as error:
        return _refused(str(error))
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            _to_nowhere(sys.stdout)  # what it still holds would fail again at the exit
            return _refused(f"nothing more can be written ({error.strerror}); make room")
        if hasattr(error, "format_message"):  # click's own usage errors
            return _refused(error.format_message())  # type: ignore[attr-defined]
        raise


def _to_nowhere(stream: TextIO) -> None:
    """Let ``stream`` swallow what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _refused(problem: str) -> int:
    """Say ``problem`` on standard error; the exit code for it.

    It is one line, and one more for each file of a list, which are indented.
    """
    lines = "\n  ".join(" ".join(part.splitlines()) for part in problem.split("\n  "))
    print(f"presplit: {lines}", file=sys.stderr)
    return 2
