"""Where a run goes, so that none is lost unasked, and which one ``--resume`` means."""

from __future__ import annotations

import itertools
from pathlib import Path
from shlex import quote

from presplit.core.errors import SpecError
from presplit.core.progress import tell

RUNS = Path("runs")
"""The folder of runs for which no other place was named."""


def place_of(out: Path | None, name: str, *, force: bool) -> Path:
    """The directory of a new run called ``name``: ``out``, or ``runs/NAME``, or ``runs/NAME-2`` ..

    Raises `SpecError` if a run is in ``out``, unless ``force`` says that it may go.
    """
    if force:
        return out or RUNS / name
    if out is not None:
        _refuse_taken(out)
        return out
    usual = RUNS / name
    places = (RUNS / f"{name}-{number}" for number in itertools.count(2))
    found = next(place for place in itertools.chain([usual], places) if _is_free(place))
    if found != usual:
        tell(f"{_kept(usual)}; this one goes to {found}")
    return found


def run_to_resume(out: Path | None, name: str | None) -> Path | None:
    """The run that ``--resume`` goes on with: the one in ``out``, or the only one interrupted.

    It is looked for in ``runs``, among those called ``name`` if something says what they are
    called. None if there is none; raises `SpecError` if there are several.
    """
    from presplit.train.runs import spec_file

    if out is not None:
        return out if spec_file(out) else None
    folders = sorted(RUNS.iterdir()) if RUNS.is_dir() else []
    if name is not None:
        folders = [folder for folder in folders if _is_called(folder, name)]
    found = [folder for folder in folders if _is_interrupted(folder)]
    if len(found) > 1:
        told = ", ".join(map(str, found))
        raise SpecError(f"--resume: several runs were interrupted, {told}; name one with --out")
    if not found and name is not None and spec_file(RUNS / name):
        return RUNS / name
    return found[0] if found else None


def going_on(directory: Path) -> str:
    """The command that goes on with the run in ``directory``."""
    return f"presplit train --resume --out {quote(str(directory))}"


def _refuse_taken(out: Path) -> None:
    """Raise `SpecError` if there is a run in ``out``."""
    from presplit.train.runs import spec_file

    if _is_interrupted(out):
        raise SpecError(
            f"--out {out}: a run was interrupted there: {going_on(out)} goes on with it, --force "
            "begins anew"
        )
    if spec_file(out):
        raise SpecError(
            f"--out {out}: a finished run is there: --force replaces it, another --out keeps it"
        )


def _kept(usual: Path) -> str:
    """What is in the usual place, and stays."""
    from presplit.train.runs import spec_file

    if _is_interrupted(usual):
        return f"{usual} holds a run that was interrupted ({going_on(usual)} goes on with it)"
    if spec_file(usual):
        return f"{usual} holds a finished run, which stays (--force replaces it)"
    return f"{usual} holds other files"


def _is_free(place: Path) -> bool:
    """Whether nothing is there."""
    return not place.exists() or (place.is_dir() and not any(place.iterdir()))


def _is_interrupted(folder: Path) -> bool:
    """Whether a training that has ended early lies in ``folder``."""
    from presplit.train import runs

    return (folder / runs.UNFINISHED).is_dir() and runs.spec_file(folder) is not None


def _is_called(folder: Path, name: str) -> bool:
    """Whether ``folder`` is ``name``, or that with a number.

    >>> [_is_called(Path(each), "cats") for each in ("cats", "cats-2", "cats-dense")]
    [True, True, False]
    """
    return folder.name == name or folder.name.removeprefix(f"{name}-").isdecimal()
