"""A stranger's bundle is tried in a process of its own before it is loaded here.

``python -m presplit.runtime.quarantine BUNDLE`` makes the engines of the whole net in every form
and runs each once, in at most two gigabytes of memory, ten seconds of a processor and no new files.
Whoever asked compares the hash that it prints with that of the bytes in his own hands. It does
not stop what only some inputs bring about: serve strangers where memory is limited from outside.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from presplit.bundle import Bundle, read
from presplit.core.errors import BundleError, PresplitError

MEMORY_BYTES = 2 * 2**30
CPU_S = 10
WALL_S = 20.0
REFUSED = 3
"""The exit code for a bundle that is refused in one sentence."""


def try_out(bundle: Bundle) -> None:
    """Raise `BundleError` unless a process of its own makes and runs the net of ``bundle``.

    The bundle was read by ``strict=True``.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "presplit.runtime.quarantine", str(bundle.path)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=WALL_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"{bundle.path}: was not ready after {WALL_S:.0f} s in a process of its own; it is not "
            "loaded here"
        ) from error
    if done.returncode == REFUSED:
        raise BundleError(done.stdout.strip()[:500])
    if done.returncode or done.stdout.strip() != bundle.manifest.sha256:
        raise BundleError(
            f"{bundle.path}: broke the process in which it was tried (exit code "
            f"{done.returncode}; {MEMORY_BYTES / 2**30:.0f} GiB of memory, {CPU_S} s of a "
            "processor); it is not loaded here"
        )


def _limit() -> None:
    """From here on this process gets no more than a stranger may have."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _run(path: Path) -> str:
    """Make and run the net once in every form; the manifest's hash."""
    import numpy as np

    from presplit.runtime.engines import DEFAULT, ENGINES

    bundle = read(path, strict=True)
    net = bundle.net
    exits = [exit_.name for exit_ in net.exits[:-1]]
    zeros = np.zeros((1, *net.boundaries[0].shape), np.float32)
    for form in bundle.forms:
        runnable = bundle.runnable(0, net.last, exits=exits, form=form)
        engine = ENGINES[DEFAULT](runnable, 1)
        engine.run({runnable.input: zeros})
    return bundle.manifest.sha256


def main() -> int:
    """Try the bundle that the command line names."""
    _limit()
    try:
        print(_run(Path(sys.argv[1])))
    except PresplitError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
