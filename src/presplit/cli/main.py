"""The command's door.

It collects the verbs, and turns any `PresplitError` into one sentence and exit code 2.

With ``--json`` that sentence is also one object on standard output, ``{"error": .., "kind": ..,
"exit_code": ..}``, so that a program reads one object whatever happens.

Exit codes: 0 done; 1 a check that the command makes did not hold; 2 what was asked for is wrong;
130 interrupted; of ``run`` also 3 if every answer was degraded, and 4 if some samples have none.
Verbs import the rooms they need when they run, so that ``--help`` loads neither torch nor anything
else large.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from presplit import __version__
from presplit.cli import (
    compare,
    demo,
    doctor,
    evaluate,
    export,
    health,
    init,
    inspect,
    keys,
    measure,
    options,
    place,
    plan,
    report,
    run,
    serve,
    sign,
    sweep,
    top,
    train,
    view,
)
from presplit.cli.console import every_character_printable, shortened
from presplit.cli.grouped import Grouped
from presplit.cli.options import spread
from presplit.core import bar
from presplit.core.errors import PresplitError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Why a file, or standard output that leads into one, takes nothing more."""

INTERRUPTED = 130

app = typer.Typer(
    name="presplit",
    help="Predefined sparsity, early exits and split points for PyTorch classifiers at the edge.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
VERBS = (
    demo,
    init,
    train,
    sweep,
    evaluate,
    compare,
    export,
    inspect,
    view,
    measure,
    plan,
    place,
    serve,
    run,
    report,
    health,
    top,
    keys,
    sign,
    doctor,
)
"""Modules, each with a function of its own name: in the order in which the help lists them."""


def _version(asked: bool) -> None:
    """Print the version if it is ``asked``, and end."""
    if asked:
        print(f"presplit {__version__}")
        raise typer.Exit


@app.callback()
def _presplit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say the version, and end."
        ),
    ] = False,
) -> None:
    """Predefined sparsity, early exits and split points for PyTorch classifiers at the edge."""


for verb in VERBS:
    name = verb.__name__.rpartition(".")[2]
    app.command(name, cls=Grouped)(getattr(verb, name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (default: the process's own) and give its exit code."""
    # Threads of OpenMP that spin while they wait make training many times slower when other work
    # wants the processors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _have_streams()
    options.given[:] = sys.argv[1:] if arguments is None else arguments
    given = spread(options.given) or ["--help"]
    as_json = wants_json(given)
    with every_character_printable(), bar.drawn(lines=not as_json):
        code, problem = _run(given)
        if problem is not None:
            _tell(problem, code, as_json=as_json)
    return code


def wants_json(given: Sequence[str]) -> bool:
    """Whether ``given`` asks for one JSON object on standard output.

    >>> wants_json(["train", "--json"]), wants_json(["run", "b", "--", "--json"])
    (True, False)
    """
    words = list(given)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _have_streams() -> None:
    """Whoever closed a standard stream (``>&-``) reads nothing there, or writes to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run(given: list[str]) -> tuple[int, Exception | str | None]:
    """What `main` does once the console can print anything: the exit code, and what is wrong."""
    try:
        result = app(given, prog_name="presplit", standalone_mode=False)
        sys.stdout.flush()
        code = result if isinstance(result, int) else 0
        # Typer makes Ctrl-C a result.
        return code, ("interrupted" if code == INTERRUPTED else None)
    except PresplitError as error:
        return 2, error
    except typer.Exit as stop:
        return stop.exit_code, None
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    except BrokenPipeError:
        _to_nowhere(sys.stdout)
        return 0, None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            _to_nowhere(sys.stdout)  # what it still holds would fail again at the exit
            return 2, f"nothing more can be written ({error.strerror}); make room"
        if hasattr(error, "format_message"):  # click's own usage errors
            return 2, _usage(error)
        raise


def _usage(error: Any) -> str:
    """What click says of a wrong command line, and where the right one is told."""
    verb = getattr(error.ctx, "command_path", "presplit") if error.ctx else "presplit"
    return f"{error.format_message().rstrip('.')}; {verb} --help says what there is"


def _to_nowhere(stream: TextIO) -> None:
    """Let ``stream`` swallow what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell(problem: Exception | str, code: int, *, as_json: bool) -> None:
    """Say what is wrong on standard error, and ``as_json`` on standard output too.

    It is one line, and one more for each of the first files of a list, which are indented; programs
    are told all. An interruption is
    told to programs only: who pressed Ctrl-C knows.
    """
    text = str(problem)
    if as_json:
        usual = "Interrupted" if code == INTERRUPTED else "UsageError"
        kind = type(problem).__name__ if isinstance(problem, Exception) else usual
        with contextlib.suppress(OSError):
            print(json.dumps({"error": text, "kind": kind, "exit_code": code}), flush=True)
    if code == INTERRUPTED:
        return
    sentence, *listed = (" ".join(part.splitlines()) for part in text.split("\n  "))
    print("\n  ".join([f"presplit: {sentence}", *shortened(listed)]), file=sys.stderr)
