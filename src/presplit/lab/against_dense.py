"""What an answer of a run's net takes here beside its dense parent: both in turn, one thread.

It is measured as `presplit.lab.sweep` measures, and kept in the run's directory, so that it is not
measured again on the same processor.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from presplit.core.errors import DataError
from presplit.core.processor import processor
from presplit.core.progress import doing
from presplit.lab.sweep.timing import measure
from presplit.report.run_facts import TIMING, Timed
from presplit.runtime.engines.onnxruntime import version

if TYPE_CHECKING:
    from presplit.train.runs import Own, Run


def time_run(run: Run, directory: Path, own: Own | None = None) -> Timed:
    """Time the net of ``run`` and its dense parent, some seconds in all.

    ``own`` gives the net that the spec's ``model.factory`` names. Raises `MissingLibrary` without
    ONNX Runtime, `GraphError` if a net cannot be exported.
    """
    version()  # what is missing is said before anything is exported
    nets = [run] if run.spec.sparsity is None else [run, _dense_parent(run, own)]
    what = "this net" if len(nets) == 1 else "this net and its dense parent in turn"
    with doing(f"timing {what}"):
        shape = tuple(map(int, run.train.x.shape[1:]))
        found = measure([(_exported(each), shape) for each in nets])
    dense_s = found.seconds[1] if len(nets) > 1 else None
    timed = Timed(seconds=found.seconds[0], dense_s=dense_s, how=found.how, processor=processor())
    _keep(timed, directory)
    return timed


def _dense_parent(run: Run, own: Own | None) -> Run:
    """The same net with every connection; its values are drawn, which no time depends on."""
    from presplit.train import runs

    spec = msgspec.structs.replace(run.spec, sparsity=None, start=None)
    return runs.build(spec, own, data=run.data)


def _exported(run: Run) -> bytes:
    from presplit.train import runs

    pieces, _ = runs.pieces_of(run)
    return b"".join(pieces.whole(boundaries=False))


def _keep(timed: Timed, directory: Path) -> None:
    from presplit.train import checkpoint

    # Of a run that cannot be written to, the next report measures again.
    with contextlib.suppress(DataError):
        checkpoint.write(directory / TIMING, msgspec.json.encode(timed) + b"\n")
